/** A service, callers that write to it through a broken network, and what they know: all that a phase of the suite needs. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { check, type Findings } from './check.ts'
import { createDice, type Dice } from './dice.ts'
import { Ledger } from './ledger.ts'
import { startProxy, type Proxy } from './proxy.ts'
import { freePort, ServiceProcess } from './service.ts'
import { localToken } from './token.ts'
import { Writer } from './writers.ts'

const TENANTS = ['acme', 'globex', 'initech']
const WRITERS = 4
const START_MS = 90_000
const DRAIN_MS = 90_000
const DAY = 86_400_000

/** Everything that runs now, to be ended when the suite ends, however it ends. */
export const running = new Set<World>()

export class World {
  readonly #seed: number
  readonly #dataDir: string
  readonly #logFile: string
  readonly ledger = new Ledger(TENANTS)
  readonly service: ServiceProcess
  #aheadMs = 0
  #proxy: Proxy | undefined
  #writers: Writer[] = []
  #tokens = new Map<string, string>()
  #operator = ''

  private constructor(dataDir: string, logFile: string, port: number, seed: number, clock: Dice | null) {
    this.#seed = seed
    this.#dataDir = dataDir
    this.#logFile = logFile
    // Some of the starts are days after the last one, so that spans come to their end: of 4 days, of 16, of 64.
    const ahead = (starts: number) => {
      if (clock && starts > 0) this.#aheadMs += clock.pick([0, 0, 1, 5, 5, 17]) * DAY
      return this.#aheadMs
    }
    this.service = new ServiceProcess({ dataDir, port, logFile, ahead })
  }

  /**
   * Starts a service on an empty directory, and the writers when it is ready.
   * @param options.logFile what the service has to say about itself
   * @param options.clockMoves whether the service's clock is moved on by days from one start to the next
   */
  static async open(options: { dataDir: string; logFile: string; seed: number; clockMoves: boolean }): Promise<World> {
    const { dataDir, logFile, seed } = options
    const clock = options.clockMoves ? createDice(seed + 1) : null
    const world = new World(dataDir, logFile, await freePort(), seed, clock)
    running.add(world)
    await world.service.ready(START_MS)
    await world.#start()
    return world
  }

  async #start(): Promise<void> {
    for (const tenant of TENANTS) {
      this.#tokens.set(tenant, await this.#token(tenant, 'analytics:read analytics:write'))
    }
    this.#operator = await this.#token('operator', 'analytics:operate')
    this.#proxy = await startProxy(Number(new URL(this.service.url).port), createDice(this.#seed + 2))
    const { url } = this.#proxy
    this.#writers = Array.from({ length: WRITERS }, (_, at) => {
      const dice = createDice(this.#seed + 10 + at)
      return new Writer({
        name: `w${at}`,
        dice,
        ledger: this.ledger,
        route: () => url,
        tokens: this.#tokens,
        now: () => this.now,
      })
    })
  }

  #token(org: string, scope: string): Promise<string> {
    return localToken(this.#dataDir, org, scope)
  }

  /** Epoch milliseconds on the service's clock. */
  get now(): number {
    return Date.now() + this.#aheadMs
  }

  /** How far the service's clock has been moved on. */
  get daysAhead(): number {
    return Math.round(this.#aheadMs / DAY)
  }

  /** How often the service has logged a message. */
  logged(message: string): number {
    return readFileSync(this.#logFile, 'utf8').split(`"message":"${message}"`).length - 1
  }

  get cuts(): number {
    return this.#proxy?.cuts ?? 0
  }

  /** Answers of 503 and 429 that writers got. */
  get refusals(): number {
    return this.ledger.counts.refusals
  }

  /** One read, as a dashboard does. */
  async read(withinMs = 10_000): Promise<number> {
    const [tenant] = TENANTS
    const response = await fetch(`${this.service.url}/analytics/overview`, {
      headers: { Authorization: `Bearer ${this.#tokens.get(tenant as string)}` },
      signal: AbortSignal.timeout(withinMs),
    })
    await response.arrayBuffer()
    return response.status
  }

  /** One small batch outside the writers and the ledger, under a tenant of its own; how it was answered, and how late. */
  async probe(): Promise<{ status: number; retryAfter: string | null; ms: number }> {
    const started = performance.now()
    const token = await this.#token('probe', 'analytics:write')
    const event = { eventType: 'incomingMessages', timestamp: new Date(this.now), assistant: 'a', user: 'u' }
    const response = await fetch(`${this.service.url}/analytics/events`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(event),
      signal: AbortSignal.timeout(30_000),
    })
    await response.arrayBuffer()
    return {
      status: response.status,
      retryAfter: response.headers.get('Retry-After'),
      ms: Math.round(performance.now() - started),
    }
  }

  /**
   * Waits until the service is well again and the writers have everything stored, checks, and lets them write again.
   * @returns what was found, and how many seconds each of the three took
   */
  async settle(full: boolean, report: (text: string) => void): Promise<{ found: Findings; seconds: number[] }> {
    const seconds: number[] = []
    let since = performance.now()
    const lap = () => {
      seconds.push(Math.round((performance.now() - since) / 100) / 10)
      since = performance.now()
    }
    await this.service.ready(START_MS)
    lap()
    await Promise.all(this.#writers.map((writer) => writer.drain(DRAIN_MS)))
    lap()
    const { service, ledger, now } = this
    const found = await check({ service, ledger, tokens: this.#tokens, operator: this.#operator, now, full, report })
    lap()
    for (const writer of this.#writers) writer.write()
    return { found, seconds }
  }

  async close(): Promise<void> {
    await Promise.race([Promise.all(this.#writers.map((writer) => writer.end())), sleep(20_000, undefined, { ref: false })])
    this.#proxy?.close()
    await this.service.stop()
    running.delete(this)
  }
}
