/**
 * The way to ClickHouse. Reading goes through `read`, which takes a tenant and refuses, at compile time, SQL that does
 * not filter by it; nothing else in the service sends a SELECT on behalf of a caller.
 */
import { ClickHouseError, ClickHouseLogLevel, createClient, SettingsMap, type ClickHouseClient, type ClickHouseSettings } from '@clickhouse/client'
import { AsyncResource } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { ApiError, unavailable } from '../domain/errors.ts'
import { keyLiteral, type TenantKey } from '../domain/tenant.ts'
import { MAX_EXPORTS } from '../limits/tenant-limits.ts'
import { ID_HASH } from '../ingest/event-id-filter.ts'
import { clusterSettings, localTable, type Cluster } from './cluster-config.ts'

/** Who asks: the tenant's key and what becomes of the query. */
export interface Asker {
  readonly tenant: TenantKey
  /** Aborted when the caller goes away: the query is then cancelled in ClickHouse too. */
  readonly signal?: AbortSignal | undefined
  /** Told of each query when it is over, for the log of whoever asked. */
  readonly onQuery?: ((query: FinishedQuery) => void) | undefined
}

/** What became of a query: for logs, metrics and traces. */
export interface FinishedQuery {
  /** Under which the code asks: one of a fixed list, never anything of a caller's. */
  readonly name: string
  /** As in ClickHouse's system.query_log. */
  readonly id: string
  /** Epoch milliseconds. */
  readonly startedAt: number
  /** Until the answer was read; of a stream, as long as its reader took. */
  readonly ms: number
  /** `cancelled` where nobody waited for it any more. */
  readonly outcome: 'ok' | 'failed' | 'cancelled'
  /**
   * Rows and bytes read when ClickHouse sent its first byte. That is all where it groups or sorts, or answers little, as
   * questions do; of a stream only a part (26.7: 1.2 of 2 million rows, an export by an index even less), and 0 where it
   * failed.
   */
  readonly rows: number
  readonly bytes: number
}

/** SQL that filters by the tenant; only `tenantSql` makes it. */
export type TenantSql = string & { readonly __filtersByTenant: true }

/** Lets SQL through that filters by the tenant; a text that does not contain the filter does not compile. */
export const tenantSql = <const S extends string>(
  sql: S & (S extends `${string}tenant = {tenant:UUID}${string}` ? unknown : 'SQL must filter by tenant'),
): TenantSql => sql as string as TenantSql

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
  /** Throws where what has been written may not be there, or what is written now would not be, as on a full disk. */
  readonly assertWritten?: (() => void) | undefined
  /** Called for each query that fails because a part on disk cannot be read. */
  readonly onBrokenPart?: (() => void) | undefined
  /** Told of every query of every client when it is over. */
  readonly onQuery?: ((query: FinishedQuery) => void) | undefined
}

/** Tables that hold rows of several tenants, with the filter that ClickHouse adds to every read of them. */
const TENANT_TABLES = ['events', 'activity', 'user_activity', 'user_ranks', 'answers', 'names', 'removals', 'tenants'] as const

/** ClickHouse error codes: https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp */
const TOO_EXPENSIVE: Record<string, string> = {
  '158': 'reads too many rows',
  '159': 'takes too long',
  '160': 'would take too long',
  '241': 'needs too much memory',
  '307': 'reads too many bytes',
  '396': 'returns too many rows',
}

/**
 * Cannot read all data, checksum does not match, file does not exist, no file in data part, corrupted data, cannot
 * decompress. Seen (26.7): a merge on a full disk that leaves a part with an empty file of marks.
 */
const BROKEN_PART = new Set(['33', '40', '107', '226', '246', '271'])

/** Unknown table, unknown database. */
const NO_TABLE = new Set(['60', '81'])

/**
 * Most questions read a handful of rows: handing them from thread to thread takes longer than reading them. Together
 * with FEW_ROWS this takes the first page of events from 18.6 to 13.7 ms, the overview from 25.6 to 19.3 ms.
 */
const UNTHREADED: ClickHouseSettings = {
  output_format_parallel_formatting: 0,
  max_threads_for_indexes: 1,
  local_filesystem_read_method: 'pread',
}

/**
 * For queries whose rows all lie where the sort key says, and are few. The blocks they lie in stay in memory uncompressed,
 * where the server has room for them (`uncompressed_cache_size`): of 100 million events, 90 days by day take 16.6 ms
 * instead of 20.0, and `rolling` 31 instead of 40.
 */
