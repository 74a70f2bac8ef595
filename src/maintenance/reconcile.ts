/**
 * Compares the raw log with every rollup, per tenant and UTC day, and repairs what drifted. Nothing in the service makes
 * them differ on purpose; disks, operators and bugs do.
 *
 * It runs in the writer's lane, one stretch of days after the other, so no insert is half visible while it looks; between
 * stretches events are stored as usual. A repair deletes the rows of one day of one tenant and writes them anew from raw:
 * for that moment, and only for what was wrong anyway, a question may see too little.
 */
import { randomUUID } from 'node:crypto'
import {
  ACROSS_LEVELS,
  ASSISTANT_LEVELS,
  COARSE,
  CUTS,
  DAY,
  QUARTER,
  SEALED,
  SPLIT_DAY,
  type RollupTable,
} from '../rollups/granularities.ts'
import type { Store } from '../clickhouse/store.ts'
import { maintenanceId, orFail, type WriteGuard, type WriteLock } from '../clickhouse/writer-lease.ts'
import { keyLiteral, type TenantKey } from '../domain/tenant.ts'
import { PIECES, sealFrom, splitDays, type Seals } from './compaction.ts'
import { dateTime64 } from '../clickhouse/parameters.ts'
import { tableFilters } from '../clickhouse/tenant-filter.ts'

/** A day of one tenant (a span, for a coarse level) in which a rollup does not say what its source says. */
export interface Drift {
  tenant: TenantKey
  /** First second of the day or span, since 1970. */
  start: number
  /** Such as `activity level 0 by assistant`. */
  rollup: string
  /** Events by the source (the raw log, or finer rows for a level that is sealed) and by the rollup; where they are equal, another figure differs. */
  sourceEvents: number
  rollupEvents: number
}

/** Where a comparison ends early: so much is not drift but a rollup that has to be made again as a whole. */
export const MAX_DRIFT = 10_000

export interface Reconciliation {
  /** Tenants times days that were compared. */
  days: number
  /** What differed, at most MAX_DRIFT entries. */
  drift: Drift[]
  /** Entries of `drift` that were written anew. */
  repaired: number
}

/** The lane is held for one such stretch at a time; what is summed from day rows alone goes faster. */
const STRETCH_SECONDS = 16 * DAY.seconds
const COARSE_STRETCH_SECONDS = 128 * DAY.seconds
/** Days with few rows are taken together beyond that: 5,000 days of one event each took 313 stretches, and minutes. */
const STRETCH_ROWS = 100_000
const MAX_STRETCH_SECONDS = 2_048 * DAY.seconds

const SEALED_IDS: readonly number[] = SEALED.map(({ id }) => id)
/** Rows that come from raw events alone. */
const IS_FINE = `level NOT IN (${SEALED_IDS.join(', ')}) AND level < ${SPLIT_DAY.id}`

interface DayRow {
  tenant: TenantKey
  day: number
  events: number
  /** Hash over every key with all its figures: equal only where every row says the same. */
  checksum: string
}

/** A rollup as it is compared: rows of `table` at `level`, for one kind of key. */
interface Rollup {
  readonly name: string
  readonly table: RollupTable
  readonly level: number
  readonly by: keyof typeof KEYS
}

/** Users whose removal is under way are in some tables still and in others not (src/maintenance/erasure.ts). */
const SETTLED = `
    AND (tenant, user_no) NOT IN (
      SELECT tenant, user_no FROM removals GROUP BY tenant, user_no HAVING countIf(state = 'done') = 0)`

/**
 * What identifies a row within its span, how large its sets are (`users`, `assistants`), by the raw log and as stored, and
 * the number of events that users are ranked by. Only the fleet's rows carry the set of their assistants. Events without a
 * name, of users who were removed, are nobody's.
 */
const FLEET = {
  key: { raw: 'toUInt32(0)', stored: 'assistant_no' },
  only: 'assistant_no = 0',
  ranked: 'a + b + c + d',
  named: '',
  settled: '',
  users: { raw: 'uniqExact(user_no)', stored: 'groupBitmapMerge(users)' },
  assistants: { raw: 'uniqExact(assistant_no)', stored: 'length(groupUniqArrayArray(assistants))' },
} as const
const KEYS = {
  fleet: FLEET,
  /** Of their source, which is rows of a rollup too, only the key is another. */
  piece: { ...FLEET, key: { raw: `(${PIECES.level}, ${PIECES.start})`, stored: '(level, start)' } },
  assistant: {
    ...FLEET,
    key: { raw: 'assistant_no', stored: 'assistant_no' },
    only: 'assistant_no > 0',
    assistants: { raw: '0', stored: '0' },
  },
  user: {
    key: { raw: 'user_no', stored: 'user_no' },
    only: 'user_no > 0',
    ranked: 'sum(events)',
    named: ` AND user != ''${SETTLED}`,
    settled: SETTLED,
    users: { raw: '0', stored: '0' },
    assistants: { raw: 'uniqExact(assistant_no)', stored: 'length(groupUniqArrayArray(assistants))' },
  },
} as const

