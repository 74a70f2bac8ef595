/**
 * Sees to an insert of events that was sent more than once, because an attempt before may have been cut off half way.
 *
 * Its deduplication token lets ClickHouse complete what is missing, table by table, but does not quite settle it: for each
 * table ClickHouse notes the token in one file and then moves the rows into place (26.7, seen with strace; the order is
 * the other one in later sources). Killed between the two, it takes rows for stored that are not. So afterwards the rows
 * are counted, and the days they belong to are compared with the rollups.
 */
import { DAY } from '../rollups/granularities.ts'
import type { Store } from '../clickhouse/store.ts'
import type { WriteGuard, WriteLock } from '../clickhouse/writer-lease.ts'
import type { TenantKey } from '../domain/tenant.ts'
import { MAX_DRIFT, reconcile } from '../maintenance/reconcile.ts'
import type { Seals } from '../maintenance/compaction.ts'

/** Days with a longer gap between them are compared apart. */
const GAP_SECONDS = 16 * DAY.seconds
/** Look-ups go in slices, to keep each query's parameters small. */
const SLICE = 2_000

export interface Completed {
  /** Events that were missing, or there more than once, and are there once now. */
  events: number
  /** Days and spans of rollups that were written anew. */
  days: number
}

/**
 * Makes sure that every event of an insert is stored once and counted once. Runs in the writer's lane.
 * @param rows the lines of the insert, as the writer writes them: tenant, timestamp and id come first
 * @param insert inserts some of these lines under a new token
 */
export async function completeEvents(
  store: Store,
  seals: Seals,
  guard: WriteGuard,
  rows: string,
  insert: (rows: string) => Promise<void>,
): Promise<Completed> {
  const days = new Set<number>()
  const byTenant = new Map<TenantKey, Map<string, string>>()
  for (const line of rows.split('\n')) {
    const [tenant, timestamp, id] = JSON.parse(line) as [TenantKey, string, string]
    days.add(Math.floor(Date.parse(`${timestamp.replace(' ', 'T')}Z`) / 1000 / DAY.seconds) * DAY.seconds)
    const lines = byTenant.get(tenant) ?? new Map<string, string>()
    lines.set(id, line)
    byTenant.set(tenant, lines)
  }

  const missing: string[] = []
  for (const [tenant, lines] of byTenant) {
    const ids = [...lines.keys()]
    for (let at = 0; at < ids.length; at += SLICE) {
      const slice = ids.slice(at, at + SLICE)
      const copies = await countCopies(store, tenant, slice)
      const doubled = slice.filter((id) => (copies.get(id) ?? 0) > 1)
      if (doubled.length > 0) {
        await store.deleteRows('events', 'tenant = {tenant:UUID} AND id IN {ids:Array(String)}', { tenant, ids: doubled })
      }
      for (const id of slice) if (copies.get(id) !== 1) missing.push(lines.get(id) as string)
    }
  }
  if (missing.length > 0) await insert(missing.join('\n'))

  return { events: missing.length, days: await repairDays(store, seals, (work) => work(guard), days) }
}

/**
 * Compares the rollups of the days of all events of a term and of those after it with the log, and repairs them: for what
 * an instance left half done.
 * @param lock runs one stretch of days under the writer lease
 * @param term of the writer lease
 * @returns how many days and spans of rollups were written again
 */
export async function repairSinceTerm(store: Store, seals: Seals, lock: WriteLock, term: number): Promise<number> {
  const rows = await store.readInternal<{ day: number }>(
    'days_since_term',
    `SELECT DISTINCT toUInt32(intDiv(toUnixTimestamp(timestamp), ${DAY.seconds}) * ${DAY.seconds}) AS day
     FROM events WHERE term >= {term:UInt64}`,
    { term },
  )
  return repairDays(
    store,
    seals,
    lock,
    rows.map(({ day }) => day),
  )
}

async function repairDays(store: Store, seals: Seals, lock: WriteLock, days: Iterable<number>): Promise<number> {
  let repaired = 0
  for (const { from, to } of runsOf(days)) {
    const range = { from: from * 1000, to: to * 1000, repair: true }
    // A comparison ends early where too much differs.
    for (let drift = MAX_DRIFT; drift >= MAX_DRIFT;) {
      const result = await reconcile(store, seals, lock, range)
      drift = result.drift.length
      repaired += result.repaired
    }
  }
  return repaired
}

async function countCopies(store: Store, tenant: TenantKey, ids: readonly string[]): Promise<Map<string, number>> {
  const rows = await store.readInternal<{ id: string; copies: number }>(
    'copies_of_events',
    `SELECT id, count() AS copies FROM events WHERE tenant = {tenant:UUID} AND id IN {ids:Array(String)} GROUP BY id
     SETTINGS min_table_rows_to_use_projection_index = 0`,
    { tenant, ids },
  )
  return new Map(rows.map(({ id, copies }) => [id, copies]))
}

/** Half-open runs of days, in seconds, that hold all of the given ones. */
function runsOf(days: Iterable<number>): Array<{ from: number; to: number }> {
  const runs: Array<{ from: number; to: number }> = []
  for (const day of [...days].sort((a, b) => a - b)) {
    const last = runs.at(-1)
    if (last && day - last.to <= GAP_SECONDS) last.to = day + DAY.seconds
    else runs.push({ from: day, to: day + DAY.seconds })
  }
  return runs
}
