/**
 * The one question behind most endpoints: the totals of some assistants or users over each of a list of ranges, exact to the
 * millisecond.
 *
 * What lies in spans and what is raw are two queries side by side, put together here: as one query, with UNION ALL, ClickHouse
 * is longer about its plan than about its rows. 90 days of 100 million events with ragged ends take 11.7 ms instead of 17.6,
 * with less work. The same users are in both: of a range that has both kinds, each query gives the set of its users.
 */
import { countDistinct } from '../clickhouse/bitmap.ts'
import { AS_WRITTEN, SPLIT_EARLY } from '../clickhouse/query-settings.ts'
import type { Store } from '../clickhouse/store.ts'
import { tenantSql } from '../clickhouse/tenant-filter.ts'
import type { Range } from '../domain/time-range.ts'
import { MIN_INSTANT } from '../time/instant.ts'
import { ASSISTANT_LEVELS, DAY, FLEET_LEVELS, QUARTER } from './granularities.ts'
import {
  COUNTS,
  filters,
  inRaw,
  inSpans,
  isOneRun,
  partParams,
  RAW_ENTRY,
  SPAN_ENTRY,
  spanParams,
  TOKENS_AND_LAST,
} from './plan-sql.ts'
import { entryOf, type Parts, partsOf } from './plan.ts'
import type { Scope } from './scope.ts'

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

/** What is summed. Users take as long as all the rest, which is why there is a way to do without. */
export type Wanted = 'counts' | 'figures' | 'figures and assistants'

/** Sums as ClickHouse returns them, those that are wanted, with what it takes to add them to others of the same range. */
interface Sums extends Partial<Omit<TotalsRow, 'cost' | 'assistants'>> {
  /** First millisecond of the range. */
  entry: number
  /** An integer of up to 20 digits. */
  costNanos?: string
  /** The users themselves (src/clickhouse/bitmap.ts), where others may have to be added. */
  userSet?: string
  assistantList?: number[]
}

/**
 * The totals of each range, in order.
 *
 * @param name what the queries are called in logs and metrics
 * @param ranges half-open, ascending and disjoint; what lies before 1970 holds no event
 */
export async function totalsOf<const R extends readonly Range[]>(
  store: Store,
  scope: Scope,
  name: string,
  ranges: R,
  wanted: Wanted = 'figures',
): Promise<{ [At in keyof R]: TotalsRow }> {
  const found = new Map<number, TotalsRow>()
  for (const chunk of chunks(ranges.filter(isPossible))) {
    const parts = activityParts(scope, chunk)
    const shared = chunk.filter((range) => hasBoth(parts, range)).map(entryOf)
    const [spans, raw] = await Promise.all([
      parts.spans.length > 0
        ? sumsOfSpans(store, scope, name, chunk, parts, { wanted, sets: shared.length > 0 && `entry IN {shared:Array(UInt64)}`, params: { shared } })
        : [],
      parts.raw.length > 0 ? sumsOfRaw(store, scope, name, chunk, parts, { wanted, sets: shared.length > 0 }) : [],
    ])
    const byEntry = new Map(spans.map((row) => [row.entry, [row]]))
    for (const row of raw) byEntry.set(row.entry, [...(byEntry.get(row.entry) ?? []), row])
    for (const [entry, rows] of byEntry) found.set(entry, together(rows))
  }
  return ranges.map((range) => (isPossible(range) && found.get(entryOf(range))) || NOTHING) as { [At in keyof R]: TotalsRow }
}

/** The totals of each of a series of adjacent ranges, of all of it together, and of one range before it. */
export async function seriesOf(store: Store, scope: Scope, name: string, before: Range, series: readonly Range[]) {
  const whole = { from: before.to, to: series.at(-1)?.to ?? before.to }
  if (!isPossible(whole)) return { before: NOTHING, whole: NOTHING, series: series.map(() => NOTHING) }
  const ranges = [before, ...series].filter(isPossible)
  const parts = activityParts(scope, ranges)
  const both = parts.spans.length > 0 && parts.raw.length > 0
  const shared = ranges.filter((range) => hasBoth(parts, range)).map(entryOf)
  const params = { parts: [before, whole].filter(isPossible).map(entryOf), shared }
  const [spans, raw] = await Promise.all([
    parts.spans.length > 0
      ? sumsOfSpans(store, scope, name, ranges, parts, { isSeries: true, sets: both && `isWhole OR entry IN {shared:Array(UInt64)}`, params })
      : [],
    parts.raw.length > 0 ? sumsOfRaw(store, scope, name, ranges, parts, { isSeries: !both, sets: both, params }) : [],
  ])
  const rows = [...spans, ...raw]
  const one = (range: Range) => together(rows.filter((row) => !row.isWhole && row.entry === entryOf(range)))
  const all = (range: Range) =>
    together([
      ...rows.filter((row) => row.isWhole && row.part === entryOf(range)),
      ...(both ? raw.filter(({ entry }) => isWithin(entry, range)) : []),
    ])
  return {
    before: isPossible(before) ? all(before) : NOTHING,
    whole: all(whole),
    series: series.map((range) => (isPossible(range) ? one(range) : NOTHING)),
  }
}