/** The fleet's pieces of days, compared with its quarters of an hour. */
const OF_PIECES: Rollup = { name: 'activity pieces of days of the fleet', table: 'activity', level: SPLIT_DAY.id, by: 'piece' }

const ROLLUPS: readonly Rollup[] = [
  ...ASSISTANT_LEVELS.map(
    ({ id }) => ({ name: `activity level ${id} of the fleet`, table: 'activity', level: id, by: 'fleet' }) as const,
  ),
  ...[...ACROSS_LEVELS, DAY].map(
    ({ id }) => ({ name: `activity level ${id} by assistant`, table: 'activity', level: id, by: 'assistant' }) as const,
  ),
  { name: `user_activity level ${DAY.id}`, table: 'user_activity', level: DAY.id, by: 'user' },
]

const COARSE_ROLLUPS: readonly Rollup[] = COARSE.flatMap(({ id }) => [
  { name: `activity level ${id} of the fleet`, table: 'activity', level: id, by: 'fleet' } as const,
  { name: `activity level ${id} by assistant`, table: 'activity', level: id, by: 'assistant' } as const,
  { name: `user_activity level ${id}`, table: 'user_activity', level: id, by: 'user' } as const,
])

/** `times`: how often the rows hold each event. */
const perDay = (rows: string) => `
  SELECT tenant, day, toUInt64(sum(a + b + c + d) / {times:UInt8}) AS events,
    toString(groupBitXor(cityHash64(key, a, b, c, d, ranked, cost, input, output, last, users, assistants))) AS checksum
  FROM (${rows}) GROUP BY tenant, day`

const rawRows = ({ by }: Rollup) => `
  SELECT tenant, toUInt32(intDiv(toUnixTimestamp(timestamp), {seconds:UInt32}) * {seconds:UInt32}) AS day, ${KEYS[by].key.raw} AS key,
    countIf(event_type = 'incomingMessages') AS a, countIf(event_type = 'outgoingMessages') AS b,
    countIf(event_type = 'tasksInitiated') AS c, countIf(event_type = 'tasksCompleted') AS d,
    sum(cost_nanos) AS cost, sum(input_tokens) AS input, sum(output_tokens) AS output,
    toUnixTimestamp64Milli(max(timestamp)) AS last, count() AS ranked,
    toUInt64(${KEYS[by].users.raw}) AS users, toUInt64(${KEYS[by].assistants.raw}) AS assistants
  FROM events
  WHERE ${inRange('timestamp')}${KEYS[by].named}
  GROUP BY tenant, day, key`

const sumRows = ({ by }: Rollup, key: string, source: string) => `
  SELECT tenant, toUInt32(intDiv(toUnixTimestamp(start), {seconds:UInt32}) * {seconds:UInt32}) AS day, ${key} AS key,
    sum(incoming_messages) AS a, sum(outgoing_messages) AS b, sum(tasks_initiated) AS c, sum(tasks_completed) AS d,
    sum(cost_nanos) AS cost, sum(input_tokens) AS input, sum(output_tokens) AS output,
    toUnixTimestamp64Milli(max(last_at)) AS last, ${KEYS[by].ranked} AS ranked,
    toUInt64(${KEYS[by].users.stored}) AS users, toUInt64(${KEYS[by].assistants.stored}) AS assistants
  FROM ${source}
  GROUP BY tenant, day, key`

const storedRows = (rollup: Rollup) => {
  const { key, only, settled } = KEYS[rollup.by]
  const ofLevel = `level ${rollup === OF_PIECES ? '>' : '='} {level:UInt8}`
  return sumRows(rollup, key.stored, `${rollup.table} WHERE ${ofLevel} AND ${only}${settled} AND ${inRange('start')}`)
}

const inRange = (time: string) => `${time} >= {from:DateTime64(3, 'UTC')} AND ${time} < {to:DateTime64(3, 'UTC')}`

