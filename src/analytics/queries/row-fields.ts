/** Schemas of single columns, as the store hands them out. */
import * as v from 'valibot'

/** An integer from 0 to 2^53. */
export const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))

/** Sums of `SUMS` (src/rollups/plan-sql.ts). */
export const sums = {
  incomingMessages: count,
  outgoingMessages: count,
  tasksInitiated: count,
  tasksCompleted: count,
  /** USD */
  cost: v.pipe(v.number(), v.minValue(0)),
  inputTokens: count,
  outputTokens: count,
  /** Epoch milliseconds of the last event, 0 where there was none. */
  lastAt: count,
}
