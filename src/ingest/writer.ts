/**
 * The one lane through which events are stored. Batches of many callers are grouped; each group is checked against what is
 * stored, journalled, and inserted as one block with one token. Because groups follow each other, an id is either in an
 * earlier group, in this one, or new: that is what makes counting exactly once possible at all.
 */
import type { ClickHouseSettings } from '@clickhouse/client'
import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { lateLevels } from '../analytics/levels.ts'
import { dateTime64, slices, type Store } from '../clickhouse/store.ts'
import { unavailable } from '../http/errors.ts'
import type { NameKind, Names } from '../names.ts'
import { toIso } from '../time/calendar.ts'
import type { Seals } from './seals.ts'
import type { Event } from './event.ts'
import { completeEvents } from './complete.ts'
import { IdFilter, idHash } from './id-filter.ts'
import type { Entry, Insert, Journal } from './journal.ts'
import { LONGEST_INSERT_MS, type Lane } from './lane.ts'
import type { Removals } from './removals.ts'
import type { Retention } from './retention.ts'

export interface Rejection {
  /** Position in the caller's batch, from 0. */
  index: number
  message: string
}

/** What became of a batch; accepted + duplicates + rejected.length is its size. */
export interface Receipt {
  accepted: number
  duplicates: number
  rejected: Rejection[]
}

/** A batch of one tenant: checked events with their positions, and what was refused already. */
export interface Batch {
  readonly tenant: string
  readonly events: ReadonlyArray<{ index: number; event: Event }>
  readonly rejected: readonly Rejection[]
  /** Remembers the receipt under an Idempotency-Key, in the same journalled step as the events. */
  readonly answer?: { key: string; body: string } | undefined
}

interface Waiting {
  readonly batch: Batch
  readonly resolve: (receipt: Receipt) => void
  readonly reject: (error: unknown) => void
  readonly since: number
  readonly origin: unknown
}

/** What is told of a group of batches before it is stored. */
export interface Group {
  readonly events: number
  /** How long each batch has waited, milliseconds. */
  readonly waitedMs: readonly number[]
  /** What `GroupObserver.origin` gave for each batch. */
  readonly origins: readonly unknown[]
}

/** Looks on while groups of events are stored, for metrics and traces. */
export interface GroupObserver {
  /** Called when a batch is queued. */
  origin(): unknown
  /** Runs `work`, which stores the group: one receipt a batch, or undefined where it could not be stored. */
  group(group: Group, work: () => Promise<readonly Receipt[] | undefined>): Promise<unknown>
}

/** Rows a group holds at most: one block of ClickHouse, so that the insert is one atomic part. */
const MAX_GROUP_EVENTS = 50_000
const SEAL_CHECK_MS = 5_000
/** How long a group waits for callers that were answered a moment ago. */
const GATHER_MS = 25
/** How long the lane is kept without work. */
const LINGER_MS = 50
/** With two seconds between two tries this is a few minutes. */
const MAX_COMPLETIONS = 150
/** A caller waits this long for its batch to be stored, then is told to come back; what is journalled is stored all the same. */
const PATIENCE_MS = 10_000

