/**
 * Finds and repairs what the rollups cannot show, since they would say the same as the log: an id that is stored twice, a
 * number that two names share, and a name with two numbers, each within a company. Nothing in the service makes them.
 *
 * It looks without holding up the writer, in passes over hashes, so that memory is bounded whatever is stored. What it has
 * found is looked at again under the writer lease before anything is changed.
 *
 * Events are changed by storing them again and deleting the old rows, in this order: what is cut off in between is an id that
 * is stored twice, which the next run finds. At last the rollups of the days concerned are written again.
 */
import { randomUUID } from 'node:crypto'
import { dateTime64, slices } from '../clickhouse/parameters.ts'
import type { Store } from '../clickhouse/store.ts'
import { maintenanceId, orFail, type WriteGuard, type WriteLock } from '../clickhouse/writer-lease.ts'
import type { TenantKey } from '../domain/tenant.ts'
import { Numbers } from '../ids/allocator.ts'
import type { NameKind, Names } from '../ids/dictionary.ts'
import { DAY, QUARTER } from '../rollups/granularities.ts'
import type { Seals } from './compaction.ts'
import { rewriteRollups, type Place } from './reconcile.ts'

/** An id that more than one row of a company has. */
export interface DuplicateId {
  tenant: TenantKey
  id: string
  copies: number
  /** How many of them are different events; a repair keeps the one that was stored first. */
  contents: number
}

/** A number that several names of a company have. */
export interface SharedNumber {
  tenant: TenantKey
  kind: NameKind
  number: number
  /** At most MAX_SHOWN of them. */
  names: string[]
}

/** A name of a company that has several numbers. */
export interface SplitName {
  tenant: TenantKey
  kind: NameKind
  name: string
  /** At most MAX_SHOWN of them. */
  numbers: number[]
}

export interface IdentityReport {
  /** At most MAX_FOUND entries each: after a repair, another run finds the rest. */
  duplicateIds: DuplicateId[]
  sharedNumbers: SharedNumber[]
  splitNames: SplitName[]
  /** Entries of the three lists that were put right. */
  identitiesRepaired: number
}

export interface IdentityOptions {
  /** Epoch milliseconds: ids of events in [from, to) are compared with each other. Numbers are compared over all time. */
  readonly from: number
  readonly to: number
  readonly repair: boolean
  /** Called after a repair with the repaired timestamps of a company, so that cached responses covering them are invalidated. */
  readonly onRepaired?: ((tenant: TenantKey, moments: readonly number[]) => void) | undefined
  /** Ids, or names, in one pass; tests make it small. A group takes some 50 bytes for an id and 200 for a name. */
  readonly passSize?: { readonly ids: number; readonly names: number }
}

const MAX_FOUND = 10_000
const MAX_SHOWN = 10
const PASS_SIZE = { ids: 16_000_000, names: 2_000_000 }
/** So many entries are repaired under one hold of the lease. */
const BATCH = 500

const COLUMNS = { user: { name: 'user', number: 'user_no' }, assistant: { name: 'assistant', number: 'assistant_no' } } as const
const KINDS = ['assistant', 'user'] as const

const DAY_OF_EVENT = `toUInt32(intDiv(toUnixTimestamp(timestamp), ${DAY.seconds}) * ${DAY.seconds})`
const IN_RANGE = `timestamp >= {from:DateTime64(3, 'UTC')} AND timestamp < {to:DateTime64(3, 'UTC')}`
/** What two events with one id must have in common to be the same event. Numbers of names are left out: they may be wrong. */
const CONTENT = `(timestamp, event_type, toString(assistant), user, cost_nanos, input_tokens, output_tokens, toString(model), trace_id, metadata)`
/** Of people who were removed, or are being removed, rows of the log and of `names` differ for a while. */
const NOT_REMOVED = (tenant: string, number: string) => `(${tenant}, ${number}) NOT IN (SELECT tenant, user_no FROM removals)`

/**
 * Looks for duplicate ids, shared numbers and split names and, if asked, repairs them.
 * @param names what this instance has in memory of the dictionary; it is forgotten where numbers are repaired
 * @param exclusive runs a repair while nothing is stored
 */
