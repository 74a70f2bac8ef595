/**
 * How rows get into ClickHouse: as one block with one token, through every view, under the writer lease, and sent again
 * while the lease lasts, whatever becomes of ClickHouse in between.
 */
import { ClickHouseError, type ClickHouseSettings } from '@clickhouse/client'
import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from '../clickhouse/store.ts'
import {
  ARRIVED_IN_TIME,
  insertId,
  isRefusedByLease,
  LeaseLostError,
  type Term,
  type WriterLease,
} from '../clickhouse/writer-lease.ts'
import type { TenantKey } from '../domain/tenant.ts'
import type { Log } from '../log.ts'
import { completeEvents } from './repair-insert.ts'
import type { Event } from '../domain/event.ts'
import type { Entry, Insert } from './journal.ts'
import type { Removals } from '../maintenance/erasure.ts'
import type { Seals } from '../maintenance/compaction.ts'
import { dateTime64 } from '../clickhouse/parameters.ts'

/** With two seconds between two tries this is a few minutes. */
export const MAX_COMPLETIONS = 150

/**
 * Columns of a row of `events` as it is sent, in order, with their types in clickhouse/002_events.sql; `eventRow` writes one.
 * `term` is the same for all rows of an insert and comes from its statement.
 */
export const EVENT_COLUMNS = {
  tenant: 'UUID',
  timestamp: "DateTime64(3, 'UTC')",
  id: 'String',
  event_type: "Enum8('incomingMessages' = 1, 'outgoingMessages' = 2, 'tasksInitiated' = 3, 'tasksCompleted' = 4)",
  assistant: 'LowCardinality(String)',
  user: 'String',
  assistant_no: 'UInt32',
  user_no: 'UInt32',
  cost_nanos: 'UInt64',
  input_tokens: 'UInt32',
  output_tokens: 'UInt32',
  model: 'LowCardinality(String)',
  trace_id: 'String',
  metadata: 'String',
  late_levels: 'UInt8',
} as const

const EVENT_NAMES = Object.keys(EVENT_COLUMNS)

/** Where each column stands in a row. */
const AT = Object.fromEntries(EVENT_NAMES.map((name, at) => [name, at])) as Record<keyof typeof EVENT_COLUMNS, number>

/**
 * Written as a SELECT so that ClickHouse looks at the lease when all rows have arrived. `{until:String}` and
 * `{term:UInt64}` are parameters.
 */
const INSERT_EVENTS = `INSERT INTO events (${EVENT_NAMES.join(', ')}, term)
SELECT ${EVENT_NAMES.join(', ')}, {term:UInt64}
FROM input('${Object.entries(EVENT_COLUMNS)
  .map(([name, type]) => `${name} ${type.replaceAll("'", "''")}`)
  .join(', ')}')
WHERE ${ARRIVED_IN_TIME}
FORMAT JSONCompactEachRow`

const INSERT_ANSWERS = 'INSERT INTO answers (tenant, key, body, answer) FORMAT JSONCompactEachRow'

/** One block, one token, every view: see clickhouse/002_events.sql. */
const INSERT_SETTINGS: ClickHouseSettings = {
  async_insert: 0,
  insert_deduplicate: 1,
  deduplicate_blocks_in_dependent_materialized_views: 1,
  max_block_size: '1048576',
  max_insert_block_size: '1048576',
  min_insert_block_size_rows: '1048576',
  min_insert_block_size_bytes: '1073741824',
  input_format_parallel_parsing: 0,
  optimize_on_insert: 0,
  parallel_view_processing: 1,
  max_execution_time: 10,
  wait_end_of_query: 1,
}

export interface InsertsOptions {
  readonly store: Store
  readonly seals: Seals
  readonly lease: WriterLease
  readonly removals: Removals
  readonly log: Log
}

export class Inserts {
  readonly #options: InsertsOptions

  constructor(options: InsertsOptions) {
    this.#options = options
  }

