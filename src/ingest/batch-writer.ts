/**
 * Stores events, one group after the other. Batches of many callers are grouped; each group is compared with the stored
 * events, journalled, and inserted as one block with one token, all under the writer lease. Because groups follow each
 * other, whatever instance stores them, an id is either in an earlier group, in this one, or new: counting exactly once
 * rests on that.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from '../clickhouse/store.ts'
import { unavailable } from '../domain/errors.ts'
import { seldom, type Log } from '../log.ts'
import type { TenantKey } from '../domain/tenant.ts'
import type { Names } from '../ids/dictionary.ts'
import { decide, type Batch, type Decision, type Receipt, type SentBefore } from './deduplicate.ts'
import { repairSinceTerm } from './repair-insert.ts'
import { IdFilter, idHash } from './event-id-filter.ts'
import { codeOf, Inserts, MAX_COMPLETIONS, reasonOf, UnusableEntryError } from './insert.ts'
import type { Entry, Journal } from './journal.ts'
import {
  LeaseLostError,
  type Turn,
  type Unsettled,
  type WriteGuard,
  type WriteLock,
  type WriterLease,
} from '../clickhouse/writer-lease.ts'
import { Numbers } from '../ids/allocator.ts'
import type { Tenants } from '../ids/tenants.ts'
import type { Removals } from '../maintenance/erasure.ts'
import type { Retention } from '../maintenance/retention.ts'
import { mergeParts, type Seals } from '../maintenance/compaction.ts'

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
/** How long the lease is kept without work. */
const LINGER_MS = 50
/** How often the lease is extended beside long work under it. */
const EXTEND_MS = 1_000
/** Events that wait for longer make the instance say that it cannot store any. */
const LONG_WAIT_MS = 3_000
/** While events could not be stored last time and nobody sends any, the writer tries so often whether it could again. */
const PROBE_MS = 2_000
/** A caller waits this long for its batch to be stored, then is told to come back; what is journalled is stored all the same. */
const PATIENCE_MS = 10_000

export interface WriterOptions {
  store: Store
  names: Names
  tenants: Tenants
  journal: Journal
  seals: Seals
  lease: WriterLease
  removals: Removals
  retention: Retention
  filterMegabytes: number
  /** Told before the callers are: these events of a tenant are now in every table. */
  onStored?: (tenant: TenantKey, timestamps: readonly number[]) => void
  observer?: GroupObserver
  log: Log
}

export class Writer {
  readonly #options: WriterOptions
  readonly #filter: IdFilter
  readonly #queue: Waiting[] = []
  readonly #inserts: Inserts
  readonly #numbers: Numbers
  /** For failures that repeat themselves as long as their reason lasts. */
  readonly #logSeldom: Log
  /** Upkeep that must not overlap with an insert. */
  readonly #upkeep: Array<{ run(guard: WriteGuard): Promise<void>; refuse(error: unknown): void }> = []
  #wake: () => void = () => {}
  #closing = false
  /** Batches that were answered last, and those that waited already: so many come together if everybody sends another. */
  #expected = 0
  #running: Promise<void> | undefined
  /** True while a journalled group cannot be stored: nothing may pass it, so new batches are refused at once. */
  #stuck = false
  /** True from a failure to store, or to get the lease, until the next success. */
  #failing = false
  /** Since when the group that is being stored has waited; undefined where none is. */
  #storingSince: number | undefined
  #settling: Promise<void> | undefined
  #reaper: NodeJS.Timeout | undefined
  /**
   * The id filter may lack events that other instances stored under this term or a later one; null where there is no other
   * instance. `#behind` asks for a look.
   */
  #unseenFrom: number | null = null
  #behind = true

  constructor(options: WriterOptions) {
    this.#options = options
    this.#logSeldom = seldom(options.log)
    this.#filter = new IdFilter(options.filterMegabytes)
    this.#inserts = new Inserts(options)
    this.#numbers = new Numbers(options.store, options.names)
  }

  /** Completes what an earlier run left half done, then starts taking batches. */
  async start(): Promise<void> {
    const { journal, lease, log, seals, removals, retention } = this.#options
    await seals.load()
    await removals.learn()
    await retention.load()
    for (const entry of await journal.pending()) {
      log('warn', 'completing an insert of an earlier run', { name: entry.name })
      let unusable: string | undefined
      let failures = 0
      await this.#untilDone(async () => {
        await this.#prepare(await lease.acquire())
        try {
          await this.#inserts.recover(entry)
        } catch (error) {
          // An entry must not keep everything else from being stored. ClickHouse out of reach, or a full disk, is no failure of it.
          if (error instanceof UnusableEntryError) unusable = error.message
          else if (codeOf(error) !== undefined && ++failures >= MAX_COMPLETIONS)
            unusable = `it cannot be stored: ${reasonOf(error)}`
          else throw error
        }
      })
      if (unusable === undefined) await journal.remove(entry.name)
      else await journal.quarantine(entry.name, unusable)
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

