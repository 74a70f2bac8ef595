/**
 * The way to ClickHouse. Reading goes through `read`, which takes a tenant and refuses, at compile time, SQL that does
 * not filter by it; nothing else in the service sends a SELECT on behalf of a caller.
 */
import { AsyncResource } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import type { Readable } from 'node:stream'
import {
  ClickHouseError,
  ClickHouseLogLevel,
  createClient,
  type ClickHouseClient,
  type ClickHouseSettings,
} from '@clickhouse/client'
import { unavailable } from '../domain/errors.ts'
import { missingShards, TableAdmin } from './admin.ts'
import { clusterSettings, type Cluster } from './cluster-config.ts'
import { asApiError, NO_TABLE, saysBrokenPart } from './errors.ts'
import { ID_HASH } from './event-ids.ts'
import { finished, type FinishedQuery, type Headers, startQuery, watched } from './query-log.ts'
import { STREAM_SETTINGS, UNTHREADED } from './query-settings.ts'
import type { FileQuery, Query } from './query.ts'
import { bytesOf, parseRows } from './row-stream.ts'
import { tenantFilters } from './tenant-filter.ts'
import type { TenantKey } from '../domain/tenant.ts'

/** Who asks: the tenant's key and what becomes of the query. */
export interface Asker {
  readonly tenant: TenantKey
  /** Aborted when the caller goes away: the query is then cancelled in ClickHouse too. */
  readonly signal?: AbortSignal | undefined
  /** Told of each query when it is over, for the log of whoever asked. */
  readonly onQuery?: ((query: FinishedQuery) => void) | undefined
}

export interface Credentials {
  readonly username: string
  readonly password: string
}

export interface StoreOptions {
  readonly url: string
  readonly database: string
  readonly reader: Credentials
  readonly writer: Credentials
  /** For upkeep that reads one table and writes another: migrations, seals, repair. */
  readonly admin: Credentials
  /** Where the tables are spread over the servers of a cluster. */
  readonly cluster?: Cluster | undefined
  readonly queryTimeoutSeconds: number
  readonly queryMemoryMb: number
  /** Streams that may be open at once, each over a connection of its own; MAX_STREAMS by default. */
  readonly maxStreams?: number | undefined
  /** Throws where what has been written may not be there, or what is written now would not be, as on a full disk. */
  readonly assertWritten?: (() => void) | undefined
  /** Called for each query that fails because a part on disk cannot be read, with ClickHouse's error. */
  readonly onBrokenPart?: ((error: ClickHouseError) => void) | undefined
  /** Told of every query of every client when it is over. */
  readonly onQuery?: ((query: FinishedQuery) => void) | undefined
}

const MAX_STREAMS = 32

const EXCEPTION_TAG = 'x-clickhouse-exception-tag'

/** Makes a client fail where what it writes may not be there: `assertWritten` is called before and after. */
function checked(client: ClickHouseClient, assertWritten: () => void): ClickHouseClient {
  for (const method of ['command', 'exec', 'insert'] as const) {
    const send = client[method].bind(client) as (params: unknown) => Promise<{ stream?: Readable }>
    const checkedSend = async (params: unknown) => {
      assertWritten()
      const result = await send(params)
      try {
        assertWritten()
      } catch (error) {
        result.stream?.destroy()
        throw error
      }
      return result
    }
    Object.assign(client, { [method]: checkedSend })
  }
  return client
}

/** Makes a client tell of each failure; maintenance reads rollups too. */
function noting(client: ClickHouseClient, note: (error: unknown) => void): ClickHouseClient {
  for (const method of ['command', 'query'] as const) {
    const send = client[method].bind(client) as (params: unknown) => Promise<unknown>
    const notingSend = (params: unknown) =>
      send(params).catch((error: unknown) => {
        note(error)
        throw error
      })
    Object.assign(client, { [method]: notingSend })
  }
  return client
}

export class Store {
  readonly #reader: ClickHouseClient
  /** Reads too, over connections of its own: an export holds one as long as its reader takes. */
  readonly #exporter: ClickHouseClient
  readonly writer: ClickHouseClient
  readonly admin: ClickHouseClient
  readonly #cluster: Cluster | undefined
  readonly #tables: TableAdmin
  readonly #limits: ClickHouseSettings
  readonly #assertWritten: (() => void) | undefined
  readonly #onBrokenPart: ((error: ClickHouseError) => void) | undefined
  readonly #onQuery: ((query: FinishedQuery) => void) | undefined
  readonly #database: string

