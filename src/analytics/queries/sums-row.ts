/** The columns that the two queries behind `totalsOf` and `seriesOf` have in common. */
import * as v from 'valibot'
import { count } from './row-fields.ts'

/** What is summed. Users take as long as all the rest, which is why there is a way to do without. */
export type Wanted = 'counts' | 'figures' | 'figures and assistants'

/** One range, or with `isWhole` all ranges of a part, with what it takes to add it to others of the same range. */
export const sumsRow = v.strictObject({
  /** First millisecond of the range; 0 where `isWhole`. */
  entry: count,
  /** First millisecond of the part. */
  part: v.optional(count),
  isWhole: v.optional(v.picklist([0, 1])),
  incomingMessages: count,
  outgoingMessages: count,
  tasksInitiated: count,
  tasksCompleted: count,
  /** 1e-9 USD: an integer of up to 20 digits, which a number would round. */
  costNanos: v.optional(v.pipe(v.string(), v.regex(/^-?\d{1,20}$/))),
  inputTokens: v.optional(count),
  outputTokens: v.optional(count),
  /** Epoch milliseconds. */
  lastAt: v.optional(count),
  activeUsers: v.optional(count),
  /** The users themselves, base64 of a bitmap (src/clickhouse/bitmap.ts); '' where they are not needed. */
  userSet: v.optional(v.string()),
  /** Numbers of assistants. */
  assistantList: v.optional(v.array(count)),
})
export type SumsRow = v.InferOutput<typeof sumsRow>

export interface SumsOptions {
  /** 'figures' by default. */
  readonly wanted?: Wanted
  /** The ranges are a series: sums come once for each range and once for all ranges of a part. */
  readonly isSeries?: boolean
  /** Parameters of `sets` and of the parts. */
  readonly params?: Record<string, unknown>
}

export const columnsOf = (entry: string, { isSeries }: SumsOptions) =>
  isSeries ? `${entry}, roundDown(entry, {parts:Array(UInt64)}) AS part, grouping(entry) AS isWhole` : entry
export const groupsOf = ({ isSeries }: SumsOptions) => (isSeries ? 'GROUPING SETS ((part, entry), (part))' : 'entry')