export async function reconcileIds(
  store: Store,
  seals: Seals,
  names: Names,
  exclusive: WriteLock,
  options: IdentityOptions,
): Promise<IdentityReport> {
  const { repair, passSize = PASS_SIZE, onRepaired = () => {} } = options
  const told = (places: readonly Place[]) => {
    for (const { tenant, start } of places) {
      const quarters = DAY.seconds / QUARTER.seconds
      onRepaired(
        tenant,
        Array.from({ length: quarters }, (_, at) => (start + at * QUARTER.seconds) * 1000),
      )
    }
  }
  // Numbers first: copies of an event may differ in theirs alone.
  const { sharedNumbers, splitNames } = await findNames(store, passSize.names)
  let identitiesRepaired = 0
  if (repair) {
    const damaged = new Map<string, { tenant: TenantKey; kind: NameKind; numbers: number[]; names: string[] }>()
    const of = ({ tenant, kind }: SharedNumber | SplitName) => {
      const key = `${tenant}/${kind}`
      const entry = damaged.get(key) ?? { tenant, kind, numbers: [], names: [] }
      damaged.set(key, entry)
      return entry
    }
    for (const entry of sharedNumbers) of(entry).numbers.push(entry.number)
    for (const entry of splitNames) of(entry).names.push(entry.name)
    for (const { tenant, kind, ...all } of damaged.values()) {
      for (const numbers of batches(all.numbers)) {
        told(await exclusive((guard) => repairNames(store, seals, names, guard, { tenant, kind, numbers, names: [] })))
      }
      for (const some of batches(all.names)) {
        told(await exclusive((guard) => repairNames(store, seals, names, guard, { tenant, kind, numbers: [], names: some })))
      }
    }
    identitiesRepaired += sharedNumbers.length + splitNames.length
  }

  const duplicateIds = await findDuplicateIds(store, options, passSize.ids)
  if (repair) {
    const byTenant = new Map<TenantKey, string[]>()
    for (const { tenant, id } of duplicateIds) byTenant.set(tenant, [...(byTenant.get(tenant) ?? []), id])
    for (const [tenant, all] of byTenant) {
      for (const ids of batches(all)) told(await exclusive((guard) => repairIds(store, seals, guard, tenant, ids)))
    }
    identitiesRepaired += duplicateIds.length
  }
  return { duplicateIds, sharedNumbers, splitNames, identitiesRepaired }
}

function* batches<T extends string | number>(list: readonly T[]): Generator<T[]> {
  for (const slice of slices(list)) for (let at = 0; at < slice.length; at += BATCH) yield slice.slice(at, at + BATCH)
}

async function countOf(store: Store, sql: string, params: Record<string, unknown> = {}): Promise<number> {
  const [row] = await store.adminRows<{ rows: string }>(`SELECT toString(count()) AS rows FROM ${sql}`, params)
  return Number(row?.rows ?? 0)
}

async function findDuplicateIds(store: Store, { from, to }: IdentityOptions, passSize: number): Promise<DuplicateId[]> {
  const range = { from: dateTime64(from), to: dateTime64(to) }
  const passes = Math.ceil((await countOf(store, `events WHERE ${IN_RANGE}`, range)) / passSize)
  const found: DuplicateId[] = []
  for (let pass = 0; pass < passes && found.length < MAX_FOUND; pass++) {
    const hashes = await store.adminRows<{ hash: string }>(
      `SELECT toString(cityHash64(tenant, id) AS h) AS hash FROM events
       WHERE ${IN_RANGE} AND ${inPass('id')}
       GROUP BY h HAVING count() > 1 LIMIT ${MAX_FOUND}`,
      { ...range, passes, pass },
    )
    for (const slice of slices(hashes.map(({ hash }) => hash))) {
      const rows = await store.adminRows<DuplicateId>(
        `SELECT tenant, id, toUInt32(count()) AS copies, toUInt32(uniqExact(${CONTENT})) AS contents FROM events
         WHERE ${IN_RANGE} AND toString(cityHash64(tenant, id)) IN {hashes:Array(String)}
         GROUP BY tenant, id HAVING copies > 1 ORDER BY tenant, id`,
        { ...range, hashes: slice },
      )
      found.push(...rows)
    }
  }
  return found.slice(0, MAX_FOUND)
}