/** An instant in seconds, moved to a multiple of `seconds`. */
const whole = (ms: number, seconds: number, round: (x: number) => number) => round(ms / 1000 / seconds) * seconds

export interface ReconcileOptions {
  readonly from: number
  readonly to: number
  readonly repair: boolean
  /** Compares only this rollup. */
  readonly only?: RollupTable | undefined
  /** Nothing of before is kept, or compared; epoch milliseconds. */
  readonly horizon?: number
  /** Told of what was written anew: answers that depend on a span of time with one of these moments in it were wrong. */
  readonly onRepaired?: ((tenant: TenantKey, moments: readonly number[]) => void) | undefined
}

/** Of each quarter of an hour of a day its start, in milliseconds; of a coarse span only its own. No row is finer. */
const momentsOf = (start: number, seconds: number): number[] =>
  Array.from(
    { length: seconds === DAY.seconds ? DAY.seconds / QUARTER.seconds : 1 },
    (_, at) => (start + at * QUARTER.seconds) * 1000,
  )

/**
 * Compares and, if asked, repairs everything between two instants (epoch milliseconds), whole UTC days.
 * @param exclusive runs one stretch while nothing is stored
 */
export async function reconcile(
  store: Store,
  seals: Seals,
  exclusive: WriteLock,
  { from, to, repair, only, horizon = 0, onRepaired = () => {} }: ReconcileOptions,
): Promise<Reconciliation> {
  const result: Reconciliation = { days: 0, drift: [], repaired: 0 }
  const compareAll = async (all: readonly Rollup[], seconds: number, start: number, end: number) => {
    const rollups = only ? all.filter(({ table }) => table === only) : all
    if (rollups.length === 0) return
    const least = seconds === DAY.seconds ? STRETCH_SECONDS : COARSE_STRETCH_SECONDS
    for (const { from: at, until } of stretchesOf(days, start, end, least)) {
      if (result.drift.length >= MAX_DRIFT) break
      await exclusive(async (guard) => {
        const compared = await Promise.all(rollups.map((rollup) => compare(store, rollup, seconds, at, until)))
        if (all === ROLLUPS) result.days += compared[0]?.days ?? 0
        const found = compared.flatMap(({ drift }) => drift)
        result.drift.push(...found)
        if (!repair || found.length === 0) return
        await rewrite(store, guard, rollups, found)
        result.repaired += found.length
        for (const place of found) onRepaired(place.tenant, momentsOf(place.start, seconds))
      })
    }
  }
  const days = await occupiedDays(store, from, to)
  const first = Math.max(from, (days[0]?.day ?? 0) * 1000, horizon)
  const last = Math.min(to, ((days.at(-1)?.day ?? 0) + DAY.seconds) * 1000)
  await compareAll(ROLLUPS, DAY.seconds, whole(first, DAY.seconds, Math.floor), whole(last, DAY.seconds, Math.ceil))
  for (const [index, level] of SEALED.entries()) {
    // A span that begins before the horizon is not read any more.
    const start = Math.max(whole(first, level.seconds, Math.floor), whole(horizon, level.seconds, Math.ceil))
    const end = Math.min(whole(last, level.seconds, Math.ceil), seals.sealedUntil[index] ?? 0)
    const rollups = [OF_PIECES, ...COARSE_ROLLUPS].filter((rollup) => rollup.level === level.id)
    await compareAll(rollups, level.seconds, start, end)
  }
  return result
}

const dayOf = (time: string) => `toUInt32(intDiv(toUnixTimestamp(${time}), ${DAY.seconds}) * ${DAY.seconds})`

const around = (time: string) => `${time} >= {after:DateTime64(3, 'UTC')} AND ${time} < {before:DateTime64(3, 'UTC')}`

/** Rows of a coarse span that reaches into a range begin at most so long before it. */
const LONGEST_SPAN_MS = Math.max(...COARSE.map(({ seconds }) => seconds)) * 1000

/** A UTC day with events or rows of rollups, and how many of both; `day` is its first second. */
interface OccupiedDay {
  readonly day: number
  readonly rows: number
}

/**
 * Cuts a range into stretches to be compared at a time: of `least` seconds (a multiple of which all but the last have), and
 * more where they hold few rows. Those without rows are left out. All times are epoch seconds.
 */
