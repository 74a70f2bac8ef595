/**
 * Compares the raw log with every rollup, per tenant and UTC day, and repairs what drifted. Nothing in the service makes
 * them differ on purpose; disks, operators and bugs do.
 *
 * It runs in the writer's lane, one stretch of days after the other, so no insert is half visible while it looks; between
 * stretches events are stored as usual. A repair deletes the rows of one day of one tenant and writes them anew from raw:
 * for that moment, and only for what was wrong anyway, a question may see too little.
 */
import { SettingsMap } from '@clickhouse/client'
import { randomUUID } from 'node:crypto'
import { COARSE, DAY, QUARTER, THREE_HOURS } from '../analytics/levels.ts'
import { dateTime64, type Store } from '../clickhouse/store.ts'
import { sealFrom, type Seals } from './seals.ts'

/** A day of one tenant (a span, for a coarse level) in which a rollup does not say what its source says. */
export interface Drift {
  /** Number of the tenant in the names table. */
  tenant: number
  /** First second of the day or span, since 1970. */
  start: number
  /** Such as `activity level 0 by assistant`. */
  rollup: string
  /** Events by the source (the raw log, or the day rows for a coarse level) and by the rollup; where they are equal, another figure differs. */
  sourceEvents: number
  rollupEvents: number
}

export interface Reconciliation {
  /** Tenants times days that were compared. */
  days: number
  /** What differed, at most MAX_DRIFT entries. */
  drift: Drift[]
  /** Entries of `drift` that were written anew. */
  repaired: number
}

/** The lane is held for one such stretch at a time. */
const STRETCH_SECONDS = 16 * DAY.seconds
const MAX_DRIFT = 10_000

interface DayRow {
  tenant: number
  day: number
  events: number
  /** Hash over every key with all its figures: equal only where every row says the same. */
  checksum: string
}

/** A rollup as it is compared: rows of `table` at `level`, for one kind of key. */
interface Rollup {
  readonly name: string
  readonly table: 'activity' | 'user_activity'
  readonly level: number
  readonly by: 'fleet' | 'assistant' | 'user'
}

const KEYS = {
  fleet: { raw: 'toUInt32(0)', stored: 'assistant_no', only: 'assistant_no = 0', counted: 'user_no', distinct: 'groupBitmapMerge(users)' },
  assistant: { raw: 'assistant_no', stored: 'assistant_no', only: 'assistant_no > 0', counted: 'user_no', distinct: 'groupBitmapMerge(users)' },
  user: { raw: 'user_no', stored: 'user_no', only: 'user_no > 0', counted: 'assistant_no', distinct: 'length(groupUniqArrayArray(assistants))' },
} as const

const ROLLUPS: readonly Rollup[] = [
  ...[QUARTER, THREE_HOURS, DAY].map(({ id }) => ({ name: `activity level ${id} of the fleet`, table: 'activity', level: id, by: 'fleet' }) as const),
  ...[QUARTER, DAY].map(({ id }) => ({ name: `activity level ${id} by assistant`, table: 'activity', level: id, by: 'assistant' }) as const),
  { name: `user_activity level ${DAY.id}`, table: 'user_activity', level: DAY.id, by: 'user' },
]

const COARSE_ROLLUPS: readonly Rollup[] = COARSE.flatMap(({ id }) => [
  { name: `activity level ${id} of the fleet`, table: 'activity', level: id, by: 'fleet' } as const,
  { name: `activity level ${id} by assistant`, table: 'activity', level: id, by: 'assistant' } as const,
  { name: `user_activity level ${id}`, table: 'user_activity', level: id, by: 'user' } as const,
])

const perDay = (rows: string) => `
  SELECT tenant, day, sum(a + b + c + d) AS events,
    toString(groupBitXor(cityHash64(key, a, b, c, d, cost, input, output, last, counted))) AS checksum
  FROM (${rows}) GROUP BY tenant, day`