const inPass = (expression: string) => `cityHash64(tenant, ${expression}) % {passes:UInt32} = {pass:UInt32}`

/** Every pair of a name and its number, by the log and by the dictionary, whose hash of `key` belongs to one pass. */
const pairs = (key: 'name' | 'number') => {
  const ofLog = KINDS.map((kind) => {
    const { name, number } = COLUMNS[kind]
    const kept = kind === 'user' ? `user != '' AND ${NOT_REMOVED('tenant', 'user_no')} AND ` : ''
    return `SELECT DISTINCT tenant, '${kind}' AS kind, toString(${name}) AS name, ${number} AS number FROM events
      WHERE ${kept}${inPass(key === 'name' ? `toString(${name})` : number)}`
  })
  return `${ofLog.join(' UNION ALL ')}
    UNION ALL SELECT DISTINCT tenant, toString(kind) AS kind, name, number FROM names
      WHERE (kind != 'user' OR ${NOT_REMOVED('tenant', 'number')}) AND ${inPass(key)}`
}

async function findNames(store: Store, passSize: number) {
  const passes = Math.max(1, Math.ceil((await countOf(store, 'names')) / passSize))
  const sharedNumbers: SharedNumber[] = []
  const splitNames: SplitName[] = []
  for (let pass = 0; pass < passes; pass++) {
    const params = { passes, pass }
    if (sharedNumbers.length < MAX_FOUND) {
      sharedNumbers.push(
        ...(await store.adminRows<SharedNumber>(
          `SELECT tenant, kind, number, arraySort(groupUniqArray(${MAX_SHOWN})(name)) AS names FROM (${pairs('number')})
           GROUP BY tenant, kind, number HAVING uniqExact(name) > 1 ORDER BY tenant, kind, number LIMIT ${MAX_FOUND}`,
          params,
        )),
      )
    }
    if (splitNames.length < MAX_FOUND) {
      splitNames.push(
        ...(await store.adminRows<SplitName>(
          `SELECT tenant, kind, name, arraySort(groupUniqArray(${MAX_SHOWN})(number)) AS numbers FROM (${pairs('name')})
           GROUP BY tenant, kind, name HAVING uniqExact(number) > 1 ORDER BY tenant, kind, name LIMIT ${MAX_FOUND}`,
          params,
        )),
      )
    }
  }
  return { sharedNumbers: sharedNumbers.slice(0, MAX_FOUND), splitNames: splitNames.slice(0, MAX_FOUND) }
}

/** Keeps one row of each id, the one that was stored first. */
async function repairIds(
  store: Store,
  seals: Seals,
  guard: WriteGuard,
  tenant: TenantKey,
  ids: readonly string[],
): Promise<Place[]> {
  const doubled = await store.adminRows<{ id: string; days: number[] }>(
    `SELECT id, groupUniqArray(${DAY_OF_EVENT}) AS days FROM events WHERE tenant = {tenant:UUID} AND id IN {ids:Array(String)}
     GROUP BY id HAVING count() > 1`,
    { tenant, ids },
  )
  if (doubled.length === 0) return []
  const where = 'tenant = {tenant:UUID} AND id IN {ids:Array(String)}'
  await replaceEvents(store, guard, where, { tenant, ids: doubled.map(({ id }) => id) })
  return rewriteDaysOf(
    store,
    seals,
    guard,
    tenant,
    doubled.flatMap(({ days }) => days),
  )
}

async function rewriteDaysOf(
  store: Store,
  seals: Seals,
  guard: WriteGuard,
  tenant: TenantKey,
  days: readonly number[],
): Promise<Place[]> {
  const places = [...new Set(days)].map((start) => ({ tenant, start }))
  await rewriteRollups(store, seals, guard, places)
  return places
}

/** A name with one of its numbers: how many events say so and on which days, and whether the dictionary does. */
interface Pair {
  name: string
  number: number
  events: number
  days: number[]
  listed: boolean
}

