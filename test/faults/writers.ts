/**
 * Callers as they are on bad days: they retry what was not answered, in other batches than before, send some of it twice
 * at once, send again what is stored already, and lose track of a few events altogether.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { EVENT_TYPES } from '../reference.ts'
import type { Dice } from './dice.ts'
import type { Entry, Ledger } from './ledger.ts'
import { batchOf, post, type Batch, type Outcome, type Tokens } from './post.ts'

/** With more than this unanswered, a writer makes no new events until it has got rid of some. */
const MAX_OPEN = 500
const HOUR = 3_600_000
const DAY = 24 * HOUR

export interface WriterOptions {
  /** Sets this writer's ids apart from the others'. */
  name: string
  dice: Dice
  ledger: Ledger
  /** The address of the service that the next request goes to. */
  route: (why: Why) => string
  tokens: Tokens
  /** Epoch milliseconds on the service's clock, or a little behind. */
  now: () => number
  /** How likely a batch is the first one of a new tenant, and an event the first one of a new user; 0 by default. */
  newcomers?: { tenants: number; users: number }
  /** Sends again only events that it made itself. */
  ownOnly?: boolean
}

/** Why a request is sent: with something new in it, because there was no 2xx, or beside an equal one at the same time. */
export type Why = 'new' | 'again' | 'beside'

/** A batch under an Idempotency-Key; it can only be sent again as it is. */
interface Keyed extends Batch {
  answer?: string
}

/** One writer. It writes until it is told to drain, and says when everything it wants stored is stored. */
export class Writer {
  readonly #options: WriterOptions
  /** Sent without an answer, or with a refusal: to be sent again. */
  #open: Entry[] = []
  #openKeyed: Keyed[] = []
  readonly #answered: Keyed[] = []
  #mode: 'write' | 'drain' | 'end' = 'write'
  #count = 0
  #idle: () => void = () => {}
  readonly #running: Promise<void>
  constructor(options: WriterOptions) {
    this.#options = options
    this.#running = this.#run()
  }

  write(): void {
    this.#mode = 'write'
  }

  /** Resolves when every event that is not given up is acknowledged. */
  async drain(withinMs: number): Promise<void> {
    const idle = new Promise<true>((resolve) => {
      this.#idle = () => resolve(true)
    })
    this.#mode = 'drain'
    const done = await Promise.race([idle, sleep(withinMs, false, { ref: false })])
    if (!done) {
      const left = this.#open.length + this.#openKeyed.length
      throw new Error(`${this.#options.name} could not get everything stored within ${withinMs / 1_000} s, ${left} left`)
    }
  }

  async end(): Promise<void> {
    this.#mode = 'end'
    await this.#running
  }

  async #run(): Promise<void> {
    const { dice } = this.#options
    while (this.#mode !== 'end') {
      if (this.#mode === 'write' && this.#open.length < MAX_OPEN) await this.#step()
      else if (this.#open.length + this.#openKeyed.length > 0) await this.#retry()
      else this.#idle()
      await sleep(dice.between(15, 70))
    }
  }

  async #step(): Promise<void> {
    const { dice, ledger } = this.#options
    const { name, newcomers = { tenants: 0, users: 0 } } = this.#options
    if (dice.chance(newcomers.tenants)) ledger.open(`tenant ${name}-${this.#count++}`)
    const tenant = dice.pick(ledger.tenants)
    const choice = dice.next()
    if (choice < 0.15) await this.#sendKeyed(this.#keyed(tenant), 'new')
    else if (choice < 0.22) await this.#repeatKeyed()
    else if (choice < 0.3) await this.#sendStored(tenant)
    else if (choice < 0.35) await this.#reuseId(tenant)
    else if (choice < 0.5) await this.#sendTwice(tenant)
    else if (choice < 0.6 && this.#open.length + this.#openKeyed.length > 0) await this.#retry()
    else await this.#send(this.#batch(tenant, this.#mixed(tenant)), 'new')
  }

  #storedOf(tenant: string): readonly Entry[] {
    const { ledger, name, ownOnly } = this.#options
    const stored = ledger.storedOf(tenant)
    return ownOnly ? stored.filter(({ event }) => event.traceId.startsWith(`${name}-`)) : stored
  }

  /** New events, with some that were sent before, and some of them twice. */
  #mixed(tenant: string): Entry[] {
    const { dice } = this.#options
    const entries = Array.from({ length: dice.chance(0.01) ? dice.between(200, 1_500) : dice.between(1, 30) }, () =>
      this.#make(tenant, true),
    )
    if (dice.chance(0.3)) entries.push(...this.#takeOpen(tenant, dice.between(1, 60)))
    const stored = this.#storedOf(tenant)
    if (dice.chance(0.3) && stored.length > 0) {
      for (let i = dice.between(1, 5); i > 0; i--) entries.push(dice.pick(stored))
    }
    if (dice.chance(0.2)) entries.push(dice.pick(entries))
    // Made and never sent.
    if (dice.chance(0.1)) this.#make(tenant, true)
    return entries
  }