const isWithin = (entry: number, { from, to }: Range) => entry >= from && entry < to

/** Whether the range holds anything that can be stored. */
const isPossible = (range: Range) => range.to > MIN_INSTANT

/** Whether a range is made of spans and of raw events. */
const hasBoth = ({ spans, raw }: Parts, { from, to }: Range): boolean =>
  raw.some((piece) => piece.from < to && piece.to > from) && spans.some(([, start]) => isWithin(start * 1000, { from, to }))

/** Sums of disjoint parts of one range. */
function together(rows: readonly Sums[]): TotalsRow {
  const sum = (of: (row: Sums) => number | undefined) => rows.reduce((total, row) => total + (of(row) ?? 0), 0)
  return {
    incomingMessages: sum((row) => row.incomingMessages),
    outgoingMessages: sum((row) => row.outgoingMessages),
    tasksInitiated: sum((row) => row.tasksInitiated),
    tasksCompleted: sum((row) => row.tasksCompleted),
    cost: Number(rows.reduce((total, { costNanos = '0' }) => total + BigInt(costNanos), 0n)) / 1e9,
    inputTokens: sum((row) => row.inputTokens),
    outputTokens: sum((row) => row.outputTokens),
    activeUsers: usersOf(rows),
    assistants: new Set(rows.flatMap(({ assistantList }) => assistantList ?? [])).size,
    lastAt: Math.max(0, ...rows.map(({ lastAt = 0 }) => lastAt)),
  }
}

/** @throws RangeError where there are several parts and one of them did not hand out its set: better no answer than too few users */
function usersOf(rows: readonly Sums[]): number {
  if (rows.length <= 1 || rows.every(({ activeUsers }) => activeUsers === undefined)) return rows[0]?.activeUsers ?? 0
  return countDistinct(rows.map(({ userSet = '' }) => userSet))
}

/** A query finds every span it wants in a set, about 100 a local day at most: this keeps the set in the thousands. */
const RANGES_A_QUERY = 100

function* chunks(ranges: readonly Range[]): Generator<readonly Range[]> {
  for (let at = 0; at < ranges.length; at += RANGES_A_QUERY) yield ranges.slice(at, at + RANGES_A_QUERY)
}

/** The fleet's rows of `activity` carry this instead of an assistant. */
const WHOLE_FLEET = 0

/** The sums of a series come once for each range and once for all ranges of a part: `part` is the part's first millisecond. */
type SeriesSums = Sums & { isWhole?: 0 | 1; part?: number }

interface How {
  readonly wanted?: Wanted
  readonly isSeries?: boolean
  readonly params?: Record<string, unknown>
}

const columnsOf = (entry: string, { isSeries }: How) =>
  isSeries ? `${entry}, roundDown(entry, {parts:Array(UInt64)}) AS part, grouping(entry) AS isWhole` : entry
const groupsOf = ({ isSeries }: How) => (isSeries ? 'GROUPING SETS ((part, entry), (part))' : 'entry')

/** @param how `sets`: a condition for the rows that come with their set of users */
function sumsOfSpans(store: Store, scope: Scope, name: string, ranges: readonly Range[], parts: Parts, how: How & { sets: string | false }) {
  const { wanted = 'figures', sets } = how
  const of = scope.assistants ? 'assistants' : 'fleet'
  const rows = scope.assistants ?? [WHOLE_FLEET]
  const entries = ranges.map(entryOf)
  // Every expression and every list takes its tenths of a millisecond.
  const isSpanEach = parts.spans.length === entries.length && parts.spans.every(([, start], at) => start * 1000 === entries[at])
  const sums = `
    ${COUNTS}${wanted === 'counts' ? '' : `, ${SPAN_COSTS}, ${sets ? `${SPAN_USERS}, if(${sets}, ${SPAN_USER_SET}, '') AS userSet` : SPAN_USERS}`}`
  // The fleet's rows carry the set of its assistants; a row of one assistant is its own.
  const assistants = scope.assistants ? 'groupUniqArray(assistant_no)' : 'groupUniqArrayArray(assistants)'
  return store.read<SeriesSums>(
    scope,
    name,
    tenantSql(`
      SELECT ${columnsOf(isSpanEach ? SPAN_START_ENTRY : SPAN_ENTRY, how)}, ${sums}${wanted === 'figures and assistants' ? `, ${assistants} AS assistantList` : ''}
      FROM activity
      ${isOneRun(parts.spans) ? 'WHERE' : 'PREWHERE'} tenant = {tenant:UUID} AND ${inSpans(parts, of)}
        AND ${rows.length === 1 ? 'assistant_no = {rows:UInt32}' : 'assistant_no IN {rows:Array(UInt32)}'}
      GROUP BY ${groupsOf(how)}`),
    {
      ...spanParams(parts, of),
      ...(isSpanEach ? {} : { entries }),
      ...how.params,
      rows: rows.length === 1 ? rows[0] : rows,
    },
    parts.spans.length > ONE_THREAD ? { ...AS_WRITTEN, ...SPLIT_EARLY, max_threads: 2 } : AS_WRITTEN,
  )
}