/**
 * Gives each of some names, and of all names and numbers that they are mixed up with, one number of its own. Of several
 * numbers a name keeps the one that most of its events have, unless another name has more events under it; a name that is
 * left without any gets a new one.
 */
async function repairNames(
  store: Store,
  seals: Seals,
  names: Names,
  guard: WriteGuard,
  damaged: { tenant: TenantKey; kind: NameKind; numbers: readonly number[]; names: readonly string[] },
): Promise<Place[]> {
  const { tenant, kind } = damaged
  const found = await readPairs(store, damaged)
  const ofName = new Map<string, number>()
  const taken = new Set<number>()
  found.sort(
    (a, b) => b.events - a.events || Number(b.listed) - Number(a.listed) || a.number - b.number || (a.name < b.name ? -1 : 1),
  )
  for (const { name, number } of found) {
    if (ofName.has(name) || taken.has(number)) continue
    ofName.set(name, number)
    taken.add(number)
  }
  const isRight = ({ name, number }: Pair) => ofName.get(name) === number
  if (found.every((pair) => isRight(pair) && pair.listed)) return []

  const listed = new Set(found.filter((pair) => pair.listed && isRight(pair)).map(({ name }) => name))
  const missing = [...ofName].filter(([name]) => !listed.has(name))
  if (missing.length > 0) {
    await store.admin.command({
      query: `INSERT INTO names (tenant, kind, name, number)
        SELECT {tenant:UUID}, {kind:String}, pair.1, pair.2
        FROM (SELECT arrayJoin(arrayZip({names:Array(String)}, {numbers:Array(UInt32)})) AS pair) WHERE ${orFail(guard)}`,
      query_id: maintenanceId(store.database),
      query_params: { tenant, kind, names: missing.map(([name]) => name), numbers: missing.map(([, number]) => number) },
      clickhouse_settings: { insert_deduplicate: 0, wait_end_of_query: 1 },
    })
  }
  const wrong = found.filter((pair) => pair.listed && !isRight(pair))
  if (wrong.length > 0) {
    await store.deleteRows(
      'names',
      `tenant = {tenant:UUID} AND kind = {kind:String}
       AND has(arrayZip({names:Array(String)}, {numbers:Array(UInt32)}), (name, number)) AND ${guard.condition()}`,
      { tenant, kind, names: wrong.map(({ name }) => name), numbers: wrong.map(({ number }) => number) },
    )
  }
  await store.admin.command({
    query: `INSERT INTO name_repairs (tenant) SELECT {tenant:UUID} WHERE ${orFail(guard)}`,
    query_id: maintenanceId(store.database),
    query_params: { tenant },
    clickhouse_settings: { insert_deduplicate: 0, wait_end_of_query: 1 },
  })
  await names.learn()

  const homeless = [...new Set(found.map(({ name }) => name))].filter((name) => !ofName.has(name))
  const given = await new Numbers(store, names).of(tenant, kind, homeless, () => guard.extend())
  for (const [name, number] of given) ofName.set(name, number)

  const moved = found.filter((pair) => pair.events > 0 && !isRight(pair))
  if (moved.length > 0) await renumber(store, guard, tenant, kind, moved, ofName)
  // Also of what stays: where a number was changed in the log alone, sets in the rollups hold another one, and as many.
  return rewriteDaysOf(
    store,
    seals,
    guard,
    tenant,
    found.flatMap(({ days }) => days),
  )
}

async function renumber(
  store: Store,
  guard: WriteGuard,
  tenant: TenantKey,
  kind: NameKind,
  moved: readonly Pair[],
  ofName: ReadonlyMap<string, number>,
): Promise<void> {
  const { name, number } = COLUMNS[kind]
  const old = `arrayZip({names:Array(String)}, {numbers:Array(UInt32)})`
  const own = `(toString(${name}), ${number})`
  await replaceEvents(
    store,
    guard,
    `tenant = {tenant:UUID} AND ${number} IN {numbers:Array(UInt32)} AND has(${old}, ${own})`,
    {
      tenant,
      names: moved.map((pair) => pair.name),
      numbers: moved.map((pair) => pair.number),
      newNumbers: moved.map((pair) => ofName.get(pair.name)),
    },
    { [number]: `({newNumbers:Array(UInt32)})[indexOf(${old}, ${own})]` },
  )
}

