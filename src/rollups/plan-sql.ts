/** The parts of the ranges of a question as SQL: which rows of the rollups, which raw events, what is summed. */
import { TupleParam } from '@clickhouse/client'
import { dateTime64 } from '../clickhouse/parameters.ts'
import { endOf, LEVEL_OF, secondsOf, SPLIT_DAY } from './granularities.ts'
import { MAX_RAW, type Parts } from './plan.ts'
import type { Scope } from './scope.ts'

/** The four counts from rows of a rollup. */
export const COUNTS = `
  sum(incoming_messages) AS incomingMessages,
  sum(outgoing_messages) AS outgoingMessages,
  sum(tasks_initiated) AS tasksInitiated,
  sum(tasks_completed) AS tasksCompleted` as const

/** What else adds up, but for the cost. */
export const TOKENS_AND_LAST = `
  sum(input_tokens) AS inputTokens,
  sum(output_tokens) AS outputTokens,
  toUnixTimestamp64Milli(max(last_at)) AS lastAt` as const

export const SUMS = `${COUNTS}, sum(cost_nanos) / 1e9 AS cost, ${TOKENS_AND_LAST}` as const

/** Columns of a rollup row that SUMS adds up. */
export const SUMMED = `incoming_messages, outgoing_messages, tasks_initiated, tasks_completed, cost_nanos, input_tokens,
    output_tokens, last_at` as const

/** The same columns made from raw events. */
export const RAW_SUMMED = `
    countIf(event_type = 'incomingMessages') AS incoming_messages,
    countIf(event_type = 'outgoingMessages') AS outgoing_messages,
    countIf(event_type = 'tasksInitiated') AS tasks_initiated,
    countIf(event_type = 'tasksCompleted') AS tasks_completed,
    sum(events.cost_nanos) AS cost_nanos,
    sum(events.input_tokens) AS input_tokens,
    sum(events.output_tokens) AS output_tokens,
    max(timestamp) AS last_at` as const

/**
 * Spans of one level that follow each other are a range, which ClickHouse plans and finds fastest: 90 days by day of 100
 * million events take 14.2 ms instead of 16.7 for a list. Others are all named, so that the index finds exactly these rows;
 * with OR between ranges it is slower from the fifth range on. A list takes 2 ms less than runs (level, start of the first,
 * end of the last, seconds of each and of their bucket), but a parameter ends at 128 KiB: 90 local days can be 2,000 spans.
 */
const SPANS = {
  range: 'level = {level:UInt8} AND start >= {startFrom:UInt32} AND start < {startTo:UInt32}',
  list: '(level, start) IN {spans:Array(Tuple(UInt8, UInt32))}',
  runs: `(level, start) IN (
      SELECT run.1, toDateTime(arrayJoin(range(run.2, run.3, run.4)), 'UTC')
      FROM (SELECT arrayJoin({runs:Array(Tuple(UInt8, UInt32, UInt32, UInt32, UInt32))}) AS run))`,
} as const

/** The same for rows that lie in buckets of their level. */
const SPANS_IN_BUCKETS = {
  range: `level = {level:UInt8} AND bucket >= {bucketFrom:UInt32} AND bucket <= {bucketTo:UInt32}
      AND start >= {startFrom:UInt32} AND start < {startTo:UInt32}`,
  list: '(level, bucket, start) IN {spans:Array(Tuple(UInt8, UInt32, UInt32))}',
  runs: `(level, bucket, start) IN (
      SELECT run.1, toDateTime(if(run.5 = 0, 0, intDiv(at, run.5) * run.5), 'UTC'), toDateTime(at, 'UTC')
      FROM (SELECT run, arrayJoin(range(run.2, run.3, run.4)) AS at
            FROM (SELECT arrayJoin({runs:Array(Tuple(UInt8, UInt32, UInt32, UInt32, UInt32))}) AS run)))`,
} as const

const LONGEST_LIST = 2_000

/** Whose rows are read: the fleet's and the assistants' of `activity`, or the users' of `user_activity`. */
type Rows = 'fleet' | 'assistants' | 'users'

/** A condition and its query parameters. */
export interface Condition {
  readonly where: string
  readonly params: Record<string, unknown>
}

/** Which rows of a rollup lie in the spans of the parts; of the table that `rows` names. */
export const rollupRows = (parts: Parts, rows: Rows): Condition => ({
  where: inSpans(parts, rows),
  params: spanParams(parts, rows),
})

/** Which raw events lie in the raw ranges of the parts, of the scope's assistants and users. */
export const rawEdges = (parts: Parts, scope: Pick<Scope, 'assistants' | 'users'>): Condition => ({
  where: `${inRaw(parts, scope)}${filters(scope)}`,
  params: { ...rawParams(parts, scope), ...filterParams(scope) },
})

function inSpans({ spans }: Parts, rows: Rows) {
  const form = formOf(spans)
  if (rows === 'users') return SPANS[form]
  return rows === 'fleet' ? (`bucket = 0 AND ${SPANS[form]}` as const) : SPANS_IN_BUCKETS[form]
}

const formOf = (spans: Parts['spans']) => (isOneRun(spans) ? 'range' : spans.length > LONGEST_LIST ? 'runs' : 'list')

/** Whether all spans are of one level and follow each other. */
export const isOneRun = (spans: Parts['spans']): boolean => runsOf(spans).length === 1