export function stretchesOf(
  days: readonly OccupiedDay[],
  start: number,
  end: number,
  least: number,
): Array<{ from: number; until: number }> {
  const stretches: Array<{ from: number; until: number; rows: number }> = []
  const within = days.filter(({ day }) => day >= start && day < end)
  for (let at = 0; at < within.length;) {
    const { day } = within[at] as OccupiedDay
    const from = start + Math.floor((day - start) / least) * least
    const until = Math.min(from + least, end)
    let rows = 0
    for (; at < within.length && (within[at] as OccupiedDay).day < until; at++) rows += (within[at] as OccupiedDay).rows
    const last = stretches.at(-1)
    if (last && last.rows + rows <= STRETCH_ROWS && until - last.from <= MAX_STRETCH_SECONDS) {
      last.until = until
      last.rows += rows
    } else {
      stretches.push({ from, until, rows })
    }
  }
  return stretches
}

/** All UTC days around a range with events or rows, oldest first: what lies between need not be compared. */
async function occupiedDays(store: Store, from: number, to: number): Promise<OccupiedDay[]> {
  const rows = await store.readInternal<OccupiedDay>(
    'reconcile_days_occupied',
    `SELECT day, sum(n) AS rows FROM (
       SELECT ${dayOf('timestamp')} AS day, count() AS n FROM events WHERE ${around('timestamp')} GROUP BY day
       UNION ALL SELECT ${dayOf('start')} AS day, count() FROM activity WHERE ${around('start')} GROUP BY day
       UNION ALL SELECT ${dayOf('start')} AS day, count() FROM user_activity WHERE ${around('start')} GROUP BY day)
     GROUP BY day ORDER BY day`,
    {
      after: dateTime64(Math.max(0, from - LONGEST_SPAN_MS)),
      before: dateTime64(whole(to, DAY.seconds, Math.ceil) * 1000),
    },
  )
  return rows
}

