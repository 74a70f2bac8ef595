/**
 * Sealing: when a span of a coarse level is over, its rows are written once, from the level below, for all tenants. From
 * then on questions read that one row instead of four. The pieces of a day are written in the same way when the day is
 * over, before anything coarser.
 *
 * It runs in the writer's lane, between two groups of events, so no event is in flight: what came before is in the rows it
 * reads, what comes after carries `late_levels` and is written to the sealed level by the views. Either way it is counted
 * once.
 */
import { CUTS, DAY, type Level, QUARTER, SEALED, SPLIT_DAY } from '../rollups/granularities.ts'
import { randomUUID } from 'node:crypto'
import type { Store } from '../clickhouse/store.ts'
import { maintenanceId, orFail, type WriteGuard } from '../clickhouse/writer-lease.ts'
import type { Instant } from '../time/instant.ts'
import type { SealedUntil } from '../rollups/state.ts'
import type { TenantKey } from '../domain/tenant.ts'

/** A span is sealed this long after its end, when the stragglers are mostly in. Only speed depends on it. */
export const LATE_SECONDS = 600

/** How rows of a finer level add up to one of a coarser, column by column. */
const SUMS = {
  incoming_messages: 'sum(incoming_messages)',
  outgoing_messages: 'sum(outgoing_messages)',
  tasks_initiated: 'sum(tasks_initiated)',
  tasks_completed: 'sum(tasks_completed)',
  cost_nanos: 'sum(cost_nanos)',
  input_tokens: 'sum(input_tokens)',
  output_tokens: 'sum(output_tokens)',
  last_at: 'max(last_at)',
  assistants: 'groupUniqArrayArray(assistants)',
}

const ROLLUPS = [
  { table: 'activity', key: 'assistant_no', columns: { ...SUMS, users: 'groupBitmapMergeState(users)' } },
  { table: 'user_activity', key: 'user_no', columns: { ...SUMS, events: 'sum(events)' } },
] as const

export class Seals {
  readonly #store: Store
  readonly #clock: () => Instant
  #sealedUntil: number[] = SEALED.map(() => 0)
  #doubtful = false

  readonly #waits: () => boolean

  /** @param waits true while the rows of finer levels are not complete (rebuild.ts): nothing is sealed then */
  constructor(store: Store, clock: () => Instant, waits: () => boolean = () => false) {
    this.#store = store
    this.#clock = clock
    this.#waits = waits
  }

  /** Epoch seconds by level of SEALED; a snapshot that may be kept for the length of a request. */
  get sealedUntil(): SealedUntil {
    return this.#sealedUntil
  }

  /**
   * True after a seal that failed: it may be recorded all the same. Until `load` has had a look, no event may be stored,
   * since its `late_levels` could be too low.
   */
  get doubtful(): boolean {
    return this.#doubtful
  }

