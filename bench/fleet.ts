/**
 * The fleet that is measured, made inside ClickHouse: the same events for the same number and the same last minute, since
 * everything comes from hashes of the event's number.
 *
 *   30 tenants, the first with 70 % of the events, 300,000 users and 500 assistants; 90 days up to now, with days and nights;
 *   a user's rank is log-uniform, so the first hundreds of users are heavy, none is absurd, and the tail is long;
 *   a user talks to 1 to 6 assistants, some of which are far more popular than others.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ClickHouseClient } from '@clickhouse/client'
import { keyLiteral, tenantKey } from '../src/domain/tenant.ts'
import { SEALED } from '../src/rollups/granularities.ts'
import { Store } from '../src/clickhouse/store.ts'
import { OwnLease } from '../src/clickhouse/writer-lease.ts'
import { mergeParts, Seals } from '../src/maintenance/compaction.ts'
import { createLog } from '../src/log.ts'
import { migrateDatabase } from '../src/service.ts'
import { say, seconds, type Connection } from './support.ts'

const TENANTS = 30
const ORGS = Array.from({ length: TENANTS }, (_, at) => `org-${String(at + 1).padStart(2, '0')}`)
/** Whose questions are measured: the tenant with 70 % of the events, the first of them. */
export const TENANT = 'org-01'
/** As literals of SQL: the key of that tenant, and those of all as an array, in the order of their numbers from 1. */
export const TENANT_KEY = keyLiteral(tenantKey(TENANT))
export const TENANT_KEYS = `[${ORGS.map((org) => keyLiteral(tenantKey(org))).join(', ')}]::Array(UUID)`
const USERS = 300_000
const ASSISTANTS = 500
const DAYS = 90
const DAY_MS = 86_400_000

/** Rows an INSERT makes: one block, so one part a table, as after a merge of what a day brings in. */
const BLOCK = 1_000_000

export interface Fleet {
  readonly events: number
  /** Epoch milliseconds of the first and after the last event; `end` is a whole minute. */
  readonly start: number
  readonly end: number
}

export interface Generated {
  /** Events a second through all views, seals not counted. */
  readonly eventsPerSecond: number
  readonly generateSeconds: number
  readonly sealSeconds: number
  readonly mergeSeconds: number
  /** False where merges were still running when patience ran out. */
  readonly settled: boolean
}

export interface TableSize {
  readonly table: string
  readonly rows: number
  readonly parts: number
  readonly bytes: number
}

/** How many users and assistants a tenant has, as SQL over `tenant_no`. */
const USERS_OF = `if(tenant_no = 1, ${USERS}, intDiv(${USERS / 10}, tenant_no))`
const ASSISTANTS_OF = `if(tenant_no = 1, ${ASSISTANTS}, 5 + intDiv(200, tenant_no))`
const USER_NAME = `concat('user-', lower(hex(cityHash64(tenant_no, user_no))))`
const ASSISTANT_NAME = `concat('assistant-', leftPad(toString(assistant_no), 3, '0'))`

/** A number in [0, 1), the same for the same arguments. */
const uniform = (...of: string[]) => `(bitShiftRight(cityHash64(${of.join(', ')}), 11) / 9007199254740992)`
/** A rank in [1, n]: uniform in the logarithm, flattened over the first `offset` ranks. */
const rank = (x: string, n: string, offset: number) =>
  `1 + least(toUInt32(${n} - 1), toUInt32(floor(${offset} * (exp(${x} * log(1 + ${n} / ${offset})) - 1))))`

/**
 * Evenly spaced moments (in days) are bent so that events come three times as often at 14:00 UTC as at 02:00: the distance
 * between them goes as 1 - BEND * cos(2 pi (time of day - PEAK)).
 */
const BEND = 0.5
const PEAK = 14 / 24
const bent = (even: number) => even - (BEND / (2 * Math.PI)) * Math.sin(2 * Math.PI * (even - PEAK))
const BENT = `even - ${BEND} / (2 * pi()) * sin(2 * pi() * (even - ${PEAK}))`

/** The moment that is bent to `day`. */
function straightened(day: number): number {
  let even = day
  for (let step = 0; step < 60; step++) even += day - bent(even)
  return even
}

