/**
 * The right to write, where several instances of the service share one ClickHouse. Counting exactly once rests on this:
 * an instance looks which events are stored, and stores the others, while nobody else stores anything.
 *
 * The instances take turns by a lease, a row in ClickHouse that ends by itself. A lease alone would not do: an instance can
 * be paused, or its insert can be on its way, when the lease ends. Two rules close that gap, and no clock but ClickHouse's
 * has a part in them:
 *   1. Every write carries the end of its lease, and ClickHouse refuses it from then on. For an insert with a body, it looks
 *      after the last byte of the body has arrived (`whileHeld` in the statement of the insert), so an insert that was
 *      stalled on the network has no effect, whenever it arrives.
 *   2. An instance that takes over from a holder which did not release the lease waits for the writes that passed this check
 *      in time and are still running. After that, what the former holder has stored is there to be read, and nothing follows.
 *
 * test/clickhouse/writer-lease-model.test.ts searches the interleavings of two instances for one that breaks this.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from './store.ts'

/** A term of the lease, as this instance last extended it. */
export interface Term {
  /** Stored with every event that was written under it. */
  readonly number: number
  /**
   * When it ends on ClickHouse's clock, as text for toDateTime64(…, 3, 'UTC'). An instance that has its ClickHouse to itself
   * has a term that never ends.
   */
  readonly until: string
}

/** A turn of this instance. */
export interface Turn {
  readonly term: Term
  /** True where nobody else can have written anything since the end of this instance's last turn. */
  readonly continued: boolean
  /** Null where every holder before has released the lease. */
  readonly unsettled: Unsettled | null
}

/** An insert of an earlier holder may be half done: its event rows are stored, and its rollup rows may not be. */
export interface Unsettled {
  /** The first term whose events are concerned. */
  readonly fromTerm: number
}

/** Statements of maintenance are written under the lease too: its condition goes into their SQL. */
export interface WriteGuard {
  /**
   * SQL that is true while the lease lasts, by ClickHouse's clock at the start of the statement.
   * @throws LeaseLostError where the lease is known to be over
   */
  condition(): string
  /**
   * The present term, extended where less than EXTEND_BELOW_MS are left of it.
   * @throws LeaseLostError where it has ended
   */
  extend(): Promise<Term>
}

/** SQL that fails the statement where the lease is over; a WHERE of an INSERT … SELECT. */
export const orFail = (guard: Pick<WriteGuard, 'condition'>): string =>
  `throwIf(NOT (${guard.condition()}), 'the writer lease is over') = 0`

/**
 * Runs work while no event is being stored, by this instance or by another one.
 * @param work is given the guard of the lease; every statement of it that is not idempotent needs the guard's condition
 */
export type WriteLock = <T>(work: (guard: WriteGuard) => Promise<T>) => Promise<T>

/** The lease ended before the work under it did; nothing is known about a write that was under way. */
export class LeaseLostError extends Error {
  override name = 'LeaseLostError'
}

export interface WriterLease extends WriteGuard {
  /**
   * Waits for a turn, or goes on with the present one.
   * @throws where ClickHouse is out of reach or others hold the lease for WAIT_MS
   */
  acquire(): Promise<Turn>
  /**
   * The first term that was not released: what is stored from now on is stored under this term or a later one. Null where
   * nobody else stores anything.
   */
  firstOpenTerm(): Promise<number | null>
  /**
   * Says that what earlier holders left half done has been put right. Until then every turn says `unsettled`, and the lease
   * is neither given up to others who wait nor released.
   */
  settled(unsettled: Unsettled): void
  /** Gives the lease up. Call it only when no write is under way and the outcome of each is known. */
  release(): Promise<void>
  /**
   * Forgets the lease without giving it up, where the outcome of a write is not known: before the next turn, of this
   * instance or of another one, the lease ends and the writes under it do.
   */
  abandon(): void
}

/** The term of an instance that has its ClickHouse to itself. */
export const ENDLESS_TERM: Term = { number: 0, until: '2299-12-31 23:59:59.999' }

/** The lease of an instance that has its ClickHouse to itself: it never ends. */
export class OwnLease implements WriterLease {
  readonly #store: Store
  #abandoned = false

  constructor(store: Store) {
    this.#store = store
  }