export const FEW_ROWS: ClickHouseSettings = { max_threads: 1, optimize_use_projections: 0, use_uncompressed_cache: 1 }

/**
 * FEW_ROWS for SQL that says itself, with PREWHERE, what to read first; with WHERE all columns are read at once, which is
 * best where nearly all rows of a granule are asked for. Nothing is left to plan, and planning takes 2 of 15 ms.
 */
export const AS_WRITTEN: ClickHouseSettings = { ...FEW_ROWS, query_plan_enable_optimizations: 0 }

/** Another thread for each 1 MiB. By default it takes 24 MiB, and 500 assistants in a table of a single part 88 ms instead of 57. */
export const SPLIT_EARLY: ClickHouseSettings = {
  merge_tree_min_rows_for_concurrent_read: '4096',
  merge_tree_min_bytes_for_concurrent_read: '1048576',
}

/** For queries about each of many assistants or users, by time alone: 87 ms instead of 131 with ragged ends, 63 instead of 68. */
export const MANY_ROWS: ClickHouseSettings = {
  ...SPLIT_EARLY,
  optimize_use_projections: 0,
  optimize_move_to_prewhere: 0,
  use_uncompressed_cache: 1,
}

export type StreamFormat = 'CSVWithNames' | 'Parquet' | 'TSVRaw'

/** Bounds memory and not the length: that is up to the range, and the pace up to whoever reads. */
const STREAM_SETTINGS: ClickHouseSettings = {
  max_execution_time: 3_600,
  max_result_rows: '0',
  max_threads: 2,
  // Only where no index gives the order: by user over several parts.
  max_bytes_before_external_sort: '268435456',
  output_format_parquet_row_group_size: '65536',
  output_format_parquet_parallel_encoding: 0,
  date_time_output_format: 'iso',
  // RFC 4180; what is null is nothing, and an empty text is "".
  format_csv_null_representation: '',
  output_format_csv_crlf_end_of_line: 1,
}

/** A shard that is there answers in milliseconds. Well within the 2 seconds in which /health/ready answers, whatever hangs. */
const MISSING_AFTER_MS = 1_000

/** What a disk keeps free beside twice the size of a table that is merged into one part. */
const SPARE_BYTES = 2 ** 30

const EXCEPTION_TAG = 'x-clickhouse-exception-tag'

type Headers = Record<string, unknown>

const startQuery = (name: string, id: string) => ({ name, id, startedAt: Date.now(), since: performance.now() })

function finished(
  { name, id, startedAt, since }: ReturnType<typeof startQuery>,
  outcome: FinishedQuery['outcome'],
  headers: Headers = {},
): FinishedQuery {
  const summary = headers['x-clickhouse-summary']
  const { read_rows, read_bytes } = (typeof summary === 'string' ? JSON.parse(summary) : {}) as Record<string, string>
  return { name, id, startedAt, ms: performance.now() - since, outcome, rows: Number(read_rows ?? 0), bytes: Number(read_bytes ?? 0) }
}

/**
 * Tells of everything that a client sends, whoever sends it through it: inserts, upkeep. A query is called what its id
 * begins with, and by the client's role and the kind of call where it has no id of that form.
 */
function watched(client: ClickHouseClient, role: string, onQuery: (query: FinishedQuery) => void): ClickHouseClient {
  for (const method of ['query', 'command', 'exec', 'insert'] as const) {
    type Send = (params: { query_id?: string }) => Promise<{ query_id: string; response_headers?: Headers }>
    const send = client[method].bind(client) as unknown as Send
    const watchedSend: Send = async (params) => {
      const id = params.query_id ?? `${role}_${method}-${randomUUID()}`
      const query = startQuery(NAME_OF_ID.exec(id)?.[1] ?? `${role}_${method}`, id)
      let headers: Headers | undefined
      try {
        const result = await send({ ...params, query_id: id })
        headers = result.response_headers ?? {}
        return result
      } finally {
        onQuery(finished(query, headers ? 'ok' : 'failed', headers))
      }
    }
    Object.assign(client, { [method]: watchedSend })
  }
  return client
}

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