const GENERATE = `
  INSERT INTO events (tenant, timestamp, id, event_type, assistant, user, assistant_no, user_no, cost_nanos,
                      input_tokens, output_tokens, model, trace_id, metadata, late_levels)
  WITH
    {first:Float64} + (number + ${uniform('number', `'at'`)}) / {events:UInt64} * ${DAYS} AS even,
    ${BENT} AS day,
    ${uniform('number', `'tenant'`)} AS share,
    if(share < 0.7, 1, 2 + toUInt32(floor(${TENANTS - 1} * pow((share - 0.7) / 0.3, 2))))::UInt32 AS tenant_no,
    (${TENANT_KEYS})[tenant_no] AS tenant,
    (${rank(uniform('number', `'user'`), USERS_OF, 100)})::UInt32 AS user_no,
    cityHash64(number, 'slot') % (1 + cityHash64(tenant_no, user_no, 'slots') % 6) AS slot,
    (${rank(uniform('tenant_no', 'user_no', 'slot', `'assistant'`), ASSISTANTS_OF, 5)})::UInt32 AS assistant_no,
    cityHash64(number, 'type') % 100 AS type,
    type >= 40 AS costs,
    1 + cityHash64(tenant_no, assistant_no, 'model') % 4 AS model_no,
    costs * (60 + toUInt32(20 * exp(4.5 * ${uniform('number', `'in'`)}))) AS input,
    costs * (15 + toUInt32(15 * exp(4 * ${uniform('number', `'out'`)}))) AS output,
    [100, 250, 1000, 3000][model_no] AS nanos_a_token
  SELECT
    tenant,
    fromUnixTimestamp64Milli(toInt64(day * ${DAY_MS}), 'UTC') AS timestamp,
    lower(hex(sipHash128(number, 'id'))) AS id,
    multiIf(type < 40, 'incomingMessages', type < 80, 'outgoingMessages', type < 91, 'tasksInitiated', 'tasksCompleted'),
    ${ASSISTANT_NAME},
    ${USER_NAME},
    assistant_no,
    user_no,
    (input + 4 * output) * nanos_a_token,
    input,
    output,
    ['mini-2', 'base-3', 'plus-3', 'max-1'][model_no],
    '',
    '',
    0
  FROM numbers({from:UInt64}, {count:UInt64})
  ORDER BY ()
  SETTINGS max_block_size = ${BLOCK}, min_insert_block_size_rows = ${BLOCK}, min_insert_block_size_bytes = 0,
    max_insert_threads = 1, parallel_view_processing = 1, insert_deduplicate = 0, max_execution_time = 0`

const NAMES = [
  `INSERT INTO tenants (tenant, name) VALUES ${ORGS.map((org) => `(${keyLiteral(tenantKey(org))}, '${org}')`).join(', ')}`,
  `INSERT INTO names (tenant, kind, name, number)
   SELECT (${TENANT_KEYS})[tenant_no], 'assistant', ${ASSISTANT_NAME}, arrayJoin(range(1, toUInt32(1 + ${ASSISTANTS_OF}))) AS assistant_no
   FROM (SELECT toUInt32(number) AS tenant_no FROM numbers(1, ${TENANTS}))`,
  `INSERT INTO names (tenant, kind, name, number)
   SELECT (${TENANT_KEYS})[tenant_no], 'user', ${USER_NAME}, arrayJoin(range(1, toUInt32(1 + ${USERS_OF}))) AS user_no
   FROM (SELECT toUInt32(number) AS tenant_no FROM numbers(1, ${TENANTS}))`,
]

/** A fleet of so many events whose last minute is the present one. */
export function newFleet(events: number): Fleet {
  const end = Math.floor(Date.now() / 60_000) * 60_000
  return { events, start: end - DAYS * DAY_MS, end }
}