const rawRows = ({ by }: Rollup) => `
  SELECT tenant, toUInt32(intDiv(toUnixTimestamp(timestamp), {seconds:UInt32}) * {seconds:UInt32}) AS day, ${KEYS[by].raw} AS key,
    countIf(event_type = 'incomingMessages') AS a, countIf(event_type = 'outgoingMessages') AS b,
    countIf(event_type = 'tasksInitiated') AS c, countIf(event_type = 'tasksCompleted') AS d,
    sum(cost_nanos) AS cost, sum(input_tokens) AS input, sum(output_tokens) AS output,
    toUnixTimestamp64Milli(max(timestamp)) AS last, toUInt64(uniqExact(${KEYS[by].counted})) AS counted
  FROM events
  WHERE timestamp >= {from:DateTime64(3, 'UTC')} AND timestamp < {to:DateTime64(3, 'UTC')}
  GROUP BY tenant, day, key`

const storedRows = ({ table, by }: Rollup) => `
  SELECT tenant, toUInt32(intDiv(toUnixTimestamp(start), {seconds:UInt32}) * {seconds:UInt32}) AS day, ${KEYS[by].stored} AS key,
    sum(incoming_messages) AS a, sum(outgoing_messages) AS b, sum(tasks_initiated) AS c, sum(tasks_completed) AS d,
    sum(cost_nanos) AS cost, sum(input_tokens) AS input, sum(output_tokens) AS output,
    toUnixTimestamp64Milli(max(last_at)) AS last, toUInt64(${KEYS[by].distinct}) AS counted
  FROM ${table}
  WHERE level = {level:UInt8} AND ${KEYS[by].only}
    AND start >= {from:DateTime64(3, 'UTC')} AND start < {to:DateTime64(3, 'UTC')}
  GROUP BY tenant, day, key`

/** An instant in seconds, moved to a multiple of `seconds`. */
const whole = (ms: number, seconds: number, round: (x: number) => number) => round(ms / 1000 / seconds) * seconds

/** Where the comparison runs: alone in the writer's lane. */
export type Exclusive = <T>(work: () => Promise<T>) => Promise<T>

/**
 * Compares and, if asked, repairs everything between two instants (epoch milliseconds), whole UTC days.
 * @param exclusive runs one stretch while nothing is stored
 */
export async function reconcile(
  store: Store,
  seals: Seals,
  exclusive: Exclusive,
  { from, to, repair }: { from: number; to: number; repair: boolean },
): Promise<Reconciliation> {
  const result: Reconciliation = { days: 0, drift: [], repaired: 0 }
  const compareAll = async (rollups: readonly Rollup[], seconds: number, start: number, end: number) => {
    for (let at = start; at < end && result.drift.length < MAX_DRIFT; at += Math.max(seconds, STRETCH_SECONDS)) {
      const until = Math.min(at + Math.max(seconds, STRETCH_SECONDS), end)
      await exclusive(async () => {
        const found: Drift[] = []
        for (const rollup of rollups) {
          const { days, drift } = await compare(store, rollup, seconds, at, until)
          if (rollup === rollups[0] && seconds === DAY.seconds) result.days += days
          found.push(...drift)
        }
        result.drift.push(...found)
        if (repair) result.repaired += await rewrite(store, rollups, found)
      })
    }
  }
  const occupied = await occupiedRange(store)
  if (!occupied) return result
  const first = Math.max(from, occupied.from)
  const last = Math.min(to, occupied.to + 1)
  await compareAll(ROLLUPS, DAY.seconds, whole(first, DAY.seconds, Math.floor), whole(last, DAY.seconds, Math.ceil))
  for (const [index, level] of COARSE.entries()) {
    const start = whole(first, level.seconds, Math.floor)
    const end = Math.min(whole(last, level.seconds, Math.ceil), seals.sealedUntil[index] ?? 0)
    await compareAll(COARSE_ROLLUPS.filter((rollup) => rollup.level === level.id), level.seconds, start, end)
  }
  return result
}

/** First and last moment of which there are events or day rows; null where there is nothing. */
async function occupiedRange(store: Store): Promise<{ from: number; to: number } | null> {
  const rows = await store.readInternal<{ first: number; last: number; rows: number }>(
    'reconcile_range',
    `SELECT toUnixTimestamp64Milli(min(timestamp)) AS first, toUnixTimestamp64Milli(max(timestamp)) AS last, count() AS rows
     FROM events
     UNION ALL
     SELECT toUnixTimestamp(min(start)) * 1000, toUnixTimestamp(max(start)) * 1000 + ${DAY.seconds * 1000 - 1}, count()
     FROM activity WHERE level = ${DAY.id}`,
  )
  const filled = rows.filter(({ rows: count }) => count > 0)
  if (filled.length === 0) return null
  return { from: Math.min(...filled.map(({ first }) => first)), to: Math.max(...filled.map(({ last }) => last)) }
}