  /** False from a failure to store events, or to get the lease, until the next success, and while events wait for long. */
  get healthy(): boolean {
    const since = this.#storingSince ?? this.#queue[0]?.since ?? Infinity
    return !this.#stuck && !this.#failing && performance.now() - since < LONG_WAIT_MS
  }

  /**
   * Stores a batch. Resolves when every accepted event is written in ClickHouse, in all tables.
   * @throws ApiError 503 where that cannot be said within PATIENCE_MS; the batch may or may not be stored by then, and
   * sending it again with the same ids is safe
   */
  submit(batch: Batch): Promise<Receipt> {
    if (this.#closing) throw unavailable('The service is shutting down.', 2)
    if (this.#stuck) throw unavailable('Events cannot be stored right now.', 2)
    return new Promise((resolve, reject) => {
      const origin = this.#options.observer?.origin()
      this.#queue.push({ batch, resolve, reject, since: performance.now(), origin })
      this.#wake()
    })
  }

  /**
   * Runs work between two groups of events, under the writer lease, when nobody is storing anything.
   * @throws ApiError 503 where the writer is closed before its turn
   */
  exclusive<T>(work: (guard: WriteGuard) => Promise<T>): Promise<T> {
    if (this.#closing) return Promise.reject(unavailable('The service is shutting down.', 2))
    return new Promise((resolve, reject) => {
      const run = async (guard: WriteGuard) => {
        try {
          resolve(await work(guard))
        } catch (error) {
          reject(error)
          // A statement of it may still be running.
          this.#options.lease.abandon()
        }
      }
      this.#upkeep.push({ run, refuse: reject })
      this.#wake()
    })
  }

  /** Stores what is queued and stops. */
  async close(): Promise<void> {
    this.#closing = true
    this.#wake()
    const ended = new AbortController()
    const patience = sleep(PATIENCE_MS, undefined, { ref: false, signal: ended.signal }).catch(() => {})
    await Promise.race([this.#running, patience])
    ended.abort()
    for (const { refuse } of this.#upkeep.splice(0)) refuse(unavailable('The service is shutting down.', 2))
    clearInterval(this.#reaper)
  }

  async #run(): Promise<void> {
    const { lease, seals } = this.#options
    let sealAt = 0
    while (!this.#closing || this.#queue.length > 0) {
      const sealing = !this.#closing && performance.now() >= sealAt && seals.due
      if (performance.now() >= sealAt) sealAt = performance.now() + SEAL_CHECK_MS
      try {
        if (!sealing && this.#idle) {
          // Callers that wait for an answer send their next batch as soon as they have it: the lease is worth keeping for
          // a moment, since to give it up and take it again is two inserts.
          await this.#nextBatch(LINGER_MS)
          if (!this.#idle) continue
          await lease.release()
          // Something may have come while the lease was given up.
          const rest = this.#failing ? PROBE_MS : sealAt - performance.now()
          if (this.#idle && !this.#closing) await this.#nextBatch(rest)
          if (this.#idle && (this.#closing || !this.#failing)) continue
        }
        const turn = await lease.acquire()
        await this.#extending(async () => {
          await this.#prepare(turn)
          if (this.#idle && !sealing) this.#failing = false
          // While spans are due they follow each other, but callers that wait go first.
          if (sealing && (await seals.advance(lease))) {
            sealAt = 0
            if (!seals.due) this.#merge()
          }
          await this.#upkeep.shift()?.run(lease)
          await this.#gather()
          const group = this.#takeGroup()
          if (group.length > 0) await this.#observed(group, () => this.#storeGroup(group))
          this.#expected = group.length + this.#queue.length
        })
      } catch (error) {
        // What was under way may not have ended, or may be half done.
        lease.abandon()
        this.#failing = true
        this.#logSeldom('error', 'the writer cannot go on and tries again', { error: reasonOf(error) })
        await sleep(200)
      }
    }
    await lease.release().catch(() => {})
  }

  /** Runs work under the lease, which is extended meanwhile. */
  async #extending<T>(work: () => Promise<T>): Promise<T> {
    // Where it cannot be extended, the next write of the work fails by that.
    const timer = setInterval(() => void this.#options.lease.extend().catch(() => {}), EXTEND_MS)
    try {
      return await work()
    } finally {
      clearInterval(timer)
    }
  }

  /** Before anything is decided in a turn: learns what other instances did, and begins to put right what they left half done. */
  async #prepare(turn: Turn): Promise<void> {
    const { seals, log } = this.#options
    if (!turn.continued) this.#behind = true
    if (this.#behind || seals.doubtful) await this.#catchUp(turn)
    if (turn.unsettled && !this.#settling) {
      // In stretches between groups: events can be stored meanwhile.
      this.#settling = this.#settle(turn.unsettled, (work) => this.exclusive(work))
        .catch((error: unknown) =>
          log('error', 'what an instance left half done is not put right yet', { error: reasonOf(error) }),
        )
        .finally(() => (this.#settling = undefined))
    }
  }

  /** Puts right what earlier holders of the lease left half done. */
  async #settle(unsettled: Unsettled, lock: WriteLock): Promise<void> {
    const { store, seals, lease, log } = this.#options
    const days = await repairSinceTerm(store, seals, lock, unsettled.fromTerm)
    if (days > 0) log('warn', 'an instance left an insert half done, which had to be put right', { days })
    lease.settled(unsettled)
  }

  /** Tries until it succeeds, or until the service is closing. */
  async #untilDone(work: () => Promise<void>): Promise<void> {
    for (let wait = 100; ; wait = Math.min(wait * 2, 2_000)) {
      try {
        await this.#extending(work)
        return
      } catch (error) {
        this.#options.lease.abandon()
        this.#failing = true
        if (this.#closing) throw error
        this.#logSeldom('error', 'events cannot be stored yet', { error: reasonOf(error) })
        await sleep(wait)
      }
    }
  }

  /** Beside the lane. What fails is done the next day. */
  #merge(): void {
    const { store, log } = this.#options
    mergeParts(store).catch((error: unknown) => {
      if (!this.#closing) log('warn', 'parts could not be merged', { error: reasonOf(error) })
    })
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

  /** @returns a receipt for each batch; undefined where the group could not be stored and its callers know */
  async #storeGroup(group: readonly Waiting[]): Promise<readonly Receipt[] | undefined> {
    const { journal, lease, log, onStored } = this.#options
    // These events may still be on their way when their callers are sent off; a retry will find them.
    const impatient = setTimeout(() => {
      for (const { reject } of group) reject(unavailable('Events cannot be stored right now.', 2))
      this.#stuck = true
    }, PATIENCE_MS)
    /** Terms under which rows were sent. */
    const terms = new Set<number>()
    this.#storingSince = group[0]?.since
    let before: SentBefore | undefined
    let entry: Entry | undefined
    const attempt = async () => {
      const decision = await this.#decide(group, before)
      // What the first attempt that sent something has found stored is not its own.
      const found = before?.found ?? decision.found
      const earlier = entry
      if (decision.inserts.length > 0) entry = await journal.write(decision.inserts)
      if (earlier && earlier !== entry) await journal.remove(earlier.name)
      try {
        await this.#inserts.store(decision.inserts, terms)
      } finally {
        if (terms.size > 0) before = { terms, found }
      }
      return decision
    }
    try {
      let decision: Decision | undefined
      try {
        decision = await attempt()
      } catch (error) {
        // Before the first row was sent, a failure has left nothing behind.
        if (!before && !(error instanceof LeaseLostError)) throw error
        log('error', 'the writer lease ended while events were sent: they are looked up and what is missing is sent again', {
          error: reasonOf(error),
        })
        lease.abandon()
        await this.#untilDone(async () => {
          const turn = await lease.acquire()
          await this.#prepare(turn)
          decision = await attempt()
          // Its callers are told that it is stored: its first attempt must be in the rollups then.
          if (turn.unsettled) await this.#settle(turn.unsettled, (work) => work(lease))
        })
      }
      const { receipts, added } = decision as Decision
      for (const [tenant, events] of added) {
        for (const event of events) this.#filter.addHash(idHash(tenant, event.id))
        onStored?.(
          tenant,
          events.map(({ timestamp }) => timestamp),
        )
      }
      if (entry) await journal.remove(entry.name)
      group.forEach(({ resolve }, at) => resolve(receipts[at] as Receipt))
      this.#failing = false
      return receipts
    } catch (error) {
      // Nothing was sent: no figure of these events is in any table, and the next group may try.
      this.#failing = true
      if (entry && !before) await journal.remove(entry.name)
      this.#logSeldom('error', 'a group of events could not be stored', { error: reasonOf(error) })
      for (const { reject } of group) reject(unavailable('Events cannot be stored right now.', 2, error))
      await sleep(200)
      return undefined
    } finally {
      clearTimeout(impatient)
      this.#stuck = false
      this.#storingSince = undefined
    }
  }

  async #decide(group: readonly Waiting[], before: SentBefore | undefined): Promise<Decision> {
    const { store, tenants, lease, seals, retention } = this.#options
    const decision = await decide(
      group.map(({ batch }) => batch),
      { store, filter: this.#filter, numbers: this.#numbers, tenants, seals, retention, before, term: () => lease.extend() },
    )
    // Numbers of names, above all: once the group is journalled they are used, whatever becomes of ClickHouse.
    store.assertWritten()
    return decision
  }

  /** Learns what other instances stored since this one last looked. */
  async #catchUp({ term }: Turn): Promise<void> {
    const { store, seals, names, removals, retention } = this.#options
    await seals.load()
    await names.learn()
    await removals.learn()
    await retention.load()
    if (this.#filter.isComplete && this.#unseenFrom !== null) {
      await store.hashesOfIds((hash) => this.#filter.addHash(hash), this.#unseenFrom)
      this.#unseenFrom = term.number
    }
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
        const { store, lease } = this.#options
        this.#unseenFrom = await lease.firstOpenTerm()
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