/** Makes the fleet in a database without any tables, seals what is due, and waits until ClickHouse has merged. */
export async function generate(connection: Connection, admin: ClickHouseClient, fleet: Fleet): Promise<Generated> {
  await migrateDatabase(connection, connection.database, createLog('silent'))
  // Before the fleet there is nothing, so that what is sealed is complete up to its start.
  const sealed = SEALED.map(({ id, seconds: length }) => [id, Math.floor(fleet.start / 1000 / length) * length])
  await admin.insert({ table: 'seals', values: sealed, format: 'JSONCompactEachRow' })
  for (const query of NAMES) await admin.command({ query })

  const first = straightened(fleet.start / DAY_MS)
  const started = performance.now()
  let told = started
  for (let from = 0; from < fleet.events; from += BLOCK) {
    const count = Math.min(BLOCK, fleet.events - from)
    await admin.command({ query: GENERATE, query_params: { events: fleet.events, first, from, count } })
    if (performance.now() - told > 20_000) {
      told = performance.now()
      say(`  ${from + count} events, ${Math.round((from + count) / seconds(started))} a second`)
    }
  }
  const generateSeconds = seconds(started)

  const sealing = performance.now()
  await seal(connection)
  const sealSeconds = seconds(sealing)

  const merging = performance.now()
  const settled = await merged(admin, 60_000 + fleet.events / 100)
  return {
    eventsPerSecond: fleet.events / generateSeconds,
    generateSeconds,
    sealSeconds,
    mergeSeconds: seconds(merging),
    settled,
  }
}

/** Seals every span that is over and merges, with the service's own code, as it does every day. */
async function seal(connection: Connection): Promise<void> {
  const store = new Store({ ...connection, queryTimeoutSeconds: 600, queryMemoryMb: 8_192 })
  try {
    const seals = new Seals(store, Date.now)
    await seals.load()
    const lease = new OwnLease(store)
    while (await seals.advance(lease));
    await mergeParts(store)
  } finally {
    await store.close()
  }
}

/** Waits until no merge has run for three seconds; nothing is forced. */
export async function merged(admin: ClickHouseClient, patienceMs: number): Promise<boolean> {
  const deadline = performance.now() + patienceMs
  let quietSince = performance.now()
  while (performance.now() < deadline) {
    const result = await admin.query({ query: 'SELECT count() AS merges FROM system.merges', format: 'JSONEachRow' })
    const [row] = await result.json<{ merges: string }>()
    if (Number(row?.merges) > 0) quietSince = performance.now()
    if (performance.now() - quietSince > 3_000) return true
    await sleep(250)
  }
  return false
}

/** What each table takes on disk, largest first; a projection is listed beside the table it belongs to. */
export async function sizes(admin: ClickHouseClient, database: string): Promise<TableSize[]> {
  const read = async (query: string) => {
    const result = await admin.query({
      query,
      query_params: { database },
      format: 'JSONEachRow',
      clickhouse_settings: { output_format_json_quote_64bit_integers: 0 },
    })
    return result.json<TableSize & { projection: string }>()
  }
  const tables = await read(`
    SELECT table, '' AS projection, sum(rows) AS rows, count() AS parts, sum(bytes_on_disk) AS bytes
    FROM system.parts WHERE database = {database:String} AND active GROUP BY table`)
  const projections = await read(`
    SELECT table, name AS projection, sum(rows) AS rows, count() AS parts, sum(bytes_on_disk) AS bytes
    FROM system.projection_parts WHERE database = {database:String} AND active GROUP BY table, name`)
  // A part's size includes its projections.
  const own = tables.map(({ table, rows, parts, bytes }) => ({
    table,
    rows,
    parts,
    bytes: projections.reduce((left, inside) => (inside.table === table ? left - inside.bytes : left), bytes),
  }))
  const inside = projections.map(({ table, projection, ...rest }) => ({ table: `${table}, projection ${projection}`, ...rest }))
  return [...own, ...inside].sort((a, b) => b.bytes - a.bytes)
}

/** Fleet facts that questions need: the tenant's busiest assistant, and a few users who were hardly ever seen. */
export async function landmarks(admin: ClickHouseClient): Promise<{ busiest: string; rareUsers: string[] }> {
  const rows = async <Row>(query: string) => (await admin.query({ query, format: 'JSONEachRow' })).json<Row>()
  const [busiest] = await rows<{ assistant: string }>(
    `SELECT assistant FROM events WHERE tenant = ${TENANT_KEY} GROUP BY assistant ORDER BY count() DESC LIMIT 1`,
  )
  const rare = await rows<{ user: string }>(
    `SELECT any(user) AS user FROM events WHERE tenant = ${TENANT_KEY} AND user_no > 250000 GROUP BY user_no ORDER BY user_no LIMIT 3`,
  )
  if (!busiest || rare.length < 3) throw new Error('the fleet is too small: use at least 100,000 events')
  return { busiest: busiest.assistant, rareUsers: rare.map(({ user }) => user) }
}
