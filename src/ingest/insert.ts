/**
 * How rows get into ClickHouse: as one block with one token, through every view, and sent again until they are stored,
 * whatever becomes of ClickHouse, of this process and of the lane in between.
 */
import type { ClickHouseSettings } from '@clickhouse/client'
import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { dateTime64, slices, type Store } from '../clickhouse/store.ts'
import type { TenantKey } from '../domain/tenant.ts'
import type { Log } from '../log.ts'
import { completeEvents } from './repair-insert.ts'
import type { Event } from './check-event.ts'
import type { Entry, Insert } from './journal.ts'
import type { Lane } from '../clickhouse/writer-lease.ts'
import type { Removals } from '../maintenance/erasure.ts'
import type { Seals } from '../maintenance/compaction.ts'

/** With two seconds between two tries this is a few minutes. */
const MAX_COMPLETIONS = 150

/** Columns of a row of `events` as it is inserted; `eventRow` writes one. */
export const EVENT_COLUMNS = [
  'tenant',
  'timestamp',
  'id',
  'event_type',
  'assistant',
  'user',
  'assistant_no',
  'user_no',
  'cost_nanos',
  'input_tokens',
  'output_tokens',
  'model',
  'trace_id',
  'metadata',
  'late_levels',
] as const

/** Where each column stands in a row. */
const AT = Object.fromEntries(EVENT_COLUMNS.map((name, at) => [name, at])) as Record<(typeof EVENT_COLUMNS)[number], number>

/** One block, one token, every view: see clickhouse/002_events.sql. */
const INSERT_SETTINGS: ClickHouseSettings = {
  async_insert: 0,
  insert_deduplicate: 1,
  deduplicate_blocks_in_dependent_materialized_views: 1,
  max_insert_block_size: '1048576',
  min_insert_block_size_rows: '1048576',
  min_insert_block_size_bytes: '1073741824',
  input_format_parallel_parsing: 0,
  optimize_on_insert: 0,
  parallel_view_processing: 1,
  // Within a turn of the lane; see LONGEST_INSERT_MS.
  max_execution_time: 10,
  wait_end_of_query: 1,
}

export interface InsertsOptions {
  readonly store: Store
  readonly seals: Seals
  readonly lane: Lane
  readonly removals: Removals
  readonly log: Log
}

export class Inserts {
  readonly #options: InsertsOptions

  constructor(options: InsertsOptions) {
    this.#options = options
  }

  /** Sends an insert once. */
  async send({ token, table, columns, rows }: Insert): Promise<void> {
    const { writer } = this.#options.store
    const result = await writer.exec({
      query: `INSERT INTO ${table} (${columns.join(', ')}) FORMAT JSONCompactEachRow`,
      // A stream of its one chunk: in one text with the query, megabytes would be there twice.
      values: Readable.from([Buffer.from(rows)], { objectMode: false }),
      query_id: `insert_${table}-${randomUUID()}`,
      clickhouse_settings: {
        ...INSERT_SETTINGS,
        insert_deduplication_token: token,
        // Answers are told apart by their key, whatever became of the token.
        ...(table === 'answers' ? { insert_deduplicate: 0 } : {}),
      },
    })
    result.stream.resume()
  }

