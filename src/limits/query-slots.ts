/**
 * How many questions are asked of ClickHouse at once, so that no tenant's load is another's outage and too much load is
 * refused while there is still time to do the rest well.
 *
 * A tenant has at most `concurrent` questions under way; all tenants together have at most `total`. A question beyond that
 * waits its turn. A place goes to the tenant that has fewest, so one that asks much delays itself and not the one that asks
 * once. What waits is bounded in number and in time: a question starts, or is refused, within WAIT_MS. A 429 says that the
 * tenant asks too much, a 503 that the service as a whole is too busy.
 */
import { availableParallelism } from 'node:os'
import type { ApiError } from '../domain/errors.ts'
import { refusal } from './refusal.ts'

interface Waiter {
  enter(): void
  refuse(error: ApiError): void
  /** Whether its caller has left. */
  gone(): boolean
}

/** What one tenant has under way and waiting; kept while there is either. */
interface Gate {
  readonly tenant: string
  running: number
  /** When one of its questions last ran at once. */
  freeAt: number
  /** Oldest first. */
  readonly waiting: Waiter[]
}

/** Questions of one tenant that may wait for each of its that may run; more are turned away. */
const WAITING_PER_RUNNING = 4
/** The same for all tenants together: at 16 answers for each place in WAIT_MS, the last of them is still in time. */
const WAITING_PER_PLACE = 16
/** A question waits this long at most: time enough for a burst to pass. */
export const WAIT_MS = 2_000
/**
 * What does not pass within WAIT_MS is no burst. A tenant none of whose questions has run at once for so long has them
 * wait only this long: as many are answered as before, but early, where otherwise each would be answered WAIT_MS late.
 */
export const BUSY_WAIT_MS = 250
/**
 * Questions of all tenants at once: as many as the service has connections for, so that what is let in does not wait a
 * second time; and where ClickHouse shares the machine, only so many as keep it busy, since more make each one slower.
 */
export const PLACES = { server: 64, embedded: 4 * availableParallelism() }

export class QuerySlots {
  readonly #concurrent: number
  readonly #total: number
  readonly #gates = new Map<string, Gate>()
  /** Gates whose next waiter could start if the service had a place, in the order of their turns. */
  readonly #turns = new Set<Gate>()
  #running = 0
  #waiting = 0
  /** Turned away since the start: too many of the tenant, too many of all. */
  readonly refused = { tenant: 0, service: 0 }

  constructor(concurrent: number, total: number = PLACES.server) {
    this.#concurrent = concurrent
    this.#total = total
  }

  /** Questions under way and waiting, of all tenants. */
  get load(): { running: number; waiting: number } {
    return { running: this.#running, waiting: this.#waiting }
  }

  /**
   * Runs a question of a tenant when a place is free.
   * @param caller a caller that is gone before its turn leaves the queue
   * @throws ApiError 429 where too many of the tenant wait already, 503 where too many of all do, or for too long
   */
  async run<T>(tenant: string, work: () => Promise<T>, caller?: AbortSignal): Promise<T> {
    const gate = this.#gates.get(tenant) ?? { tenant, running: 0, freeAt: performance.now(), waiting: [] }
    this.#gates.set(tenant, gate)
    if (gate.running < this.#concurrent && this.#running < this.#total) {
      gate.freeAt = performance.now()
      this.#enter(gate)
    } else await this.#turn(gate, caller)
    try {
      return await work()
    } finally {
      gate.running--
      this.#running--
      this.#update(gate)
      for (let next = this.#next(); next && this.#running < this.#total; next = this.#next()) {
        const waiter = next.waiting.shift() as Waiter
        this.#waiting--
        this.#enter(next)
        // Out and, where it has more, in again at the end.
        this.#turns.delete(next)
        this.#update(next)
        waiter.enter()
      }
    }
  }

  /** Who gets the next place: the tenant that has fewest, and of several the one whose turn was longest ago. */
  #next(): Gate | undefined {
    let next: Gate | undefined
    for (const gate of this.#turns) if (!next || gate.running < next.running) next = gate
    return next
  }

  #enter(gate: Gate): void {
    gate.running++
    this.#running++
  }

  /** Call after any change of a gate: it takes its turn, waits for a place of its own, or is forgotten. */
  #update(gate: Gate): void {
    if (gate.waiting.length > 0 && gate.running < this.#concurrent) this.#turns.add(gate)
    else this.#turns.delete(gate)
    if (gate.running === 0 && gate.waiting.length === 0) this.#gates.delete(gate.tenant)
  }

  /** Resolves when a place is handed over; `running` then counts this one already. */
  async #turn(gate: Gate, caller: AbortSignal | undefined): Promise<void> {
    if (gate.waiting.length >= this.#concurrent * WAITING_PER_RUNNING) {
      this.refused.tenant++
      throw refusal(429, 'Too many questions are being answered for this tenant.')
    }
    if (this.#waiting >= this.#total * WAITING_PER_PLACE) this.#makeRoom(gate)
    const { promise, resolve, reject } = withResolvers()
    const waiter: Waiter = { enter: resolve, refuse: reject, gone: () => caller?.aborted === true }
    const leave = () => this.#refuse(gate, waiter)
    const timer = setTimeout(leave, performance.now() - gate.freeAt > WAIT_MS ? BUSY_WAIT_MS : WAIT_MS)
    caller?.addEventListener('abort', leave)
    gate.waiting.push(waiter)
    this.#waiting++
    this.#update(gate)
    if (caller?.aborted) leave()
    try {
      await promise
    } finally {
      clearTimeout(timer)
      caller?.removeEventListener('abort', leave)
    }
  }

  /** Turns away the last who came of whichever tenant has most waiting, which may be the one that asks for room. */
  #makeRoom(gate: Gate): void {
    let longest = gate
    for (const other of this.#gates.values()) if (other.waiting.length > longest.waiting.length) longest = other
    if (longest !== gate) return this.#refuse(longest, longest.waiting.at(-1) as Waiter)
    this.#update(gate)
    this.refused.service++
    throw busy()
  }

  #refuse(gate: Gate, waiter: Waiter): void {
    const at = gate.waiting.indexOf(waiter)
    if (at === -1) return
    gate.waiting.splice(at, 1)
    this.#waiting--
    this.#update(gate)
    // Whoever has left is not turned away.
    if (!waiter.gone()) this.refused.service++
    waiter.refuse(busy())
  }
}

/** Promise.withResolvers, which Node 20 lacks. */
function withResolvers() {
  let resolve!: () => void
  let reject!: (error: ApiError) => void
  const promise = new Promise<void>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

const busy = () => refusal(503, 'Too many questions are being answered right now.')