  /**
   * Sends rows once: of events under a term of the lease, of answers under none, since they are told apart by their key.
   * @throws LeaseLostError where ClickHouse refused them because the term was over; they are not stored then
   */
  async #send({ token, table, rows }: Insert, { number, until }: Term): Promise<void> {
    const { writer, database } = this.#options.store
    try {
      const result = await writer.exec({
        query: table === 'events' ? INSERT_EVENTS : INSERT_ANSWERS,
        // A stream of its one chunk: in one text with the query, megabytes would be there twice.
        values: Readable.from([Buffer.from(rows)], { objectMode: false }),
        query_id: table === 'events' ? insertId(database) : `insert_${table}-${randomUUID()}`,
        query_params: table === 'events' ? { term: number, until } : {},
        clickhouse_settings: {
          ...INSERT_SETTINGS,
          ...(table === 'events' ? { insert_deduplication_token: token } : { insert_deduplicate: 0 }),
        },
      })
      result.stream.resume()
    } catch (error) {
      if (isRefusedByLease(error)) throw new LeaseLostError('the writer lease was over when the rows arrived', { cause: error })
      throw error
    }
  }

  /**
   * Sends the inserts of a group until they are stored, as long as the lease lasts.
   * @param terms every term under which events were sent is added to these
   * @throws LeaseLostError where it ended before that: whether the events are stored has to be looked up then
   */
  async store(inserts: readonly Insert[], terms: Set<number>): Promise<void> {
    const { lease, log } = this.#options
    for (const insert of inserts) {
      let again = false
      let completions = 0
      for (let wait = 50; ; wait = Math.min(wait * 2, 2_000)) {
        try {
          const term = await lease.extend()
          terms.add(term.number)
          await this.#send(insert, term)
          if (again && insert.table === 'events') await this.complete(insert, ++completions)
          break
        } catch (error) {
          if (error instanceof LeaseLostError) throw error
          log('error', 'an insert failed and is sent again', { table: insert.table, error: reasonOf(error) })
          again = true
          await sleep(wait)
        }
      }
    }
  }

  /**
   * Stores what is missing of a group that an earlier run had journalled, and tries once. Nobody else can be storing it: the
   * lease was acquired since.
   * @throws UnusableEntryError where it holds something else than rows of these tables, and where ClickHouse cannot read them
   */
  async recover({ inserts }: Entry): Promise<void> {
    for (const insert of inserts) assertRows(insert)
    try {
      for (const insert of inserts) {
        if (insert.table === 'events') await this.#complete(await this.#withoutRemoved(insert))
        else await this.#send(insert, await this.#options.lease.extend())
      }
    } catch (error) {
      if (UNREADABLE.has(codeOf(error)))
        throw new UnusableEntryError(`ClickHouse cannot read its rows: ${reasonOf(error)}`, { cause: error })
      throw error
    }
  }

  /** The insert without the names of users who were removed since it was written. */
  async #withoutRemoved(insert: Insert): Promise<Insert> {
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

  /**
   * See repair-insert.ts. What cannot be put right in minutes is left to `npm run reconcile`: it must not stop everything.
   * @throws LeaseLostError where the lease ended before the end
   */
  async complete(insert: Insert, attempt: number): Promise<void> {
    try {
      await this.#complete(insert)
    } catch (error) {
      if (error instanceof LeaseLostError || attempt < MAX_COMPLETIONS) throw error
      this.#options.log('error', 'an insert was cut off and cannot be put right: run npm run reconcile', {
        error: reasonOf(error),
      })
    }
  }

  async #complete(insert: Insert): Promise<void> {
    const { store, seals, lease, log } = this.#options
    const { events, days } = await completeEvents(store, seals, lease, insert.rows, async (rows) =>
      this.#send({ ...insert, rows, token: randomUUID() }, await lease.extend()),
    )
    if (events + days > 0) log('warn', 'an insert was cut off and had to be put right', { events, days })
  }
}

/** An entry of the journal that can never be stored; `message` says why. */
export class UnusableEntryError extends Error {
  override name = 'UnusableEntryError'
}

/** How many values a row has, by table. */
const WIDTHS: Readonly<Record<string, number>> = { events: EVENT_NAMES.length, answers: 4 }

/** @throws UnusableEntryError where a line of an insert is no row of its table */
function assertRows({ table, rows }: Insert): void {
  const width = WIDTHS[table]
  if (width === undefined) throw new UnusableEntryError(`it is for a table that nothing is stored in: ${table}`)
  for (const [at, line] of rows.split('\n').entries()) {
    let row: unknown
    try {
      row = JSON.parse(line)
    } catch (error) {
      throw new UnusableEntryError(`row ${at + 1} of ${table} is not JSON`, { cause: error })
    }
    if (!Array.isArray(row) || row.length !== width)
      throw new UnusableEntryError(`row ${at + 1} of ${table} has not ${width} values`)
  }
}

/** ClickHouse's error codes for values that it cannot read as what they should be; sent again they are no other values. */
const UNREADABLE: ReadonlySet<string | undefined> = new Set([
  '6',
  '26',
  '27',
  '38',
  '41',
  '53',
  '70',
  '72',
  '117',
  '376',
  '457',
  '691',
])

/** ClickHouse's error code, also of a refusal that hides it. */
export const codeOf = (error: unknown): string | undefined => {
  const { cause, code } = (error ?? {}) as { cause?: unknown; code?: string }
  return cause instanceof ClickHouseError ? cause.code : error instanceof ClickHouseError ? code : undefined
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