async function compare(store: Store, rollup: Rollup, seconds: number, from: number, to: number) {
  const params = { seconds, from: dateTime64(from * 1000), to: dateTime64(to * 1000) }
  // A coarse level is summed from the day rows, which are compared with the raw log themselves.
  const isCoarse = COARSE.some(({ id }) => id === rollup.level)
  const [source, stored] = await Promise.all([
    isCoarse
      ? store.readInternal<DayRow>('reconcile_days', perDay(storedRows(rollup)), { ...params, level: DAY.id })
      : store.readInternal<DayRow>('reconcile_raw', perDay(rawRows(rollup)), params),
    store.readInternal<DayRow>('reconcile_rollup', perDay(storedRows(rollup)), { ...params, level: rollup.level }),
  ])
  const rollupDays = new Map(stored.map((row) => [`${row.tenant}/${row.day}`, row]))
  const sourceDays = new Map(source.map((row) => [`${row.tenant}/${row.day}`, row]))
  const drift: Drift[] = []
  for (const key of new Set([...sourceDays.keys(), ...rollupDays.keys()])) {
    const [expected, found] = [sourceDays.get(key), rollupDays.get(key)]
    if (expected?.checksum === found?.checksum) continue
    const { tenant, day } = (expected ?? found) as DayRow
    drift.push({
      tenant,
      start: day,
      rollup: rollup.name,
      sourceEvents: Number(expected?.events ?? 0),
      rollupEvents: Number(found?.events ?? 0),
    })
  }
  return { days: sourceDays.size, drift }
}

/** Writes the drifted days (or spans) anew; all levels of a day come from one pass over its raw events. */
async function rewrite(store: Store, rollups: readonly Rollup[], drift: readonly Drift[]): Promise<number> {
  const byName = new Map(rollups.map((rollup) => [rollup.name, rollup]))
  const places = new Map<string, { table: Rollup['table']; level: number; tenant: number; start: number }>()
  for (const { rollup: name, tenant, start } of drift) {
    const rollup = byName.get(name)
    if (rollup) places.set(`${rollup.table}/${rollup.level > DAY.id}/${tenant}/${start}`, { table: rollup.table, level: rollup.level, tenant, start })
  }
  for (const { table, level, tenant, start } of places.values()) {
    if (level > DAY.id) await sealFrom(store, { table, level, tenant, from: start, below: DAY.id })
    else await rewriteDay(store, table, tenant, start)
  }
  return drift.length
}

/** Without a quote: the client does not escape those in a setting that is a map. */
const moment = (second: number) => `fromUnixTimestamp64Milli(${second * 1000})`

/** One day of one tenant, with the view's own SELECT over that day's raw events. */
async function rewriteDay(store: Store, table: Rollup['table'], tenant: number, day: number): Promise<void> {
  const [view] = await store.adminRows<{ select: string; database: string }>(
    `SELECT as_select AS select, database FROM system.tables WHERE database = currentDatabase() AND name = {view:String}`,
    { view: `${table}_mv` },
  )
  if (!view) throw new Error(`the view ${table}_mv is missing`)
  const until = day + DAY.seconds
  await store.admin.command({
    query: `ALTER TABLE ${table} DELETE
      WHERE tenant = {tenant:UInt32} AND level <= ${DAY.id}
        AND start >= fromUnixTimestamp({day:Int64}) AND start < fromUnixTimestamp({until:Int64})`,
    query_params: { tenant, day, until },
    clickhouse_settings: { mutations_sync: '1', wait_end_of_query: 1 },
  })
  const columns = await store.adminRows<{ name: string }>(
    `SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} ORDER BY position`,
    { table },
  )
  const list = columns.map(({ name }) => name).join(', ')
  await store.admin.command({
    query: `INSERT INTO ${table} (${list}) SELECT ${list} FROM (${view.select}) WHERE level <= ${DAY.id}`,
    clickhouse_settings: {
      additional_table_filters: SettingsMap.from({
        [`${view.database}.events`]: `tenant = ${tenant} AND timestamp >= ${moment(day)} AND timestamp < ${moment(until)}`,
      }),
      insert_deduplication_token: `repair-${randomUUID()}`,
      wait_end_of_query: 1,
    },
  })
}