/** A name and a UUID. */
const NAME_OF_ID = /^(\w+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export class Store {
  readonly #reader: ClickHouseClient
  /** Reads too, over connections of its own: an export holds one as long as its reader takes. */
  readonly #exporter: ClickHouseClient
  readonly writer: ClickHouseClient
  readonly admin: ClickHouseClient
  readonly #cluster: Cluster | undefined
  /** The admin's way to each server of a cluster without Keeper; else the one that there is. */
  readonly #servers: readonly ClickHouseClient[]
  readonly #limits: ClickHouseSettings
  readonly #assertWritten: (() => void) | undefined
  readonly #onBrokenPart: (() => void) | undefined
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
      max_open_connections: MAX_EXPORTS,
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
    this.admin = seen(createClient(asAdmin), 'admin')
    const urls = options.cluster?.urls ?? []
    this.#servers = urls.length === 0 ? [this.admin] : urls.map((url) => seen(createClient({ ...asAdmin, url }), 'admin'))
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
  async read<Row>(
    asker: Asker,
    name: string,
    sql: TenantSql,
    params: Record<string, unknown> = {},
    settings: ClickHouseSettings = {},
  ): Promise<Row[]> {
    const additional_table_filters = this.#tenantFilters(asker.tenant, sql)
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
  async stream(
    asker: Asker,
    name: string,
    sql: TenantSql,
    format: StreamFormat,
    params: Record<string, unknown> = {},
  ): Promise<AsyncIterableIterator<Uint8Array>> {
    const additional_table_filters = this.#tenantFilters(asker.tenant, sql)
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
    if (error instanceof ClickHouseError && BROKEN_PART.has(error.code)) this.#onBrokenPart?.()
  }

  /** Second lock on the same door: ClickHouse itself adds the tenant to every table that the query reads. */
  #tenantFilters(tenant: TenantKey, sql: TenantSql): SettingsMap {
    const filter = `tenant = ${keyLiteral(tenant)}`
    // Each costs ClickHouse 0.1 ms, so only those the text names.
    const named = TENANT_TABLES.filter((table) => sql.includes(table))
    // On a cluster in both places, where rows are gathered and where they lie: either would do.
    const tables = this.#cluster ? named.flatMap((table) => [table, localTable(table)]) : named
    return tableFilters(Object.fromEntries(tables.map((table) => [`${this.#database}.${table}`, filter])))
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
   * @throws ApiError 503 where what was written may have been cut off (disk-watch.ts)
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

  /** Whether the tables lie on the servers of a cluster. */
  get isClustered(): boolean {
    return this.#cluster !== undefined
  }

  /** Deletes rows of a table for good, on every shard; returns when none is left. */
  deleteRows(table: string, where: string, params: Record<string, unknown> = {}): Promise<void> {
    return this.#change(table, `DELETE WHERE ${where}`, params)
  }

  /** Changes columns of rows, on every shard; returns when all of them are changed. */
  updateRows(table: string, columns: string, where: string, params: Record<string, unknown> = {}): Promise<void> {
    return this.#change(table, `UPDATE ${columns} WHERE ${where}`, params)
  }

  /** What makes a statement that is sent to one server reach all of them, where Keeper is there to see to that. */
  get #onCluster(): string {
    return this.#cluster?.urls.length === 0 ? ` ON CLUSTER ${this.#cluster.name}` : ''
  }

  async #change(table: string, change: string, params: Record<string, unknown>): Promise<void> {
    const on = this.#onCluster
    if (on) {
      // A statement for a server that is down stays in Keeper's queue, and would delete later what has been written anew
      // by then. So first one that does no harm, which fails where a server is missing.
      await this.admin.command({
        query: `CREATE DATABASE IF NOT EXISTS ${this.#database}${on}`,
        clickhouse_settings: { distributed_ddl_task_timeout: '5', distributed_ddl_output_mode: 'throw' },
      })
    }
    const local = this.#cluster ? localTable(table) : table
    for (const server of this.#servers) {
      // ClickHouse waits in silence for space to write the largest part anew, and a tenth more (26.7).
      if (await this.#holdsOfParts(server, local, 'max(1.1 * parts.bytes_on_disk > disks.unreserved_space)')) {
        throw unavailable('The analytics store has no space left.', 5, new Error(`no space to change rows of ${table}`))
      }
      await server.command({
        query: `ALTER TABLE ${local}${on} ${change}`,
        query_params: params,
        clickhouse_settings: { mutations_sync: '1', wait_end_of_query: 1 },
      })
    }
  }

  /**
   * Merges all parts of a table into one, on every server where they take up to so many bytes together and the disk has room
   * to spare: a merge on a full disk can leave a part that cannot be read (26.7). Returns when that is done; questions and
   * inserts go on meanwhile.
   */
  async mergeParts(table: string, maxBytes: number): Promise<void> {
    const local = this.#cluster ? localTable(table) : table
    for (const server of this.#servers) {
      const due = `count() > 1 AND sum(parts.bytes_on_disk) <= {maxBytes:UInt64}
        AND 2 * sum(parts.bytes_on_disk) + {spare:UInt64} < min(disks.unreserved_space)`
      if (!(await this.#holdsOfParts(server, local, due, { maxBytes, spare: SPARE_BYTES }))) continue
      await server.command({ query: `OPTIMIZE TABLE ${local}${this.#onCluster} FINAL`, clickhouse_settings: { wait_end_of_query: 1 } })
    }
  }

  /** Whether a condition holds of all parts of a server's table together, each beside the disk it lies on. */
  async #holdsOfParts(server: ClickHouseClient, local: string, condition: string, params: Record<string, unknown> = {}): Promise<boolean> {
    const result = await server.query({
      query: `SELECT ${condition} AS holds
        FROM system.parts AS parts JOIN system.disks AS disks ON disks.name = parts.disk_name
        WHERE parts.active AND parts.database = currentDatabase() AND parts.table = {local:String}`,
      query_params: { local, ...params },
      format: 'JSONEachRow',
    })
    const [row] = await result.json<{ holds: number }>()
    return row?.holds === 1
  }

  /** The present on ClickHouse's clock, epoch milliseconds. */
  async now(): Promise<number> {
    const [row] = await this.readInternal<{ now: number }>('now', 'SELECT toUnixTimestamp64Milli(now64(3)) AS now')
    return row?.now ?? 0
  }

  /** The hash (src/ingest/event-id-filter.ts) of every event received since an instant, in no order. */
  async hashesOfIds(each: (hash: number) => void, since = 0): Promise<void> {
    const query = startQuery('ids', `ids-${randomUUID()}`)
    let headers: Headers | undefined
    try {
      headers = await this.#hashesOfIds(query.id, each, since)
    } finally {
      this.#tell(finished(query, headers ? 'ok' : 'failed', headers))
    }
  }

  async #hashesOfIds(query_id: string, each: (hash: number) => void, since: number): Promise<Headers> {
    const result = await this.#reader.exec({
      query: `SELECT ${ID_HASH} FROM events
        WHERE received_at >= {since:DateTime64(3, 'UTC')} FORMAT RowBinary`,
      query_id,
      query_params: { since: dateTime64(since) },
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

  /**
   * Shards that do not answer within a second, such as `2 (clickhouse-2-1, clickhouse-2-2)`. Where one takes connections
   * and nothing more, they cannot be told apart: then `one of …`. Empty where all answer, and where there is no cluster.
   * @throws where the server that is asked is out of reach itself
   */
  async missingShards(): Promise<string[]> {
    if (!this.#cluster) return []
    const hosts = await this.adminRows<{ shard: number; hosts: string[] }>(
      `SELECT shard_num AS shard, groupUniqArray(host_name) AS hosts FROM system.clusters WHERE cluster = {name:String}
       GROUP BY shard ORDER BY shard`,
      { name: this.#cluster.name },
    )
    const shards = hosts.map(({ shard, hosts: names }) => ({ shard, text: `${shard} (${names.toSorted().join(', ')})` }))
    const asked = this.#reader
      .query({
        query: 'SELECT DISTINCT _shard_num AS shard FROM shards',
        format: 'JSONEachRow',
        clickhouse_settings: { skip_unavailable_shards: 1 },
        abort_signal: AbortSignal.timeout(MISSING_AFTER_MS),
      })
      .then((result) => result.json<{ shard: number }>())
      .catch(() => null)
    // The signal alone was seen to end an answer that had begun a second late.
    const answering = await Promise.race([asked, sleep(MISSING_AFTER_MS, null, { ref: false })])
    if (!answering) return [`one of ${shards.map(({ text }) => text).join(', ')}`]
    return shards.filter(({ shard }) => !answering.some((row) => row.shard === shard)).map(({ text }) => text)
  }

  async close(): Promise<void> {
    const clients = new Set([this.#reader, this.#exporter, this.writer, this.admin, ...this.#servers])
    await Promise.all([...clients].map((client) => client.close()))
  }
}

/**
 * The bytes of an answer. ClickHouse 26.7 writes what goes wrong half way into it, behind a tag that the headers name,
 * and cuts the connection: that text is the log's and never the caller's.
 */
function bytesOf(
  stream: Readable,
  tag: string,
  signal: AbortSignal | undefined,
  onEnd: (outcome: FinishedQuery['outcome']) => void,
): AsyncIterableIterator<Uint8Array> {
  let stopped = false
  let whole = false
  let told = false
  const tell = (outcome: FinishedQuery['outcome']) => {
    if (!told) onEnd(outcome)
    told = true
  }
  const stop = () => {
    stopped = true
    stream.destroy()
  }
  signal?.addEventListener('abort', stop, { once: true })
  if (signal?.aborted) stop()
  const mark = Buffer.from(`\r\n__exception__\r\n${tag}`)
  async function* all(): AsyncGenerator<Uint8Array> {
    // The end of a chunk may be the beginning of the mark.
    let held: Buffer = Buffer.alloc(0)
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        const bytes = held.length > 0 ? Buffer.concat([held, chunk]) : chunk
        const at = tag === '' ? -1 : bytes.indexOf(mark)
        if (at !== -1) throw new Error(bytes.subarray(at, at + 2_000).toString())
        const begin = bytes.indexOf(mark[0] as number, Math.max(0, bytes.length - mark.length))
        const safe = begin === -1 ? bytes.length : begin
        if (safe > 0) yield bytes.subarray(0, safe)
        held = bytes.subarray(safe)
      }
      whole = !stopped
      if (held.length > 0 && !stopped) yield held
    } catch (error) {
      // To be stopped is no failure: nobody is there to be told.
      if (!stopped) throw error
    } finally {
      signal?.removeEventListener('abort', stop)
      stream.destroy()
      tell(whole ? 'ok' : stopped ? 'cancelled' : 'failed')
    }
  }
  const chunks = all()
  return {
    [Symbol.asyncIterator]() {
      return this
    },
    next: () => chunks.next(),
    // A generator would finish the step it is in first, and ClickHouse may be long about that.
    return() {
      stop()
      // One that never began to be read has no `finally` to go through.
      tell(whole ? 'ok' : 'cancelled')
      return chunks.return(undefined)
    },
  }
}

function parseRows<Row>(text: string): Row[] {
  const lines = text.split('\n')
  const names = JSON.parse(lines[0] ?? '[]') as string[]
  const rows: Row[] = []
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i]
    if (!line) continue
    const values = JSON.parse(line) as unknown[]
    rows.push(Object.fromEntries(names.map((name, at) => [name, values[at]])) as Row)
  }
  return rows
}

/** ClickHouse takes 128 KiB a parameter (http_max_field_value_size), and no query can raise that. */
const MAX_PARAMETER_BYTES = 120_000

/** What the client writes with a backslash. */
const ESCAPED = /[\\'\t\n\r]/g

/** A long list in slices that each fit into a parameter, whatever its texts hold. */
export function* slices<T extends string | number>(list: readonly T[]): Generator<T[]> {
  let slice: T[] = []
  let bytes = 0
  for (const item of list) {
    // Two quotes, a comma, and a backslash before each character that needs one.
    const more = Buffer.byteLength(String(item)) + (String(item).match(ESCAPED)?.length ?? 0) + 3
    if (bytes + more > MAX_PARAMETER_BYTES) {
      yield slice
      slice = []
      bytes = 0
    }
    slice.push(item)
    bytes += more
  }
  if (slice.length > 0) yield slice
}

/** The setting `additional_table_filters`, by table. The client writes a map without escaping what is in it. */
export const tableFilters = (filters: Readonly<Record<string, string>>): SettingsMap =>
  SettingsMap.from(
    Object.fromEntries(Object.entries(filters).map(([table, filter]) => [table, filter.replace(/[\\']/g, '\\$&')])),
  )

/** An instant as text, the one form that every ClickHouse parser of DateTime64(3, 'UTC') reads. */
export const dateTime64 = (instant: number): string => new Date(instant).toISOString().slice(0, 23).replace('T', ' ')

/** Turns what the client throws into an answer that shows no SQL and no server text. */
export function asApiError(error: unknown): unknown {
  if (error instanceof ApiError) return error
  if (error instanceof ClickHouseError) {
    const reason = TOO_EXPENSIVE[error.code]
    if (reason) {
      return new ApiError(400, 'too_expensive', `This question ${reason}; ask for a shorter range or fewer filters.`, { cause: error })
    }
    // 202 too many simultaneous queries, 209/210 network, 242 read only, 243 no space, 252 too many parts, ...
    return unavailable('The analytics store cannot answer right now.', 1, error)
  }
  return unavailable('The analytics store is out of reach.', 1, error)
}
