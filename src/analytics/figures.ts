/** The figures that appear wherever counts do. */

/** Sums and distinct users of one range. */
export interface TotalsRow {
  incomingMessages: number
  outgoingMessages: number
  tasksInitiated: number
  tasksCompleted: number
  /** USD */
  cost: number
  inputTokens: number
  outputTokens: number
  activeUsers: number
  /** Distinct assistants with an event; 0 where they were not asked for. */
  assistants: number
  /** Epoch milliseconds of the last event, 0 where there was none. */
  lastAt: number
}

/** What an answer's figures are made of; the rest of a TotalsRow is for the overview. */
export type Figures = Omit<TotalsRow, 'assistants'>

export const NOTHING: TotalsRow = Object.freeze({
  incomingMessages: 0,
  outgoingMessages: 0,
  tasksInitiated: 0,
  tasksCompleted: 0,
  cost: 0,
  inputTokens: 0,
  outputTokens: 0,
  activeUsers: 0,
  assistants: 0,
  lastAt: 0,
})

/** The figures as answers carry them; `completionRate` is tasksCompleted / tasksInitiated, null where none was initiated. */
export interface Metrics {
  activeUsers: number
  incomingMessages: number
  outgoingMessages: number
  tasksInitiated: number
  tasksCompleted: number
  total: number
  completionRate: number | null
  cost: number
  inputTokens: number
  outputTokens: number
}

export function toMetrics(row: Figures): Metrics {
  const { activeUsers, incomingMessages, outgoingMessages, tasksInitiated, tasksCompleted } = row
  return {
    activeUsers,
    incomingMessages,
    outgoingMessages,
    tasksInitiated,
    tasksCompleted,
    total: incomingMessages + outgoingMessages + tasksInitiated + tasksCompleted,
    completionRate: tasksInitiated === 0 ? null : tasksCompleted / tasksInitiated,
    cost: row.cost,
    inputTokens: row.inputTokens,
    outputTokens: row.outputTokens,
  }
}

/** How each figure moved against an earlier range: (now - before) / before, null where there is nothing to divide by. */
export type Change = { [Name in keyof Metrics]: number | null }

export function toChange(now: Metrics, before: Metrics): Change {
  const names = Object.keys(now) as Array<keyof Metrics>
  return Object.fromEntries(
    names.map((name) => {
      const [current, previous] = [now[name], before[name]]
      return [name, current === null || !previous ? null : (current - previous) / previous]
    }),
  ) as Change
}