async function compare(store: Store, rollup: Rollup, seconds: number, from: number, to: number) {
  const params = {
    seconds,
    from: dateTime64(from * 1000),
    to: dateTime64(to * 1000),
    times: rollup === OF_PIECES ? CUTS.length : 1,
  }
  const readSource = () => {
    // Levels that are sealed are summed from finer rows, which are compared with the raw log themselves.
    if (rollup === OF_PIECES) {
      const rows = sumRows(OF_PIECES, KEYS.piece.key.raw, `${PIECES.source} AND ${inRange('start')}`)
      return store.readInternal<DayRow>('reconcile_quarters', perDay(rows), params)
    }
    if (!SEALED_IDS.includes(rollup.level)) return store.readInternal<DayRow>('reconcile_raw', perDay(rawRows(rollup)), params)
    return store.readInternal<DayRow>('reconcile_days', perDay(storedRows(rollup)), { ...params, level: DAY.id })
  }
  const [source, stored] = await Promise.all([
    readSource(),
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

/**
 * Writes every rollup of some UTC days of tenants again, and the coarse spans over them as far as those are written. Runs
 * under the writer lease.
 * @param places days, by their first second
 */
export async function rewriteRollups(store: Store, seals: Seals, guard: WriteGuard, places: readonly Place[]): Promise<void> {
  const drift: Drift[] = []
  const add = (rollup: Rollup, tenant: TenantKey, start: number) =>
    drift.push({ tenant, start, rollup: rollup.name, sourceEvents: 0, rollupEvents: 0 })
  const coarse = [OF_PIECES, ...COARSE_ROLLUPS]
  for (const { tenant, start } of places) {
    for (const rollup of ROLLUPS) add(rollup, tenant, start)
    for (const [at, level] of SEALED.entries()) {
      const span = Math.floor(start / level.seconds) * level.seconds
      if (span + level.seconds > (seals.sealedUntil[at] ?? 0)) continue
      for (const rollup of coarse) if (rollup.level === level.id) add(rollup, tenant, span)
    }
  }
  if (drift.length > 0) await rewrite(store, guard, [...ROLLUPS, ...coarse], drift)
}

/** Where rows are written anew: days or spans of tenants. */
export interface Place {
  readonly tenant: TenantKey
  readonly start: number
}

/** Writes the drifted days (or spans) anew; all levels of a day come from one pass over its raw events. */
async function rewrite(store: Store, guard: WriteGuard, rollups: readonly Rollup[], drift: readonly Drift[]): Promise<void> {
  const byName = new Map(rollups.map((rollup) => [rollup.name, rollup]))
  const days = new Map<RollupTable, Map<string, Place>>()
  const spans = new Map<string, { table: RollupTable; level: number; from: number; tenants: Set<TenantKey> }>()
  for (const { rollup: name, tenant, start } of drift) {
    const { table, level } = byName.get(name) as Rollup
    if (SEALED_IDS.includes(level)) {
      const span = spans.get(`${table}/${level}/${start}`) ?? { table, level, from: start, tenants: new Set() }
      spans.set(`${table}/${level}/${start}`, span)
      span.tenants.add(tenant)
    } else {
      const places = days.get(table) ?? new Map<string, Place>()
      days.set(table, places.set(`${tenant}/${start}`, { tenant, start }))
    }
  }
  // Lists of users rest on these rows; a question makes them anew.
  await store.deleteRows('user_ranks', 'tenant IN {tenants:Array(UUID)}', {
    tenants: [...new Set(drift.map(({ tenant }) => tenant))],
  })
  for (const [table, places] of days) {
    const all = [...places.values()]
    for (let at = 0; at < all.length; at += REWRITE_DAYS) await rewriteDays(store, guard, table, all.slice(at, at + REWRITE_DAYS))
  }
  // Spans of one level are written together: to write them again for a tenant that is not concerned is right as well.
  for (const { table, level } of rollups) {
    const together = [...spans.values()].filter((span) => span.table === table && span.level === level)
    for (let at = 0; at < together.length; at += REWRITE_SPANS) {
      const some = together.slice(at, at + REWRITE_SPANS)
      const from = some.map((span) => span.from)
      const tenants = [...new Set(some.flatMap((span) => [...span.tenants]))]
      if (level === SPLIT_DAY.id) await splitDays(store, guard, { from, tenants })
      else await sealFrom(store, guard, { table, level, below: DAY.id, from, tenants })
    }
  }
}

/** So many spans of a level are deleted and written again together. */
const REWRITE_SPANS = 200

/** So many days of tenants are deleted and written anew together. */
const REWRITE_DAYS = 500

const milliseconds = (second: number) => `fromUnixTimestamp64Milli(${second * 1000})`

/** Days of tenants, with the view's own SELECT over their raw events. Runs in the writer's lane. */
export async function rewriteDays(store: Store, guard: WriteGuard, table: RollupTable, places: readonly Place[]): Promise<void> {
  const [view] = await store.adminRows<{ select: string; database: string }>(
    `SELECT as_select AS select, database FROM system.tables WHERE database = currentDatabase() AND name = {view:String}`,
    { view: `${table}_mv` },
  )
  if (!view) throw new Error(`the view ${table}_mv is missing`)
  const starts = places.map(({ start }) => start)
  const [from, until] = [Math.min(...starts), Math.max(...starts) + DAY.seconds]
  const tenants = [...new Set(places.map(({ tenant }) => keyLiteral(tenant)))].join(', ')
  // The first line uses the index.
  const within = (time: string, start: string, end: string) =>
    `tenant IN (${tenants}) AND ${time} >= ${start} AND ${time} < ${end}
     AND (tenant, intDiv(toUnixTimestamp(${time}), ${DAY.seconds}) * ${DAY.seconds})
       IN (${places.map(({ tenant, start: day }) => `(${keyLiteral(tenant)}, ${day})`).join(', ')})`
  const spot = `${IS_FINE} AND ${within('start', `fromUnixTimestamp(${from})`, `fromUnixTimestamp(${until})`)}`
  const [there] = await store.adminRows<{ rows: number }>(`SELECT toUInt32(count()) AS rows FROM ${table} WHERE ${spot}`)
  if (there && there.rows > 0) await store.deleteRows(table, `${spot} AND ${guard.condition()}`)
  const columns = await store.adminRows<{ name: string }>(
    `SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} AND default_kind != 'MATERIALIZED'
     ORDER BY position`,
    { table },
  )
  const list = columns.map(({ name }) => name).join(', ')
  await store.admin.command({
    // On a cluster the view reads its shard's own events; here those of all shards are wanted.
    query: `INSERT INTO ${table} (${list}) SELECT ${list} FROM (${view.select.replaceAll('.events_local', '.events')}) WHERE ${IS_FINE} AND ${orFail(guard)}`,
    query_id: maintenanceId(store.database),
    clickhouse_settings: {
      additional_table_filters: tableFilters({
        [`${view.database}.events`]: within('timestamp', milliseconds(from), milliseconds(until)),
      }),
      insert_deduplication_token: `repair-${randomUUID()}`,
      wait_end_of_query: 1,
    },
  })
}