  async acquire(): Promise<Turn> {
    if (this.#abandoned) await waitForWrites(this.#store)
    this.#abandoned = false
    return { term: ENDLESS_TERM, continued: true, unsettled: null }
  }

  extend = () => Promise.resolve(ENDLESS_TERM)
  firstOpenTerm = () => Promise.resolve(null)
  release = () => Promise.resolve()
  settled = () => {}
  condition = () => '1'

  abandon(): void {
    this.#abandoned = true
  }
}

/** A term ends by itself after this. A holder that dies is replaced after this and a fraction of a second. */
const LEASE_MS = 8_000
/** A term is extended where less is left of it, so the body of an insert has at least so long to arrive. */
const EXTEND_BELOW_MS = 6_500
/** After so long the lease is given up where others wait for it. */
const TURN_MS = 500
/** An instance that waits says so once in this time. */
const WAITING_MS = 1_000
/** After a turn, the former holder claims the lease so much later than those who waited, at most. */
const STEP_BACK_MS = 1_000
const WAIT_MS = 9_000
/** Servers of a cluster each look at their own clock: so far apart they may be. */
const CLOCK_DIFFERENCE_MS = 250
/** A token whose row is not there after so long belongs to a claim of a server that was killed while it stored it. */
const LOST_TOKEN_MS = 4_000
/** Writes that passed their check in time end within this, or are not waited for any longer and named in an error. */
const RUNNING_MS = 120_000

/** Ids of inserts of events begin with this; their rows are read from the body before the lease is checked. */
const INSERT_ID = 'insert_events:'
/** Ids of maintenance statements under the lease begin with this. */
const MAINTENANCE_ID = 'maintenance:'

/** The id of an insert of events; others find it by its beginning while it runs. */
export const insertId = (database: string): string => `${INSERT_ID}${database}-${randomUUID()}`
/** The id of a statement of maintenance under the lease. */
export const maintenanceId = (database: string): string => `${MAINTENANCE_ID}${database}-${randomUUID()}`

/** The SQL condition of a write with a body: ClickHouse evaluates it for the rows, when they have arrived. */
export const ARRIVED_IN_TIME = `throwIf(nowInBlock64(3) >= toDateTime64({until:String}, 3, 'UTC'), 'the writer lease is over') = 0`

/** ClickHouse's error code of `throwIf`. */
const THROWN_IF = '395'

/** True for the error of a write that ClickHouse refused because its lease was over: it has had no effect. */
export const isRefusedByLease = (error: unknown): boolean => (error as { code?: string } | null)?.code === THROWN_IF

interface LeaseRow {
  term: number
  holder: string
  released: number
  over: number
}

/** The lease of instances that share a database; see clickhouse/007_writer_lease.sql. */
export class SharedLease implements WriterLease {
  readonly #store: Store
  readonly #me = randomUUID()
  #term: Term | undefined
  /** On the local monotonic clock: from here on the term counts as lost without asking. */
  #heldUntil = -Infinity
  #turnUntil = -Infinity
  /**
   * The last term that nobody could get: a server that is killed while it stores a claim may keep the token and lose the
   * row (see repair-insert.ts), and would refuse every later claim of that term.
   */
  #lostTerm = 0
  /** The last term that this instance gave up by itself. */
  #released = 0
  #unsettled: Unsettled | null = null
  /** One call after the other: a term is extended beside the work under it. */
  #running: Promise<unknown> = Promise.resolve()

  constructor(store: Store) {
    this.#store = store
  }

  condition(): string {
    if (!this.#term || performance.now() >= this.#heldUntil) throw new LeaseLostError('the writer lease is over')
    return `now64(3) < toDateTime64('${this.#term.until}', 3, 'UTC')`
  }

  acquire(): Promise<Turn> {
    return this.#inTurn(() => this.#acquire())
  }

  extend(): Promise<Term> {
    return this.#inTurn(() => this.#extend())
  }

  release(): Promise<void> {
    return this.#inTurn(() => this.#release())
  }

  async firstOpenTerm(): Promise<number> {
    const [row] = await this.#store.readInternal<{ released: number }>(
      'writer_lease_released',
      `SELECT max(term) AS released FROM writer_lease WHERE partition = 0 AND state = 'released'`,
    )
    return (row?.released ?? 0) + 1
  }

