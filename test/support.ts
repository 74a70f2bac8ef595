/** A whole service on a database of its own, asked through `app.request` as its callers would. */
import { createClient } from '@clickhouse/client'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inject } from 'vitest'
import * as v from 'valibot'
import { clusterSettings } from '../src/clickhouse/cluster-config.ts'
import type { Query } from '../src/clickhouse/query.ts'
import { type Asker, Store } from '../src/clickhouse/store.ts'
import { readConfig } from '../src/config.ts'
import { signLocalToken } from '../src/auth/local-key.ts'
import type { Receipt } from '../src/ingest/deduplicate.ts'
import type { Level, Log } from '../src/log.ts'
import { createService, type ClickHouse, type ServiceOptions } from '../src/service.ts'

export type Params = Record<string, string | number | readonly string[]>

/** What the caller's token says; the scope is both of the service's where nothing else is asked for. */
export interface Caller {
  org?: string
  scope?: string
  assistants?: readonly string[]
}

export interface Reply {
  status: number
  headers: Headers
  /** Parsed where it is JSON, else as text. */
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any
}

export interface PostOptions extends Caller {
  /** Added to the request's, or instead of them. */
  headers?: Record<string, string>
}

export type TestService = Awaited<ReturnType<typeof startService>>

/**
 * Starts a service. `close` ends it and drops its database.
 * @param options.now where its clock stands; move it with `setNow`
 * @param options.config settings of the environment, beside the defaults
 * @param options.clickhouse the ClickHouse to use; the one of the test run where not given
 * @param options.makeStore takes the place of the service's store
 * @param options.from another service that was stopped with `stop`, whose database and data directory to go on with
 */