/** All pairs that are connected with some names and numbers: by a name that has one of the numbers, by its other numbers, and so on. */
async function readPairs(
  store: Store,
  { tenant, kind, ...damaged }: { tenant: TenantKey; kind: NameKind; numbers: readonly number[]; names: readonly string[] },
): Promise<Pair[]> {
  const { name, number } = COLUMNS[kind]
  const kept = (column: string) => (kind === 'user' ? ` AND ${NOT_REMOVED('tenant', column)}` : '')
  const numbers = new Set(damaged.numbers)
  const names = new Set(damaged.names)
  for (;;) {
    const rows = await store.adminRows<Omit<Pair, 'events' | 'listed'> & { events: string; listed: number }>(
      `SELECT name, number, toString(sum(events)) AS events, groupUniqArrayArray(days) AS days, toUInt8(max(listed)) AS listed FROM (
         SELECT toString(${name}) AS name, ${number} AS number, count() AS events, groupUniqArray(${DAY_OF_EVENT}) AS days, 0 AS listed
         FROM events AS log
         WHERE tenant = {tenant:UUID} AND (log.${name} IN {names:Array(String)} OR log.${number} IN {numbers:Array(UInt32)})
           AND log.${name} != ''${kept('user_no')}
         GROUP BY name, number
         UNION ALL
         SELECT name, number, 0 AS events, [] AS days, 1 AS listed FROM names
         WHERE tenant = {tenant:UUID} AND kind = {kind:String}
           AND (name IN {names:Array(String)} OR number IN {numbers:Array(UInt32)})${kept('number')})
       GROUP BY name, number`,
      { tenant, kind, names: [...names], numbers: [...numbers] },
    )
    const before = names.size + numbers.size
    for (const row of rows) {
      names.add(row.name)
      numbers.add(row.number)
    }
    if (names.size + numbers.size === before) {
      return rows.map(({ events, listed, ...row }) => ({ ...row, events: Number(events), listed: listed === 1 }))
    }
  }
}

/**
 * Stores events again, one row an id, with some columns changed, and deletes the rows that they stand for.
 * @param where SQL over `params`
 * @param changes SQL by column
 */
async function replaceEvents(
  store: Store,
  guard: WriteGuard,
  where: string,
  params: Record<string, unknown>,
  changes: Readonly<Record<string, string>> = {},
): Promise<void> {
  const columns = await store.adminRows<{ name: string }>(
    `SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'events'
       AND default_kind NOT IN ('MATERIALIZED', 'ALIAS') ORDER BY position`,
  )
  const list = columns.map(({ name }) => name)
  // Tells the new rows from those that they stand for, whatever clock wrote the latter.
  const [last] = await store.adminRows<{ at: string }>(
    `SELECT toString(toUnixTimestamp64Milli(max(received_at))) AS at FROM events WHERE ${where}`,
    params,
  )
  const mark = dateTime64(Math.max(await store.now(), Number(last?.at ?? 0) + 1))
  const changed: Readonly<Record<string, string>> = { ...changes, received_at: `{mark:DateTime64(3, 'UTC')}` }
  await store.admin.command({
    query: `INSERT INTO events (${list.join(', ')})
      SELECT ${list.map((name) => changed[name] ?? name).join(', ')}
      FROM (SELECT ${list.join(', ')} FROM events WHERE ${where} ORDER BY received_at, term LIMIT 1 BY tenant, id)
      WHERE ${orFail(guard)}`,
    query_id: maintenanceId(store.database),
    query_params: { ...params, mark },
    clickhouse_settings: {
      // On a cluster, rows go where their new number belongs.
      parallel_distributed_insert_select: '0',
      insert_deduplication_token: `repair-${randomUUID()}`,
      max_execution_time: 0,
      wait_end_of_query: 1,
    },
  })
  await store.deleteRows('events', `${where} AND received_at != {mark:DateTime64(3, 'UTC')} AND ${guard.condition()}`, {
    ...params,
    mark,
  })
}