const EVENT_COLUMNS = [
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

export interface WriterOptions {
  store: Store
  names: Names
  journal: Journal
  seals: Seals
  lane: Lane
  removals: Removals
  retention: Retention
  filterMegabytes: number
  /** Told before the callers are: these events of a tenant are now in every table. */
  onStored?: (tenant: number, timestamps: readonly number[]) => void
  observer?: GroupObserver
  log: (level: 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>) => void
}

export class Writer {
  readonly #options: WriterOptions
  readonly #filter: IdFilter
  readonly #queue: Waiting[] = []
  /** Highest number handed out, by tenant and kind. */
  readonly #lastNumber = new Map<string, number>()
  /** Upkeep that must not overlap with an insert. */
  readonly #upkeep: Array<() => Promise<void>> = []
  #wake: () => void = () => {}
  #closing = false
  /** Batches that were answered last, and those that waited already: so many come together if everybody sends another. */
  #expected = 0
  #running: Promise<void> | undefined
  /** False while a journalled group cannot be stored: nothing may pass it, so new batches are refused at once. */
  #healthy = true
  #reaper: NodeJS.Timeout | undefined
  /** Up to when, on ClickHouse's clock, the id filter knows what other instances stored; `#behind` asks for a look. */
  #seenUntil = 0
  #behind = false

  constructor(options: WriterOptions) {
    this.#options = options
    this.#filter = new IdFilter(options.filterMegabytes)
  }

  /** Completes what an earlier run left half done, then starts taking batches. */
  async start(): Promise<void> {
    const { journal, log, seals, removals, retention } = this.#options
    await seals.load()
    await removals.learn()
    await retention.load()
    for (const entry of await journal.pending()) {
      log('warn', 'completing an insert of an earlier run', { name: entry.name })
      await this.#insertUntilStored(entry, 'sent before')
      await journal.remove(entry.name)
    }
    this.#running = this.#run()
    this.#reaper = setInterval(() => this.#refuseImpatient(), 1_000).unref()
    void this.#loadFilter()
  }

  /** Events waiting or being stored, for health figures. */
  get queued(): number {
    return this.#queue.reduce((sum, { batch }) => sum + batch.events.length, 0)
  }

  /** False while the ids of earlier runs are being read, and each event is looked up. */
  get filterComplete(): boolean {
    return this.#filter.isComplete
  }

  get healthy(): boolean {
    return this.#healthy
  }

  /**
   * Stores a batch. Resolves when every accepted event is written in ClickHouse, in all tables.
   * @throws ApiError 503 where that cannot be said within PATIENCE_MS; the batch may or may not be stored by then, and
   * sending it again with the same ids is safe
   */
  submit(batch: Batch): Promise<Receipt> {
    if (this.#closing) throw unavailable('The service is shutting down.', 2)
    if (!this.#healthy) throw unavailable('Events cannot be stored right now.', 2)
    return new Promise((resolve, reject) => {
      const origin = this.#options.observer?.origin()
      this.#queue.push({ batch, resolve, reject, since: performance.now(), origin })
      this.#wake()
    })
  }

  /** Runs work between two groups of events, when no insert is under way. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#upkeep.push(() => work().then(resolve, reject))
      this.#wake()
    })
  }

  /** Stores what is queued and stops. */
  async close(): Promise<void> {
    this.#closing = true
    this.#wake()
    await Promise.race([this.#running, sleep(PATIENCE_MS, undefined, { ref: false })])
    clearInterval(this.#reaper)
  }

  async #run(): Promise<void> {
    const { lane, log, seals } = this.#options
    let sealAt = 0
    while (!this.#closing || this.#queue.length > 0) {
      const sealing = !this.#closing && performance.now() >= sealAt && seals.due
      if (performance.now() >= sealAt) sealAt = performance.now() + SEAL_CHECK_MS
      try {
        if (!sealing && this.#idle) {
          // Callers that wait for an answer send their next batch as soon as they have it: the lane is worth keeping for
          // a moment, since to give it up and take it again is two inserts.
          await this.#nextBatch(LINGER_MS)
          if (!this.#idle) continue
          await lane.leave()
          // Something may have come while the lane was given up.
          if (this.#idle && !this.#closing) await this.#nextBatch(sealAt - performance.now())
          continue
        }
        const turn = await lane.enter()
        if (!turn.kept || this.#behind || seals.doubtful) await this.#catchUp()
        // While spans are due they follow each other, but callers that wait go first.
        if (sealing && (await seals.advance())) sealAt = 0
        await this.#upkeep.shift()?.()
        await this.#gather()
        const group = this.#takeGroup()
        if (group.length > 0) await this.#observed(group, () => this.#storeGroup(group, turn.epoch))
        this.#expected = group.length + this.#queue.length
      } catch (error) {
        log('error', 'the writer cannot go on and tries again', { error: reasonOf(error) })
        await sleep(200)
      }
    }
    await lane.leave().catch(() => {})
  }

  get #idle(): boolean {
    return this.#queue.length === 0 && this.#upkeep.length === 0
  }

  /**
   * Callers that were answered together are about to send their next batches: what comes within a moment goes with the
   * first of them, where it would wait for an insert of its own.
   */
  async #gather(): Promise<void> {
    if (this.#queue.length === 0) return
    const deadline = performance.now() + GATHER_MS
    while (this.#queue.length < this.#expected && performance.now() < deadline) {
      await this.#nextBatch(deadline - performance.now())
    }
  }

  #takeGroup(): Waiting[] {
    const group: Waiting[] = []
    let events = 0
    while (this.#queue.length > 0) {
      const next = this.#queue[0] as Waiting
      if (group.length > 0 && events + next.batch.events.length > MAX_GROUP_EVENTS) break
      group.push(next)
      events += next.batch.events.length
      this.#queue.shift()
    }
    return group
  }

  /** A caller is not kept waiting for ever: what is still queued after a while is refused. */
  #refuseImpatient(): void {
    const tooOld = performance.now() - PATIENCE_MS
    while (this.#queue[0] && this.#queue[0].since < tooOld) {
      this.#queue.shift()?.reject(unavailable('Events cannot be stored right now.', 2))
    }
  }

  #observed(group: readonly Waiting[], work: () => Promise<readonly Receipt[] | undefined>): Promise<unknown> {
    const { observer } = this.#options
    if (!observer) return work()
    const now = performance.now()
    return observer.group(
      {
        events: group.reduce((sum, { batch }) => sum + batch.events.length, 0),
        waitedMs: group.map(({ since }) => now - since),
        origins: group.map(({ origin }) => origin),
      },
      work,
    )
  }

  /** @returns what became of each batch; undefined where the group could not be stored and its callers know */
  async #storeGroup(group: readonly Waiting[], epoch: number): Promise<readonly Receipt[] | undefined> {
    const { journal, log, onStored } = this.#options
    // These events may still be on their way when their callers are sent off; a retry will find them.
    const impatient = setTimeout(() => {
      for (const { reject } of group) reject(unavailable('Events cannot be stored right now.', 2))
      this.#healthy = false
    }, PATIENCE_MS)
    try {
      const { inserts, receipts, added } = await this.#prepare(group)
      if (inserts.length > 0) {
        const entry = await journal.write(epoch, inserts)
        await this.#insertUntilStored(entry)
        for (const [tenant, events] of added) {
          for (const event of events) this.#filter.addHash(idHash(tenant, event.id))
          onStored?.(tenant, events.map(({ timestamp }) => timestamp))
        }
        await journal.remove(entry.name)
      }
      group.forEach(({ resolve }, at) => resolve(receipts[at] as Receipt))
      this.#healthy = true
      return receipts
    } catch (error) {
      // Nothing was sent, or it was given up: no figure of these events is in any table, and the next group may try.
      this.#healthy = true
      log('error', 'a group of events could not be stored', { error: reasonOf(error) })
      for (const { reject } of group) reject(unavailable('Events cannot be stored right now.', 2, error))
      await sleep(200)
      return undefined
    } finally {
      clearTimeout(impatient)
    }
  }

  /** Decides about every event of a group and writes out the rows to insert. */
  async #prepare(group: readonly Waiting[]) {
    const { seals, retention } = this.#options
    const tenantNumbers = await this.#numbersOf(0, 'tenant', group.map(({ batch }) => batch.tenant))
    const byTenant = new Map<number, Array<{ event: Event; index: number; receipt: Receipt }>>()
    const receipts = group.map(({ batch }) => {
      const receipt: Receipt = { accepted: 0, duplicates: 0, rejected: [...batch.rejected] }
      const tenant = tenantNumbers.get(batch.tenant) as number
      const list = byTenant.get(tenant) ?? []
      for (const { event, index } of batch.events) list.push({ event, index, receipt })
      byTenant.set(tenant, list)
      return receipt
    })

    const added = new Map<number, Event[]>()
    const lines: string[] = []
    for (const [tenant, items] of byTenant) {
      const stored = await this.#storedEvents(tenant, items.map(({ event }) => event.id))
      const seen = new Map<string, Event>()
      const fresh: Event[] = []
      for (const { event, index, receipt } of items) {
        const twin = seen.get(event.id) ?? stored.get(event.id)
        if (event.timestamp < retention.horizon) {
          receipt.rejected.push({ index, message: `timestamp is too old: nothing before ${toIso(retention.horizon)} is kept` })
        } else if (!twin) {
          seen.set(event.id, event)
          fresh.push(event)
          receipt.accepted++
        } else if (sameContent(twin, event)) receipt.duplicates++
        else receipt.rejected.push({ index, message: 'id was used before for an event with other content' })
      }
      const assistants = await this.#numbersOf(tenant, 'assistant', fresh.map(({ assistant }) => assistant))
      const users = await this.#numbersOf(tenant, 'user', fresh.map(({ user }) => user))
      for (const event of fresh) {
        lines.push(
          toLine(
            event,
            tenant,
            assistants.get(event.assistant) as number,
            users.get(event.user) as number,
            lateLevels(event.timestamp, seals.sealedUntil),
          ),
        )
      }
      added.set(tenant, fresh)
    }
    for (const receipt of receipts) receipt.rejected.sort((a, b) => a.index - b.index)

    const inserts: Insert[] = []
    const token = randomUUID()
    if (lines.length > 0) inserts.push({ token, table: 'events', columns: EVENT_COLUMNS, rows: lines.join('\n') })
    const answers = group.flatMap(({ batch }, at) =>
      batch.answer
        ? [JSON.stringify([tenantNumbers.get(batch.tenant), batch.answer.key, batch.answer.body, JSON.stringify(receipts[at])])]
        : [],
    )
    if (answers.length > 0) {
      inserts.push({ token, table: 'answers', columns: ['tenant', 'key', 'body', 'answer'], rows: answers.join('\n') })
    }
    return { inserts, receipts, added }
  }

  /** Those of the ids that are stored, with their events. */
  async #storedEvents(tenant: number, ids: readonly string[]): Promise<Map<string, Event>> {
    const doubtful = ids.filter((id) => this.#filter.mayHold(idHash(tenant, id)))
    const found = new Map<string, Event>()
    for (const slice of slices(doubtful)) {
      const rows = await this.#options.store.readInternal<Event>(
        'events_by_id',
        `SELECT id, event_type AS eventType, toUnixTimestamp64Milli(events.timestamp) AS timestamp, assistant, user,
           cost_nanos AS costNanos, input_tokens AS inputTokens, output_tokens AS outputTokens, model,
           trace_id AS traceId, metadata
         FROM events WHERE tenant = {tenant:UInt32} AND id IN {ids:Array(String)}
         SETTINGS min_table_rows_to_use_projection_index = 0`,
        { tenant, ids: slice },
      )
      for (const row of rows) found.set(row.id, row)
    }
    return found
  }

  /** The number of each name; names seen for the first time get the next ones, written before anything uses them. */
  async #numbersOf(tenant: number, kind: NameKind, all: readonly string[]): Promise<Map<string, number>> {
    const { names, store } = this.#options
    const result = new Map<string, number>()
    const unknown: string[] = []
    for (const name of all) {
      if (result.has(name)) continue
      const number = names.known(tenant, kind, name)
      result.set(name, number ?? 0)
      if (number === undefined) unknown.push(name)
    }
    const fresh: string[] = []
    const numbers = await names.numbers(tenant, kind, unknown)
    unknown.forEach((name, i) => (numbers[i] ? result.set(name, numbers[i]) : fresh.push(name)))
    if (fresh.length > 0) {
      const counter = `${tenant}/${kind}`
      let last = this.#lastNumber.get(counter)
      if (last === undefined) {
        const [row] = await store.readInternal<{ last: number }>(
          'names_last',
          // Nor is the number of somebody who was removed used again.
          `SELECT greatest((SELECT max(number) FROM names WHERE tenant = {tenant:UInt32} AND kind = {kind:String}),
             (SELECT max(user_no) FROM removals WHERE tenant = {tenant:UInt32} AND {kind:String} = 'user')) AS last`,
          { tenant, kind },
        )
        last = row?.last ?? 0
      }
      const first = last + 1
      // Numbers of a failed insert are not used again: it may have been written after all.
      this.#lastNumber.set(counter, last + fresh.length)
      await this.#insert({
        token: randomUUID(),
        table: 'names',
        columns: ['tenant', 'kind', 'name', 'number'],
        rows: fresh.map((name, i) => JSON.stringify([tenant, kind, name, first + i])).join('\n'),
      })
      fresh.forEach((name, i) => {
        names.remember(tenant, kind, name, first + i)
        result.set(name, first + i)
      })
    }
    return result
  }

  async #insert({ token, table, columns, rows }: Insert): Promise<void> {
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
  async #insertUntilStored({ epoch, inserts }: Entry, sentBefore?: 'sent before'): Promise<void> {
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
          await this.#insert(insert)
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
    const users = new Map<number, Set<number>>()
    for (const row of rows) {
      const tenant = row[AT.tenant] as number
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
        this.#insert({ ...insert, rows, token: randomUUID() }),
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
    const byTenant = new Map<number, string[]>()
    for (const line of rows.split('\n')) {
      const [tenant, , id] = JSON.parse(line) as [number, string, string]
      const ids = byTenant.get(tenant) ?? []
      ids.push(id)
      byTenant.set(tenant, ids)
    }
    for (const [tenant, ids] of byTenant) {
      for (const slice of slices(ids)) {
        const [row] = await this.#options.store.readInternal<{ stored: number }>(
          'events_of_others',
          `SELECT count() AS stored FROM events
           WHERE tenant = {tenant:UInt32} AND id IN {ids:Array(String)} AND received_at >= {since:DateTime64(3, 'UTC')}
           SETTINGS min_table_rows_to_use_projection_index = 0`,
          { tenant, ids: slice, since: dateTime64(since) },
        )
        if (row && row.stored > 0) return true
      }
    }
    return false
  }

  /** Learns what other instances stored since this one last looked. */
  async #catchUp(): Promise<void> {
    const { store, seals, removals, retention } = this.#options
    await seals.load()
    await removals.learn()
    await retention.load()
    this.#lastNumber.clear()
    if (!this.#filter.isComplete) return
    const now = await store.now()
    await store.hashesOfIds((hash) => this.#filter.addHash(hash), this.#seenUntil - LONGEST_INSERT_MS)
    this.#seenUntil = now
    this.#behind = false
  }

  /** Waits for a batch, or until the time is up. */
  #nextBatch(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(ms, 0))
      timer.unref()
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** Fills the id filter with what earlier runs stored; until then every id is looked up. */
  async #loadFilter(): Promise<void> {
    while (!this.#closing && !this.#filter.isComplete) {
      try {
        const { store } = this.#options
        this.#seenUntil = await store.now()
        await store.hashesOfIds((hash) => this.#filter.addHash(hash))
        this.#filter.complete()
        this.#behind = true
      } catch (error) {
        this.#options.log('warn', 'the id filter could not be filled yet', { error: reasonOf(error) })
        await sleep(1_000, undefined, { ref: false })
      }
    }
  }
}

/** Refusals for callers hide what is behind them. */
const reasonOf = (error: unknown): string => String((error as Error).cause ?? error)

/** Whether an event is the stored one; of somebody who was removed, as far as it can still be told. */
const sameContent = (stored: Event, sent: Event): boolean =>
  isEqual(stored, stored.user === '' ? { ...sent, user: '', traceId: '', metadata: '' } : sent)

const isEqual = (a: Event, b: Event): boolean =>
  a.timestamp === b.timestamp &&
  a.eventType === b.eventType &&
  a.assistant === b.assistant &&
  a.user === b.user &&
  a.costNanos === b.costNanos &&
  a.inputTokens === b.inputTokens &&
  a.outputTokens === b.outputTokens &&
  a.model === b.model &&
  a.traceId === b.traceId &&
  a.metadata === b.metadata

const toLine = (event: Event, tenant: number, assistant: number, user: number, late: number): string =>
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