  settled(unsettled: Unsettled): void {
    // Since then, another holder may have left something behind.
    if (this.#unsettled === unsettled) this.#unsettled = null
  }

  abandon(): void {
    this.#term = undefined
    this.#heldUntil = -Infinity
    this.#turnUntil = -Infinity
  }

  async #acquire(): Promise<Turn> {
    const began = performance.now()
    if (this.#term && began < this.#heldUntil) {
      if (began >= this.#turnUntil && this.#unsettled === null && (await this.#othersWait())) {
        await this.#release()
        for (const until = performance.now() + STEP_BACK_MS; performance.now() < until; await sleep(25)) {
          if (((await this.#last())?.term ?? 0) > this.#released) break
        }
      } else {
        if (began >= this.#turnUntil) this.#turnUntil = began + TURN_MS
        try {
          return { term: await this.#extend(), continued: true, unsettled: this.#unsettled }
        } catch (error) {
          if (!(error instanceof LeaseLostError)) throw error
        }
      }
    }
    this.#term = undefined
    let freeSince = Infinity
    for (let saidAt = -Infinity; ;) {
      const last = await this.#last()
      if (!last || last.released || last.over) {
        const claimedAt = performance.now()
        const next = Math.max(last?.term ?? 0, this.#lostTerm) + 1
        if (await this.#claim(next)) {
          this.#turnUntil = claimedAt + TURN_MS
          const continued = last !== undefined && last.term === this.#released
          if (last && !last.released) {
            this.#unsettled = { fromTerm: Math.min(await this.firstOpenTerm(), this.#unsettled?.fromTerm ?? Infinity) }
            // The lease has to be held meanwhile.
            await waitForWrites(this.#store, () => this.#extend())
          }
          return { term: await this.#extend(), continued, unsettled: this.#unsettled }
        }
        freeSince = Math.min(freeSince, claimedAt)
        if (performance.now() - freeSince > LOST_TOKEN_MS) {
          this.#lostTerm = next
          freeSince = Infinity
        }
      } else {
        freeSince = Infinity
        if (performance.now() - saidAt > WAITING_MS) {
          saidAt = performance.now()
          await this.#insert(last.term, 'waiting', '')
        }
      }
      if (performance.now() - began > WAIT_MS) throw new Error('another instance holds the writer lease')
      await sleep(10 + Math.random() * 40)
    }
  }

  async #extend(): Promise<Term> {
    const term = this.#term
    const left = this.#heldUntil - performance.now()
    if (!term || left <= 0) throw new LeaseLostError('the writer lease is over')
    if (left >= EXTEND_BELOW_MS) return term
    const last = await this.#last()
    const mine = last?.term === term.number && last.holder === this.#me
    if (!mine || !(await this.#claim(term.number + 1))) {
      this.abandon()
      throw new LeaseLostError('another instance holds the writer lease')
    }
    return this.#term as Term
  }

  async #release(): Promise<void> {
    const term = this.#term
    if (!term) return
    this.abandon()
    if (this.#unsettled !== null) return
    await this.#insert(term.number, 'released', `released-${term.number}`)
    this.#released = term.number
  }

  async #othersWait(): Promise<boolean> {
    const [row] = await this.#store.readInternal<{ waiting: number }>(
      'writer_lease_waiting',
      `SELECT count() AS waiting FROM writer_lease
       WHERE partition = 0 AND state = 'waiting' AND holder != {holder:String} AND at > now64(3) - toIntervalMillisecond({ms:UInt32})
         AND term >= {term:UInt64}`,
      { holder: this.#me, ms: 2 * WAITING_MS, term: Math.max(0, (this.#term?.number ?? 0) - 10) },
    )
    return (row?.waiting ?? 0) > 0
  }

  async #last(): Promise<LeaseRow | undefined> {
    const [row] = await this.#store.readInternal<LeaseRow>(
      'writer_lease_last',
      `SELECT term, anyIf(holder, state = 'held') AS holder, max(state = 'released') AS released,
         max(until) + toIntervalMillisecond(${CLOCK_DIFFERENCE_MS}) < now64(3) AS over
       FROM writer_lease WHERE partition = 0 AND state != 'waiting' GROUP BY term ORDER BY term DESC LIMIT 1`,
    )
    return row
  }

  /** Claims a term; of all instances that claim it, one gets it. */
  async #claim(term: number): Promise<boolean> {
    const claimedAt = performance.now()
    await this.#insert(term, 'held', `held-${term}`)
    const [row] = await this.#store.readInternal<{ holder: string; until: string }>(
      'writer_lease_winner',
      `SELECT holder, toString(until) AS until FROM writer_lease
       WHERE partition = 0 AND term = {term:UInt64} AND state = 'held'`,
      { term },
    )
    if (row?.holder !== this.#me) return false
    this.#term = { number: term, until: row.until }
    // ClickHouse has reckoned the end after the claim was sent, so the term is over here before it is over there.
    this.#heldUntil = claimedAt + LEASE_MS
    return true
  }

  async #insert(term: number, state: 'held' | 'released' | 'waiting', token: string): Promise<void> {
    await this.#store.writer.command({
      query: `INSERT INTO writer_lease (partition, term, holder, state, until)
        VALUES (0, {term:UInt64}, {holder:String}, {state:String}, now64(3) + toIntervalMillisecond({ms:UInt32}))`,
      query_params: { term, holder: this.#me, state, ms: state === 'held' ? LEASE_MS : 0 },
      clickhouse_settings: {
        async_insert: 0,
        ...(token === '' ? { insert_deduplicate: 0 } : { insert_deduplicate: 1, insert_deduplication_token: token }),
        max_execution_time: 5,
        wait_end_of_query: 1,
      },
    })
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#running.then(work)
    this.#running = result.catch(() => {})
    return result
  }
}

/**
 * Waits until no write of a former term is running. An insert that has read no row so far has not been checked either, and
 * will be refused. The deletions of a mutation outlive the statement that asked for them.
 * @param between called before each look after the first
 */
async function waitForWrites(store: Store, between: () => Promise<unknown> = () => Promise.resolve()): Promise<void> {
  for (const deadline = performance.now() + RUNNING_MS; (await store.runningWrites(INSERT_ID, MAINTENANCE_ID)) > 0;) {
    if (performance.now() > deadline) throw new Error('writes of an earlier holder of the writer lease do not end')
    await sleep(50)
    await between()
  }
}