  /** Takes events out of those that wait for another try; now and then one is given up. */
  #takeOpen(tenant: string, most: number): Entry[] {
    const taken: Entry[] = []
    this.#open = this.#open.filter((entry) => {
      if (entry.state === 'stored') return false
      if (entry.tenant !== tenant || taken.length >= most) return true
      taken.push(entry)
      return false
    })
    return taken.filter(() => !this.#options.dice.chance(0.01))
  }

  async #retry(): Promise<void> {
    const { dice } = this.#options
    const keyed = dice.chance(0.5) || this.#open.length === 0 ? this.#openKeyed.shift() : undefined
    if (keyed) {
      await this.#sendKeyed(keyed, 'again')
      return
    }
    const tenant = this.#open[0]?.tenant
    if (tenant === undefined) return
    const entries = this.#takeOpen(tenant, dice.between(1, 400))
    if (entries.length > 0) await this.#send(this.#batch(tenant, entries), 'again')
  }

  async #send(batch: Batch, why: Why): Promise<void> {
    const outcome = await this.#post(batch, why)
    if (outcome.status !== 'stored') this.#open.push(...new Set(batch.entries))
  }

  /** The same events over two connections at once, in two orders. */
  async #sendTwice(tenant: string): Promise<void> {
    const entries = this.#mixed(tenant)
    const outcomes = await Promise.all([
      this.#post(this.#batch(tenant, entries), 'new'),
      this.#post(this.#batch(tenant, entries.toReversed()), 'beside'),
    ])
    if (outcomes.every(({ status }) => status !== 'stored')) this.#open.push(...new Set(entries))
  }

  async #sendStored(tenant: string): Promise<void> {
    const { dice } = this.#options
    const stored = this.#storedOf(tenant)
    if (stored.length === 0) return
    await this.#post(
      this.#batch(
        tenant,
        Array.from({ length: dice.between(1, 50) }, () => dice.pick(stored)),
      ),
      'again',
    )
  }

  /** Another event under the id of a stored one, between good ones: it alone is refused. */
  async #reuseId(tenant: string): Promise<void> {
    const { dice, ledger } = this.#options
    const stored = this.#storedOf(tenant)
    if (stored.length === 0) return
    const { id } = dice.pick(stored).event
    if (id === undefined) return
    const { event } = this.#make(tenant, true, 'draft')
    const refused = ledger.add({ tenant, event: { ...event, id }, state: 'refused' })
    await this.#send(this.#batch(tenant, [this.#make(tenant, true), refused, this.#make(tenant, true)]), 'new')
  }

  #keyed(tenant: string): Keyed {
    const { dice } = this.#options
    // Events without an id are counted once because their key says so.
    const withIds = dice.chance(0.5)
    const entries = Array.from({ length: dice.between(1, 30) }, () => this.#make(tenant, withIds))
    return batchOf(dice, tenant, entries, `${this.#options.name}-${this.#count++}`)
  }

  async #sendKeyed(keyed: Keyed, why: Why): Promise<void> {
    const outcome = await this.#post(keyed, why)
    if (outcome.status === 'stored') {
      keyed.answer = JSON.stringify(outcome.receipt)
      this.#answered.push(keyed)
    } else if (!this.#options.dice.chance(0.01)) this.#openKeyed.push(keyed)
  }

  async #repeatKeyed(): Promise<void> {
    const { dice, ledger } = this.#options
    if (this.#answered.length === 0) return
    const keyed = dice.pick(this.#answered)
    const outcome = await this.#post(keyed, 'again', true)
    if (outcome.status === 'stored' && JSON.stringify(outcome.receipt) !== keyed.answer) {
      ledger.complain(`Idempotency-Key: first ${keyed.answer}, then ${JSON.stringify(outcome.receipt)}`)
    }
  }

  #make(tenant: string, withId: boolean, draft?: 'draft'): Entry {
    const { dice, name, now, ledger, newcomers } = this.#options
    const mark = `${name}-${this.#count++}`
    const ages = [2 * HOUR, 2 * HOUR, 10 * DAY, 120 * DAY]
    const event = {
      ...(withId ? { id: `id ${mark}` } : {}),
      eventType: dice.pick(EVENT_TYPES),
      timestamp: new Date(now() - Math.floor(dice.next() * dice.pick(ages))).toISOString(),
      assistant: `assistant ${dice.between(1, 12)}`,
      user: newcomers && dice.chance(newcomers.users) ? `user ${mark}` : `user ${Math.floor(dice.next() ** 2 * 400)}`,
      traceId: mark,
      ...(dice.chance(0.5) ? { cost: dice.between(0, 2_000_000) / 1e9, inputTokens: dice.between(0, 9_000) } : {}),
      ...(dice.chance(0.3) ? { outputTokens: dice.between(0, 900), model: `model ${dice.between(1, 3)}` } : {}),
      ...(dice.chance(0.1) ? { metadata: { mark, tags: ['a', 'ü'] } } : {}),
    }
    const entry: Entry = { tenant, event, state: 'held' }
    return draft ? entry : ledger.add(entry)
  }

  #batch(tenant: string, entries: readonly Entry[]): Batch {
    return batchOf(this.#options.dice, tenant, entries)
  }

  async #post(batch: Batch, why: Why, repeated = false): Promise<Outcome> {
    const { ledger, tokens, route } = this.#options
    return post(batch, { ledger, tokens, url: route(why), repeated })
  }
}