/**
 * The condition that raw events are those of the parts' ranges, MAX_RAW at most; its parameters come from `rawParams`.
 *
 * A single range is found by a binary search in the index, several by one that follows every mark which may match. At the
 * edges of fleets those are few. All marks of a range may hold a certain user, before the projection is looked at: 100
 * million events took 61 ms with OR and 14 ms with what the index does not see through.
 */
function inRaw({ raw }: Parts, { users }: Pick<Scope, 'users'>) {
  if (raw.length <= 1) return IN_FIRST
  return users ? (`${IN_ALL} AND multiIf(${IN_FIRST}, 1, ${IN_SECOND}, 1, ${IN_THIRD}, 1, 0)` as const) : IN_ANY
}

const IN_ALL = `timestamp >= {from1:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}` as const
const IN_FIRST = `(timestamp >= {from1:DateTime64(3, 'UTC')} AND timestamp < {to1:DateTime64(3, 'UTC')})` as const
const IN_SECOND = `(timestamp >= {from2:DateTime64(3, 'UTC')} AND timestamp < {to2:DateTime64(3, 'UTC')})` as const
const IN_THIRD = `(timestamp >= {from3:DateTime64(3, 'UTC')} AND timestamp < {to3:DateTime64(3, 'UTC')})` as const
const IN_ANY = `(${IN_FIRST} OR ${IN_SECOND} OR ${IN_THIRD})` as const

/** Which of the asked ranges a row belongs to, named by the range's first millisecond. */
export const SPAN_ENTRY = `roundDown(toUInt64(toUnixTimestamp(start)) * 1000, {entries:Array(UInt64)}) AS entry` as const
export const RAW_ENTRY = `roundDown(toUInt64(toUnixTimestamp64Milli(timestamp)), {entries:Array(UInt64)}) AS entry` as const

/**
 * Appended only where there is such a filter: `empty(list) OR …` would keep the index from being used. Events of users who
 * were removed keep their number and have no name: whoever still knows the number finds nothing.
 */
const BY_ASSISTANT = ` AND assistant_no IN {assistants:Array(UInt32)}` as const
const BY_USER = ` AND user_no IN {users:Array(UInt32)} AND user != ''` as const

export const filters = (scope: Pick<Scope, 'assistants' | 'users'>) =>
  `${scope.assistants ? BY_ASSISTANT : ''}${scope.users ? BY_USER : ''}` as const

/** The SQL of the rows that make up the parts: of the two kinds, only what there is. */
export const rowsOf = <const S extends string, const R extends string>({ spans, raw }: Parts, ofSpans: S, ofRaw: R) =>
  raw.length === 0 ? ofSpans : spans.length === 0 ? ofRaw : (`${ofSpans} UNION ALL ${ofRaw}` as const)

/** Query parameters of `filters`. */
export const filterParams = ({ assistants, users }: Pick<Scope, 'assistants' | 'users'>): Record<string, unknown> => ({
  ...(assistants ? { assistants } : {}),
  ...(users ? { users } : {}),
})

/** Query parameters of `inRaw`. */
function rawParams({ raw }: Parts, { users }: Pick<Scope, 'users'>): Record<string, unknown> {
  const params: Record<string, unknown> = {}
  const asked = raw.length <= 1 ? raw.length : MAX_RAW
  for (let at = 0; at < asked; at++) {
    params[`from${at + 1}`] = dateTime64(raw[at]?.from ?? 0)
    params[`to${at + 1}`] = dateTime64(raw[at]?.to ?? 0)
  }
  if (users && raw.length > 1) params.end = dateTime64(raw.at(-1)?.to ?? 0)
  return params
}

/** Query parameters of `inSpans`. */
function spanParams({ spans }: Parts, rows: Rows): Record<string, number | TupleParam[]> {
  const form = formOf(spans)
  const runs = runsOf(spans)
  if (form === 'range') {
    const [level, from, to] = runs[0] as Run
    const range = { level, startFrom: from, startTo: to }
    return rows === 'assistants'
      ? { ...range, bucketFrom: bucketOf(level, from), bucketTo: bucketOf(level, to - secondsOf(level)) }
      : range
  }
  if (form === 'runs') return { runs: runs.flatMap(evenRuns).map((run) => new TupleParam(run)) }
  return {
    spans: spans.map(
      ([level, start]) => new TupleParam(rows === 'assistants' ? [level, bucketOf(level, start), start] : [level, start]),
    ),
  }
}

const bucketSeconds = (level: number): number => LEVEL_OF.get(level)?.bucketSeconds ?? 0

function bucketOf(level: number, start: number): number {
  const seconds = bucketSeconds(level)
  return seconds === 0 ? 0 : start - (start % seconds)
}

type Run = [level: number, start: number, end: number]

/** Spans of a level that follow each other, together: level, start of the first, end of the last. */
function runsOf(spans: Parts['spans']): Run[] {
  const runs: Run[] = []
  const latest = new Map<number, Run>()
  for (const [level, start] of spans) {
    const run = latest.get(level)
    if (run?.[2] === start) run[2] = endOf(level, start)
    else {
      const next: Run = [level, start, endOf(level, start)]
      latest.set(level, next)
      runs.push(next)
    }
  }
  return runs
}

/** A run as `SPANS.runs` wants it, with the seconds of a span and of its bucket; pieces of days are of two lengths, so each is a run. */
function evenRuns([level, from, to]: Run): number[][] {
  if (level <= SPLIT_DAY.id) return [[level, from, to, secondsOf(level), bucketSeconds(level)]]
  const runs: number[][] = []
  for (let start = from; start < to; start = endOf(level, start)) runs.push([level, start, start + 1, 1, 0])
  return runs
}