  /** Journalled inserts are sent until they are stored: nothing else can be known about them. */
  async sendUntilStored({ epoch, inserts }: Entry, sentBefore?: 'sent before'): Promise<void> {
    const { lane, log } = this.#options
    for (let insert of inserts) {
      let again = sentBefore !== undefined
      let completions = 0
      for (let wait = 50; ; wait = Math.min(wait * 2, 2_000)) {
        try {
          const turn = await lane.enter()
          if (turn.epoch !== epoch && (await this.#storedByOthers(insert, epoch))) {
            log('error', 'events were stored by another instance while this one could not: run npm run reconcile', {
              table: insert.table,
            })
            return
          }
          if (again || turn.epoch !== epoch) insert = await this.#withoutRemoved(insert)
          await this.send(insert)
          if (again && insert.table === 'events') await this.#complete(insert, ++completions)
          break
        } catch (error) {
          log('error', 'an insert failed and is sent again', { table: insert.table, error: reasonOf(error) })
          again = true
          await sleep(wait)
        }
      }
    }
  }

  /** The insert without the names of users who were removed since it was written. */
  async #withoutRemoved(insert: Insert): Promise<Insert> {
    if (insert.table !== 'events') return insert
    const rows = insert.rows.split('\n').map((line) => JSON.parse(line) as unknown[])
    const users = new Map<TenantKey, Set<number>>()
    for (const row of rows) {
      const tenant = row[AT.tenant] as TenantKey
      users.set(tenant, (users.get(tenant) ?? new Set()).add(row[AT.user_no] as number))
    }
    for (const [tenant, numbers] of users) {
      const removed = await this.#options.removals.among(tenant, [...numbers])
      if (removed.size === 0) continue
      for (const row of rows) {
        if (row[AT.tenant] === tenant && removed.has(row[AT.user_no] as number)) {
          for (const column of [AT.user, AT.trace_id, AT.metadata]) row[column] = ''
        }
      }
    }
    return { ...insert, rows: rows.map((row) => JSON.stringify(row)).join('\n') }
  }

  /** See complete.ts. What cannot be put right in minutes is left to `npm run reconcile`: it must not stop everything. */
  async #complete(insert: Insert, attempt: number): Promise<void> {
    const { store, seals, log } = this.#options
    try {
      const { events, days } = await completeEvents(store, seals, insert.rows, (rows) =>
        this.send({ ...insert, rows, token: randomUUID() }),
      )
      if (events + days > 0) log('warn', 'an insert was cut off and had to be put right', { events, days })
    } catch (error) {
      if (attempt < MAX_COMPLETIONS) throw error
      log('error', 'an insert was cut off and cannot be put right: run npm run reconcile', { error: reasonOf(error) })
    }
  }

  /**
   * Whether a caller, refused here, has meanwhile stored some of these events through another instance. Then they must
   * not be sent again; rollups that the first attempt reached alone would be too high, which reconcile repairs.
   */
  async #storedByOthers({ table, rows }: Insert, epoch: number): Promise<boolean> {
    const since = await this.#options.lane.takenOver(epoch)
    if (since === null || table !== 'events') return false
    const byTenant = new Map<TenantKey, string[]>()
    for (const line of rows.split('\n')) {
      const [tenant, , id] = JSON.parse(line) as [TenantKey, string, string]
      const ids = byTenant.get(tenant) ?? []
      ids.push(id)
      byTenant.set(tenant, ids)
    }
    for (const [tenant, ids] of byTenant) {
      for (const slice of slices(ids)) {
        const [row] = await this.#options.store.readInternal<{ stored: number }>(
          'events_of_others',
          `SELECT count() AS stored FROM events
           WHERE tenant = {tenant:UUID} AND id IN {ids:Array(String)} AND received_at >= {since:DateTime64(3, 'UTC')}
           SETTINGS min_table_rows_to_use_projection_index = 0`,
          { tenant, ids: slice, since: dateTime64(since) },
        )
        if (row && row.stored > 0) return true
      }
    }
    return false
  }
}

/** Refusals for callers hide what is behind them. */
export const reasonOf = (error: unknown): string => String((error as Error).cause ?? error)

/** An event as a line of JSONCompactEachRow, with the columns of EVENT_COLUMNS. */
export const eventRow = (event: Event, tenant: TenantKey, assistant: number, user: number, late: number): string =>
  JSON.stringify([
    tenant,
    dateTime64(event.timestamp),
    event.id,
    event.eventType,
    event.assistant,
    event.user,
    assistant,
    user,
    event.costNanos,
    event.inputTokens,
    event.outputTokens,
    event.model,
    event.traceId,
    event.metadata,
    late,
  ])