export async function startService({
  now = '2026-03-01T12:00:00.000Z',
  config: settings = {},
  clickhouse: given,
  from,
  makeStore,
}: {
  now?: string
  config?: Record<string, string>
  clickhouse?: ClickHouse
  from?: { database: string; dataDir: string }
  makeStore?: ServiceOptions['makeStore']
} = {}) {
  const clickhouse = given ?? { ...inject('clickhouse'), stop: () => Promise.resolve() }
  const database = from?.database ?? `analytics_test_${randomBytes(6).toString('hex')}`
  const dataDir = from?.dataDir ?? (await mkdtemp(join(tmpdir(), 'analytics-test-data-')))
  const config = readConfig({
    DATA_DIR: dataDir,
    LOG_LEVEL: 'silent',
    // No test is about these unless it says so.
    RATE_LIMIT_PER_SECOND: '1000000',
    MAX_CONCURRENT_QUERIES: '10000',
    INGEST_QUEUE_MB: '4096',
    ID_FILTER_MB: '1',
    // A kept answer would hide what ClickHouse says now.
    CACHE_MB: '0',
    SELF_CHECK_MINUTES: '0',
    SYNC_WRITES: 'off',
    ...settings,
  })
  let clock = Date.parse(now)
  const complaints: string[] = []
  const logged: Array<{ level: Level; message: string } & Record<string, unknown>> = []
  const log: Log = (level, message, fields) => {
    logged.push({ ...fields, level, message })
    if (level === 'warn' || level === 'error') complaints.push(JSON.stringify({ level, message, ...fields }))
  }
  const service = await createService({
    config,
    clickhouse,
    database,
    log,
    clock: () => clock,
    makeStore: (options) => checkingRows(makeStore?.(options) ?? new Store(options)),
  })
  const admin = createClient({
    url: clickhouse.url,
    ...clickhouse.admin,
    database,
    clickhouse_settings: {
      ...(clickhouse.cluster ? clusterSettings(clickhouse.cluster) : {}),
      output_format_json_quote_64bit_integers: 0,
    },
  })

  const tokens = new Map<string, Promise<string>>()
  function authorization({ org = 'acme', scope = 'analytics:read analytics:write', assistants }: Caller) {
    const key = JSON.stringify([org, scope, assistants])
    const token =
      tokens.get(key) ??
      signLocalToken(service.localKey as Uint8Array, { org, scope, ...(assistants ? { assistants } : {}) }, config)
    tokens.set(key, token)
    return token.then((text) => `Bearer ${text}`)
  }

  async function request(
    method: string,
    url: string,
    { headers = {}, body, ...caller }: PostOptions & { body?: string | Uint8Array },
  ) {
    const response = await service.app.request(url, {
      method,
      headers: { Authorization: await authorization(caller), ...headers },
      ...(body === undefined ? {} : { body }),
    })
    const text = await response.text()
    const json = response.headers.get('Content-Type')?.startsWith('application/json')
    return { status: response.status, headers: response.headers, body: json && text ? JSON.parse(text) : text } as Reply
  }

  const get = (path: string, params: Params | string = {}, options: PostOptions = {}) =>
    request('GET', `/analytics/${path}?${typeof params === 'string' ? params : queryString(params)}`, options)

  async function stop() {
    await service.close()
    await admin.close()
  }

  return {
    ...service,
    database,
    dataDir,
    admin,
    /** What the service has logged as a warning or an error. */
    complaints,
    /** Every line that it has logged, at whatever level. */
    logged,
    authorization,
    request,
    get,

    /** The `data` of an answer that must be a 200. */
    async data(path: string, params: Params = {}, options: PostOptions = {}) {
      return (await this.whole(path, params, options)).data
    },

    /** The whole body of an answer that must be a 200. */
    async whole(path: string, params: Params = {}, options: PostOptions = {}) {
      const reply = await get(path, params, options)
      if (reply.status !== 200) {
        const answer = `${reply.status} ${JSON.stringify(reply.body)} ${complaints.at(-1) ?? ''}`
        throw new Error(`GET ${path} ${JSON.stringify(params)}: ${answer}`)
      }
      return reply.body
    },

    /** Sends a body that is JSON unless it is text or bytes already. */
    post(events: unknown, { headers = {}, ...caller }: PostOptions = {}) {
      const body = typeof events === 'string' || events instanceof Uint8Array ? events : JSON.stringify(events)
      const type = { 'Content-Type': 'application/json' }
      return request('POST', '/analytics/events', { ...caller, headers: { ...type, ...headers }, body })
    },

    /** Stores events, in batches of 10,000; all of them must be accepted. */
    async store(events: readonly object[], caller: Caller = {}) {
      for (const receipt of await this.submit(events, caller)) {
        if (receipt.duplicates > 0 || receipt.rejected.length > 0) throw new Error(JSON.stringify(receipt).slice(0, 1_000))
      }
    },

    async submit(events: readonly object[], caller: Caller = {}): Promise<Receipt[]> {
      const receipts = []
      for (let at = 0; at < events.length; at += 10_000) {
        const reply = await this.post(events.slice(at, at + 10_000), caller)
        if (reply.status !== 200) throw new Error(`POST: ${reply.status} ${JSON.stringify(reply.body)}`)
        receipts.push(reply.body.data as Receipt)
      }
      return receipts
    },

    /** Takes rows away behind the service's back. */
    deleteRows: (table: string, where: string) => service.store.deleteRows(table, where),

    /** Rows of a query over the service's own database. */
    async rows<Row>(query: string): Promise<Row[]> {
      return (await admin.query({ query, format: 'JSONEachRow' })).json<Row>()
    },

    setNow(instant: string | number) {
      clock = typeof instant === 'number' ? instant : Date.parse(instant)
    },

    /** Ends the service and leaves its database and files where they are. */
    stop,

    async close() {
      await dropDatabase(clickhouse, database)
      await stop()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}

/** Makes a store fail where a row is not of its query's schema, in whatever test. */
function checkingRows<S extends Store>(store: S): S {
  // Looked up at each call: tests put other functions into the prototype.
  const own = Object.hasOwn(store, 'read') ? store.read : undefined
  store.read = async <Row>(asker: Asker, query: Query<Row>) => {
    const read = own ?? (Object.getPrototypeOf(store) as Store).read
    const rows = (await read.call(store, asker, query as Query<unknown>)) as Row[]
    const result = v.safeParse(v.array(query.row), rows)
    if (result.success) return rows
    throw new Error(
      `a row of ${query.name} is not of its schema: ${JSON.stringify(v.flatten(result.issues))} ${JSON.stringify(rows).slice(0, 500)}`,
    )
  }
  return store
}

/** Drops a test's database, on every server of a cluster. */
export async function dropDatabase({ url, cluster, admin }: Pick<ClickHouse, 'url' | 'cluster' | 'admin'>, database: string) {
  for (const server of cluster?.urls ?? [url]) {
    const client = createClient({ url: server, ...admin })
    await client.command({ query: `DROP DATABASE IF EXISTS ${database} SYNC` })
    await client.close()
  }
}

/** The figures of a range without events. */
export const NOTHING = {
  activeUsers: 0,
  incomingMessages: 0,
  outgoingMessages: 0,
  tasksInitiated: 0,
  tasksCompleted: 0,
  total: 0,
  completionRate: null,
  cost: 0,
  inputTokens: 0,
  outputTokens: 0,
}

/** The `change` of a range after one without events. */
export const NO_CHANGE = Object.fromEntries(Object.keys(NOTHING).map((name) => [name, null]))

export function queryString(params: Params): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) query.append(name, String(one))
  }
  return query.toString()
}