  /**
   * Reads how far the levels are. A database without events starts sealed up to now, so a backfill needs no sealing; one
   * with events and no seals starts sealed up to the first of them.
   */
  async load(): Promise<void> {
    const rows = await this.#store.readInternal<{ level: number; until: number }>(
      'seals',
      `SELECT level, toUnixTimestamp(max(sealed_until)) AS until FROM seals GROUP BY level`,
    )
    const known = new Map(rows.map((row) => [row.level, row.until]))
    if (rows.length === 0) {
      const [row] = await this.#store.readInternal<{ any: number; first: number }>(
        'events_first',
        `SELECT count() > 0 AS any, toUnixTimestamp(min(timestamp)) AS first FROM events`,
      )
      const now = Math.floor(this.#clock() / 1000) - LATE_SECONDS
      const until = row?.any ? Math.min(row.first, now) : now
      for (const level of SEALED) known.set(level.id, Math.floor(until / level.seconds) * level.seconds)
      // All at once: a level that is missing would be sealed span by span from 1970 on.
      await this.#record('1', ...known)
    }
    this.#sealedUntil = SEALED.map((level) => known.get(level.id) ?? 0)
    this.#doubtful = false
  }

  /** The next span to seal: of the finest level whose span is over and complete in the level below. */
  #next() {
    if (this.#waits()) return null
    const now = Math.floor(this.#clock() / 1000) - LATE_SECONDS
    for (const [at, level] of SEALED.entries()) {
      const from = this.#sealedUntil[at] ?? 0
      const until = from + level.seconds
      const complete = at === 0 ? now : (this.#sealedUntil[at - 1] ?? 0)
      if (until <= now && until <= complete) return { at, level, from, until }
    }
    return null
  }

  get due(): boolean {
    return this.#next() !== null
  }

  /** Seals what is due, a span of one level at most, and tells whether there was one. Runs in the writer's lane. */
  async advance(guard: WriteGuard): Promise<boolean> {
    const next = this.#next()
    if (!next) return false
    const { at, level, from, until } = next
    this.#doubtful = true
    if (level === SPLIT_DAY) await splitDays(this.#store, guard, { from: [from] })
    else {
      const below = at === 1 ? DAY : (SEALED[at - 1] as Level)
      for (const { table } of ROLLUPS)
        await sealFrom(this.#store, guard, { table, level: level.id, from: [from], below: below.id })
    }
    await this.#record(orFail(guard), [level.id, until])
    this.#doubtful = false
    this.#sealedUntil = this.#sealedUntil.with(at, until)
    return true
  }

  /** @param condition SQL; `load` needs none, since what it writes first is the same whoever writes it */
  async #record(condition: string, ...sealed: Array<[level: number, until: number]>): Promise<void> {
    await this.#store.admin.command({
      query: `INSERT INTO seals (level, sealed_until)
        SELECT level, toDateTime(until, 'UTC') FROM (
          SELECT arrayJoin(arrayZip({levels:Array(UInt8)}, {untils:Array(UInt32)})) AS pair, pair.1 AS level, pair.2 AS until)
        WHERE ${condition}`,
      query_id: maintenanceId(this.#store.database),
      query_params: { levels: sealed.map(([level]) => level), untils: sealed.map(([, until]) => until) },
      clickhouse_settings: { insert_deduplicate: 0, wait_end_of_query: 1 },
    })
  }
}

/** A merge of so much takes some five minutes (20 s a GB), once a day. Larger tables are left to ClickHouse's own judgement. */
const MAX_MERGED_BYTES = 16 * 2 ** 30

/**
 * Puts the rollups and the log into one part each, once a day when what is over is sealed. A question pays half a millisecond
 * and more for every part it reads from; ClickHouse left eleven parts of 100 million events' `activity` and six of `events`,
 * and with one a total of 90 days in a ragged range took 19.2 ms instead of 32.4, a rare user's events 11.5 instead of 17.8.
 * Nothing rests on it but speed.
 */
export async function mergeParts(store: Store): Promise<void> {
  for (const table of ['activity', 'user_activity', 'events']) await store.mergeParts(table, MAX_MERGED_BYTES)
}

/** Which rows are written: of the spans that begin at `from`, epoch seconds, of all tenants or of some. */
interface Sealed {
  readonly from: readonly number[]
  readonly tenants?: readonly TenantKey[]
}

/**
 * Writes spans of a coarse level from the rows of a finer one.
 *
 * Without tenants it seals the spans for all, with some it repairs.
 */
export async function sealFrom(
  store: Store,
  guard: WriteGuard,
  { table, level, below, ...sealed }: Sealed & { table: string; level: number; below: number },
): Promise<void> {
  const rollup = ROLLUPS.find((candidate) => candidate.table === table)
  const seconds = SEALED.find(({ id }) => id === level)?.seconds
  if (!rollup || !seconds) throw new RangeError(`no coarse level ${level} of ${table}`)
  const { key, columns } = rollup
  await writeAnew(store, guard, table, sealed, {
    params: { level, below, first: Math.min(...sealed.from), until: Math.max(...sealed.from) + seconds, seconds },
    spot: `level = {level:UInt8} AND ${WITHIN} AND toUnixTimestamp(start) IN {from:Array(UInt32)}`,
    columns: `tenant, level, ${key}, start, ${Object.keys(columns).join(', ')}`,
    select: `
      SELECT tenant, {level:UInt8} AS sealed_level, ${key}, toDateTime(${SPAN_START}, 'UTC') AS sealed_start,
        ${Object.values(columns).join(', ')}
      FROM ${table}
      WHERE level = {below:UInt8} AND ${WITHIN} AND ${SPAN_START} IN {from:Array(UInt32)}`,
    groupBy: `tenant, ${key}, sealed_start`,
  })
}

/** The first uses the index, the second is exact. */
const WITHIN = `start >= {first:DateTime('UTC')} AND start < {until:DateTime('UTC')}`
const SPAN_START = 'toUInt32(intDiv(toUnixTimestamp(start), {seconds:UInt32}) * {seconds:UInt32})'

const SINCE_MIDNIGHT = `toUnixTimestamp(start) % ${DAY.seconds}`

/** SQL of the fleet's quarters of an hour, once for each cut, and of the level and start of the piece that each belongs to. */
export const PIECES = {
  level: `toUInt8(${SPLIT_DAY.id} + quarters)`,
  start: `start - ${SINCE_MIDNIGHT} + if(${SINCE_MIDNIGHT} < quarters * ${QUARTER.seconds}, 0, quarters * ${QUARTER.seconds})`,
  source: `activity ARRAY JOIN [${CUTS.join(', ')}]::Array(UInt32) AS quarters WHERE level = ${QUARTER.id} AND assistant_no = 0`,
} as const

/** Writes both pieces of days for each cut from their quarters of an hour; as `sealFrom` otherwise. */
export async function splitDays(store: Store, guard: WriteGuard, sealed: Sealed): Promise<void> {
  const { columns } = ROLLUPS[0]
  const within = `${WITHIN} AND ${SPAN_START} IN {from:Array(UInt32)}`
  await writeAnew(store, guard, 'activity', sealed, {
    params: { first: Math.min(...sealed.from), until: Math.max(...sealed.from) + SPLIT_DAY.seconds, seconds: SPLIT_DAY.seconds },
    spot: `level > ${SPLIT_DAY.id} AND ${within}`,
    columns: `tenant, level, assistant_no, start, ${Object.keys(columns).join(', ')}`,
    select: `
      SELECT tenant, ${PIECES.level} AS sealed_level, 0, ${PIECES.start} AS sealed_start, ${Object.values(columns).join(', ')}
      FROM ${PIECES.source} AND ${within}`,
    groupBy: 'tenant, sealed_level, sealed_start',
  })
}

/**
 * What is there is deleted first: for a seal, the rows of an attempt that was cut off. A token per span instead would keep
 * those rows, and miss the events stored since.
 */
async function writeAnew(
  store: Store,
  guard: WriteGuard,
  table: string,
  { from, tenants }: Sealed,
  given: { params: Record<string, unknown>; spot: string; columns: string; select: string; groupBy: string },
): Promise<void> {
  const ofTenants = tenants === undefined ? '' : ' AND tenant IN {tenants:Array(UUID)}'
  const spot = given.spot + ofTenants
  const query_params = { from, tenants: tenants ?? [], ...given.params }
  const [there] = await store.adminRows<{ rows: number }>(
    `SELECT toUInt32(count()) AS rows FROM ${table} WHERE ${spot}`,
    query_params,
  )
  if (there && there.rows > 0) await store.deleteRows(table, `${spot} AND ${guard.condition()}`, query_params)
  await store.admin.command({
    query: `INSERT INTO ${table} (${given.columns}) ${given.select}${ofTenants} AND ${orFail(guard)} GROUP BY ${given.groupBy} ORDER BY ${given.groupBy}`,
    query_id: maintenanceId(store.database),
    query_params,
    clickhouse_settings: {
      insert_deduplication_token: `seal-${randomUUID()}`,
      insert_deduplicate: 1,
      max_insert_threads: '1',
      max_execution_time: 600,
      wait_end_of_query: 1,
    },
  })
}