/** @param how `sets`: with sets of users, to be added to those of spans */
function sumsOfRaw(store: Store, scope: Scope, name: string, ranges: readonly Range[], parts: Parts, how: How & { sets: boolean }) {
  const { wanted = 'figures', sets } = how
  const sums = `
    ${RAW_COUNTS}${wanted === 'counts' ? '' : `, ${RAW_COSTS}, ${sets ? `${RAW_USERS}, ${RAW_USER_SET}` : RAW_USERS}`}`
  const milliseconds = parts.raw.reduce((sum, { from, to }) => sum + to - from, 0)
  const isEdges = !scope.users && milliseconds <= LONGEST_EDGES_MS
  return store.read<SeriesSums>(
    scope,
    `${name}_raw`,
    tenantSql(`
      SELECT ${columnsOf(RAW_ENTRY, how)}, ${sums}${wanted === 'figures and assistants' ? ', groupUniqArray(assistant_no) AS assistantList' : ''}
      FROM events
      ${isEdges ? 'PREWHERE' : 'WHERE'} tenant = {tenant:UUID} AND ${inRaw(parts, scope)}${filters(scope)}
      GROUP BY ${groupsOf(how)}`),
    { ...partParams(parts, scope), entries: ranges.map(entryOf), ...how.params },
    // What some users did is read by projection, and may be much.
    isEdges ? AS_WRITTEN : {},
  )
}

/** The ends of two ranges, each shorter than a span of the finest level, and the last five minutes. */
const LONGEST_EDGES_MS = 5 * QUARTER.seconds * 1000

/** More spans than this have so many users to put together that two threads are faster: 67 ms instead of 86 for 1,800. */
const ONE_THREAD = 500

/** `entry` where every range is a span. */
const SPAN_START_ENTRY = `toUInt64(toUnixTimestamp(start)) * 1000 AS entry`

const SPAN_COSTS = `toString(sum(cost_nanos)) AS costNanos, ${TOKENS_AND_LAST}`

const SPAN_USERS = 'bitmapCardinality(groupBitmapMergeState(users)) AS activeUsers'
const SPAN_USER_SET = 'base64Encode(toString(groupBitmapMergeState(users)))'

const RAW_COUNTS = `countIf(event_type = 'incomingMessages') AS incomingMessages,
    countIf(event_type = 'outgoingMessages') AS outgoingMessages,
    countIf(event_type = 'tasksInitiated') AS tasksInitiated,
    countIf(event_type = 'tasksCompleted') AS tasksCompleted`

const RAW_COSTS = `toString(sum(cost_nanos)) AS costNanos,
    sum(input_tokens) AS inputTokens,
    sum(output_tokens) AS outputTokens,
    toUnixTimestamp64Milli(max(timestamp)) AS lastAt`

const RAW_USERS = 'bitmapCardinality(groupBitmapState(user_no)) AS activeUsers'
const RAW_USER_SET = 'base64Encode(toString(groupBitmapState(user_no))) AS userSet'

/** The parts of some ranges, from days alone where that is faster. */
function activityParts(scope: Scope, ranges: readonly Range[]): Parts {
  const byDay = isBestByDay(scope, ranges) ? { ...scope, sealedUntil: scope.sealedUntil.slice(0, 1) } : scope
  return partsOf(byDay, 'activity', ranges, scope.users ? [] : scope.assistants ? ASSISTANT_LEVELS : FLEET_LEVELS)
}

/**
 * Whether days are put together faster than coarse spans. Those are fewer and have fewer bytes, but lie in a dozen places of
 * the index, where days lie in one: the total of 90 days took 20.9 ms from coarse spans and 13.4 from days with 300,000 users.
 * But a day holds up to a bit for each user. In a table of made-up days 90 of them took 14, 16 and 28 ms with 0.3, 1.5 and 5
 * million users, 180 took 18, 26 and 142, and 22 spans of 4 days took 11, 13 and 18.
 */
function isBestByDay({ assistants, userCount }: Scope, ranges: readonly Range[]): boolean {
  const days = ranges.reduce((sum, { from, to }) => sum + (to - from) / DAY_MS, 0) * (assistants?.length ?? 1)
  return days <= MAX_DAYS && days * userCount <= MAX_USER_DAYS
}

const MAX_DAYS = 100
const MAX_USER_DAYS = 60_000_000

const DAY_MS = DAY.seconds * 1000