  constructor(options: StoreOptions) {
    const shared = {
      url: options.url,
      database: options.database,
      application: 'agnt-analytics',
      // Long lists of spans or ids would not fit into a URL.
      use_multipart_params_auto: true,
      keep_alive: { enabled: true, idle_socket_ttl: 2_000 },
      // What goes wrong reaches the caller as an exception; the client's own logger would print it a second time.
      log: { level: ClickHouseLogLevel.OFF },
      ...(options.cluster ? { clickhouse_settings: clusterSettings(options.cluster) } : {}),
    }
    this.#cluster = options.cluster
    this.#database = options.database
    this.#onBrokenPart = options.onBrokenPart
    this.#onQuery = options.onQuery
    this.#reader = createClient({
      ...shared,
      ...options.reader,
      max_open_connections: 64,
      request_timeout: options.queryTimeoutSeconds * 1000 + 5_000,
    })
    this.#exporter = createClient({
      ...shared,
      ...options.reader,
      max_open_connections: options.maxStreams ?? MAX_STREAMS,
      // Until the answer begins; from then on the pace is its reader's.
      request_timeout: options.queryTimeoutSeconds * 1000 + 5_000,
    })
    const writer = createClient({ ...shared, ...options.writer, max_open_connections: 16, request_timeout: 120_000 })
    const asAdmin = { ...shared, ...options.admin, max_open_connections: 4, request_timeout: 600_000 }
    this.#assertWritten = options.assertWritten
    const seen = (client: ClickHouseClient, role: string) => {
      const counted = options.onQuery ? watched(client, role, options.onQuery) : client
      return options.assertWritten ? checked(counted, () => this.assertWritten()) : counted
    }
    this.writer = seen(writer, 'writer')
    this.admin = seen(
      noting(createClient(asAdmin), (error) => this.#note(error)),
      'admin',
    )
    const urls = options.cluster?.urls ?? []
    const servers = urls.length === 0 ? [this.admin] : urls.map((url) => seen(createClient({ ...asAdmin, url }), 'admin'))
    this.#tables = new TableAdmin({ admin: this.admin, servers, database: options.database, cluster: options.cluster })
    this.#limits = {
      ...UNTHREADED,
      max_execution_time: options.queryTimeoutSeconds,
      max_memory_usage: String(options.queryMemoryMb * 1_048_576),
      // Far above any answer of this service: what returns more is a mistake.
      max_result_rows: '1000000',
      cancel_http_readonly_queries_on_client_close: 1,
      output_format_json_quote_64bit_integers: 0,
    }
  }

  /**
   * Runs one named query for one tenant and returns its rows. 64-bit integers arrive as numbers: sums stay below 2^53
   * except `cost_nanos`, which SQL divides before it answers.
   * @throws ApiError 503 when ClickHouse is away or overloaded, 400 when the question is too expensive
   */
  async read<Row>(asker: Asker, { name, sql, params, settings }: Query<Row>): Promise<Row[]> {
    const additional_table_filters = tenantFilters(asker.tenant, sql, this.#database, this.#cluster)
    const query = startQuery(name, `${name}-${randomUUID()}`)
    let headers: Headers | undefined
    try {
      const result = await this.#reader.query({
        query: sql,
        format: 'JSONCompactEachRowWithNames',
        query_id: query.id,
        query_params: { tenant: asker.tenant, ...params },
        clickhouse_settings: { ...this.#limits, ...settings, additional_table_filters },
        ...(asker.signal ? { abort_signal: asker.signal } : {}),
      })
      const rows = parseRows<Row>(await result.text())
      headers = result.response_headers
      return rows
    } catch (error) {
      this.#note(error)
      throw asApiError(error)
    } finally {
      this.#tell(finished(query, headers ? 'ok' : asker.signal?.aborted ? 'cancelled' : 'failed', headers), asker.onQuery)
    }
  }

  /**
   * Runs one named query for one tenant and gives its answer as ClickHouse writes it, at the pace at which it is taken,
   * however long it is. `return` and the asker's signal cancel the query.
   * @throws ApiError as `read` does, where the query fails before its first byte; a later failure is thrown by `next`
   */
  async stream(asker: Asker, { name, sql, params, format }: FileQuery): Promise<AsyncIterableIterator<Uint8Array>> {
    const additional_table_filters = tenantFilters(asker.tenant, sql, this.#database, this.#cluster)
    const query = startQuery(name, `${name}-${randomUUID()}`)
    try {
      const { stream, response_headers } = await this.#exporter.exec({
        query: `${sql} FORMAT ${format}`,
        query_id: query.id,
        query_params: { tenant: asker.tenant, ...params },
        clickhouse_settings: { ...this.#limits, ...STREAM_SETTINGS, additional_table_filters },
        ...(asker.signal ? { abort_signal: asker.signal } : {}),
      })
      // Told where it was asked for, and not where it is read to its end: traces go by that.
      const onEnd = AsyncResource.bind((outcome: FinishedQuery['outcome']) =>
        this.#tell(finished(query, outcome, response_headers), asker.onQuery),
      )
      return bytesOf(stream as Readable, String(response_headers[EXCEPTION_TAG] ?? ''), asker.signal, onEnd)
    } catch (error) {
      this.#tell(finished(query, asker.signal?.aborted ? 'cancelled' : 'failed'), asker.onQuery)
      throw asApiError(error)
    }
  }

  #tell(query: FinishedQuery, asker?: Asker['onQuery']): void {
    asker?.(query)
    this.#onQuery?.(query)
  }

  #note(error: unknown): void {
    if (saysBrokenPart(error)) this.#onBrokenPart?.(error)
  }

  /** Reads what belongs to no single caller: names, seals, ids before an insert. Never used for an answer's figures. */
  async readInternal<Row>(
    name: string,
    sql: string,
    params: Record<string, unknown> = {},
    onQuery?: Asker['onQuery'],
  ): Promise<Row[]> {
    const query = startQuery(name, `${name}-${randomUUID()}`)
    let headers: Headers | undefined
    try {
      const result = await this.#reader.query({
        query: sql,
        format: 'JSONEachRow',
        query_id: query.id,
        query_params: params,
        clickhouse_settings: { ...UNTHREADED, output_format_json_quote_64bit_integers: 0, max_query_size: '16777216' },
      })
      const rows = await result.json<Row>()
      headers = result.response_headers
      return rows
    } catch (error) {
      this.#note(error)
      // Whatever it is, no caller has asked for this query, so none is to blame.
      throw unavailable('The analytics store is out of reach.', 1, error)
    } finally {
      this.#tell(finished(query, headers ? 'ok' : 'failed', headers), onQuery)
    }
  }

  /**
   * For what has been read, since rows that were cut off may be read until ClickHouse is started again. What is written
   * through `writer` and `admin` is asserted by itself.
   * @throws ApiError 503 where what was written may have been cut off (embedded/disk-watch.ts)
   */
  assertWritten(): void {
    try {
      this.#assertWritten?.()
    } catch (error) {
      throw unavailable('The analytics store has no space left.', 5, error)
    }
  }

  /** Reads system tables and the like, for upkeep. */
  async adminRows<Row>(sql: string, params: Record<string, unknown> = {}): Promise<Row[]> {
    const result = await this.admin.query({ query: sql, format: 'JSONEachRow', query_params: params })
    return result.json<Row>()
  }

  /** The database of the service's tables. */
  get database(): string {
    return this.#database
  }

  /**
   * How many writes under the writer lease may still have an effect (writer-lease.ts): inserts that have read rows from
   * their body, statements of maintenance, and deletions in rollups that are not through.
   * @param inserts how the ids of inserts begin, without the database
   * @param maintenance how the ids of maintenance statements begin
   */
  async runningWrites(inserts: string, maintenance: string): Promise<number> {
    const processes = this.#cluster ? `clusterAllReplicas('${this.#cluster.name}', system.processes)` : 'system.processes'
    const [row] = await this.adminRows<{ running: number }>(
      `SELECT toUInt32((SELECT count() FROM ${processes}
           WHERE (startsWith(initial_query_id, concat({inserts:String}, currentDatabase(), '-')) AND read_rows > 0)
             OR startsWith(initial_query_id, concat({maintenance:String}, currentDatabase(), '-')))
         + (SELECT count() FROM system.mutations
            WHERE database = currentDatabase() AND NOT is_done AND match(table, '^(user_)?activity(_local)?$'))) AS running`,
      { inserts, maintenance },
    )
    return row?.running ?? 0
  }

  /** Whether the tables lie on the servers of a cluster. */
  get isClustered(): boolean {
    return this.#cluster !== undefined
  }

  /** Deletes rows of a table for good, on every shard; returns when none is left. */
  deleteRows(table: string, where: string, params: Record<string, unknown> = {}): Promise<void> {
    return this.#tables.change(table, `DELETE WHERE ${where}`, params)
  }

  /** Changes columns of rows, on every shard; returns when all of them are changed. */
  updateRows(table: string, columns: string, where: string, params: Record<string, unknown> = {}): Promise<void> {
    return this.#tables.change(table, `UPDATE ${columns} WHERE ${where}`, params)
  }

  /**
   * Merges all parts of a table into one, on every server where they take up to so many bytes together and the disk has room
   * to spare: a merge on a full disk can leave a part that cannot be read (26.7). Returns when that is done; questions and
   * inserts go on meanwhile.
   */
  mergeParts(table: string, maxBytes: number): Promise<void> {
    return this.#tables.mergeParts(table, maxBytes)
  }

  /**
   * Shards that do not answer within a second, such as `2 (clickhouse-2-1, clickhouse-2-2)`. Where one takes connections
   * and nothing more, they cannot be told apart: then `one of …`. Empty where all answer, and where there is no cluster.
   * @throws where the server that is asked is out of reach itself
   */
  missingShards(): Promise<string[]> {
    return this.#cluster ? missingShards(this.#cluster, this.#reader, this.admin) : Promise.resolve([])
  }

  /** The present on ClickHouse's clock, epoch milliseconds. */
  async now(): Promise<number> {
    const [row] = await this.readInternal<{ now: number }>('now', 'SELECT toUnixTimestamp64Milli(now64(3)) AS now')
    return row?.now ?? 0
  }

  /** The hash (src/ingest/event-id-filter.ts) of every event stored under a term of the writer lease or a later one, in no order. */
  async hashesOfIds(each: (hash: number) => void, fromTerm = 0): Promise<void> {
    const query = startQuery('ids', `ids-${randomUUID()}`)
    let headers: Headers | undefined
    try {
      headers = await this.#hashesOfIds(query.id, each, fromTerm)
    } finally {
      this.#tell(finished(query, headers ? 'ok' : 'failed', headers))
    }
  }

  async #hashesOfIds(query_id: string, each: (hash: number) => void, fromTerm: number): Promise<Headers> {
    const result = await this.#reader.exec({
      query: `SELECT ${ID_HASH} FROM events
        WHERE term >= {fromTerm:UInt64} FORMAT RowBinary`,
      query_id,
      query_params: { fromTerm },
      clickhouse_settings: { max_threads: 1, max_execution_time: 0, max_result_rows: '0' },
    })
    let rest: Buffer = Buffer.alloc(0)
    for await (const chunk of result.stream as AsyncIterable<Buffer>) {
      const bytes = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk
      const end = bytes.length - (bytes.length % 4)
      for (let at = 0; at < end; at += 4) each(bytes.readUInt32LE(at))
      rest = bytes.subarray(end)
    }
    return result.response_headers
  }

  /**
   * The last migration that is applied, 0 where there is none.
   * @throws ApiError 503 where that cannot be said
   */
  async schemaVersion(): Promise<number> {
    try {
      const [row] = await this.readInternal<{ version: number }>(
        'schema_version',
        `SELECT max(version) AS version FROM migrations WHERE state = 'done'`,
      )
      return row?.version ?? 0
    } catch (error) {
      const { cause } = error as Error
      if (cause instanceof ClickHouseError && NO_TABLE.has(cause.code)) return 0
      throw error
    }
  }

  async ping(): Promise<boolean> {
    const result = await this.#reader.ping()
    return result.success
  }

  async close(): Promise<void> {
    const clients = new Set([this.#reader, this.#exporter, this.writer, this.admin, ...this.#tables.servers])
    await Promise.all([...clients].map((client) => client.close()))
  }
}
