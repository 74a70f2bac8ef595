/** Several instances of the service on one ClickHouse, each behind a network of its own, and what their callers know. */
import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Dice } from '../faults/dice.ts'
import { Ledger, type Entry } from '../faults/ledger.ts'
import { freePort, ServiceProcess } from '../faults/service.ts'
import { Writer, type Why } from '../faults/writers.ts'
import { EVENT_TYPES } from '../reference.ts'
import type { ClickHouse, Sql } from './clickhouse.ts'
import { startGateway, type Gateway } from './gateway.ts'
import { STORES_EVENTS } from './schema.ts'
import { SharedTokens } from './tokens.ts'

const START_MS = 90_000
const DRAIN_MS = 90_000
/** Instances agree within this time: what they have answered before is not kept for longer. */
const AGREE_MS = 2_200

export interface Instance {
  readonly name: string
  readonly service: ServiceProcess
  readonly gateway: Gateway
  /** How far its clock runs ahead from its next start on. */
  aheadMs: number
}

/** Everything that runs now, to be ended when the suite ends, however it ends. */
export const running = new Set<Deployment>()

export interface DeploymentOptions {
  clickhouse: ClickHouse
  /** For the data and the logs of the instances. */
  directory: string
  instances: number
}

export class Deployment {
  readonly #clickhouse: ClickHouse
  readonly database = `analytics_test_${randomBytes(6).toString('hex')}`
  readonly ledger = new Ledger(['acme', 'globex'])
  readonly tokens = new SharedTokens()
  readonly operator = this.tokens.sign('operator', 'analytics:operate')
  readonly instances: Instance[] = []
  /** Users who were removed, as `personOf` names them. */
  readonly removed = new Set<string>()
  #writers: Writer[] = []
  #marks = 0

  private constructor(clickhouse: ClickHouse) {
    this.#clickhouse = clickhouse
  }

  /** Starts the instances at once, on a new database. */
  static async open({ clickhouse, directory, instances }: DeploymentOptions): Promise<Deployment> {
    const site = new Deployment(clickhouse)
    running.add(site)
    for (let at = 0; at < instances; at++) {
      const name = 'ABC'[at] as string
      const gateway = await startGateway(clickhouse.url)
      const dataDir = join(directory, site.database, name)
      mkdirSync(dataDir, { recursive: true })
      const port = await freePort()
      const service = new ServiceProcess({
        dataDir,
        port,
        logFile: join(directory, `${site.database}-${name}.log`),
        ahead: () => site.instances[at]?.aheadMs ?? 0,
        env: { ...clickhouse.settings(gateway.url, site.database), JWT_SECRET: site.tokens.secret },
      })
      site.instances.push({ name, service, gateway, aheadMs: 0 })
    }
    await site.ready()
    return site
  }

  get sql(): Sql {
    return this.#clickhouse.sql(this.database)
  }

  /** Waits until every instance says that it can read and write. */
  async ready(): Promise<void> {
    await this.#clickhouse.ready()
    await Promise.all(this.instances.map(({ service }) => service.ready(START_MS)))
  }

  url(at: number): string {
    return (this.instances[at % this.instances.length] as Instance).service.url
  }

  /** Ends an instance with SIGKILL; it is started again after `awayMs`. */
  async kill({ service }: Instance, awayMs: number): Promise<void> {
    service.respawnMs = awayMs
    await service.signal('service', 'SIGKILL')
  }

  /** The instance that next sends an insert of events to ClickHouse, when the statement is on its way. */
  nextToStore(withinMs: number): Promise<Instance> {
    return new Promise((resolve, reject) => {
      const stop = () => {
        clearTimeout(timer)
        for (const { gateway } of this.instances) gateway.fault = () => undefined
      }
      const timer = setTimeout(() => {
        stop()
        reject(new Error(`no instance stored anything within ${withinMs / 1_000} s`))
      }, withinMs)
      for (const instance of this.instances) {
        instance.gateway.fault = (statement) => {
          if (STORES_EVENTS.test(statement)) {
            stop()
            resolve(instance)
          }
          return undefined
        }
      }
    })
  }

  /**
   * Makes an event that nobody has sent yet, with an id.
   * @param sender who it is made for, in one word: findings are told apart by it
   */
  make(dice: Dice, sender: string, tenant: string, user: string, more: { metadata?: object } = {}): Entry {
    this.ledger.open(tenant)
    const mark = `${sender}-${this.#marks++}`
    const event = {
      id: `id ${mark}`,
      eventType: dice.pick(EVENT_TYPES),
      timestamp: new Date(Date.now() - dice.between(0, dice.pick([3_600_000, 40 * 86_400_000]))).toISOString(),
      assistant: `assistant ${dice.between(1, 8)}`,
      user,
      traceId: mark,
      ...(dice.chance(0.4) ? { cost: dice.between(0, 2_000_000) / 1e9, inputTokens: dice.between(0, 9_000) } : {}),
      ...more,
    }
    return this.ledger.add({ tenant, event, state: 'held' })
  }

  /** Starts writers; `urls` says where each sends to, by default to any, and what was not answered to another. */
  write(dice: Dice, name: string, options: { count: number; urls?: (writer: number) => string; ownOnly?: boolean }): void {
    const { count, urls, ownOnly = false } = options
    for (let writer = 0; writer < count; writer++) {
      let last = 0
      const route = (why: Why) => {
        if (urls) return urls(writer)
        last = why === 'new' ? dice.between(0, this.instances.length - 1) : last + dice.between(1, this.instances.length - 1)
        return this.url(last)
      }
      const { ledger, tokens } = this
      const newcomers = { tenants: 0.1, users: 0.3 }
      this.#writers.push(
        new Writer({ name: `${name}w${writer}`, dice, ledger, route, tokens, now: Date.now, newcomers, ownOnly }),
      )
    }
  }

  /**
   * Waits until every instance is well again and everything the writers want stored is stored, and ends the writers.
   * @returns how many seconds the two took
   */
  async settle(): Promise<number[]> {
    const begun = performance.now()
    for (const { gateway } of this.instances) {
      gateway.fault = () => undefined
      gateway.latencyMs = 0
    }
    while (this.instances.some(({ gateway }) => gateway.stalled > 0)) await sleep(100)
    await this.ready()
    const ready = performance.now()
    await Promise.all(this.#writers.map((writer) => writer.drain(DRAIN_MS)))
    await this.endWriters()
    const drained = performance.now()
    await sleep(AGREE_MS)
    return [ready - begun, drained - ready].map((ms) => Math.round(ms / 100) / 10)
  }

  /** Starts all instances again, with their clocks ahead as `aheadMs` says. */
  async restart(): Promise<void> {
    const starts = this.instances.map(({ service }) => service.starts)
    for (const instance of this.instances) await this.kill(instance, 100)
    while (this.instances.some(({ service }, at) => service.starts === starts[at])) await sleep(50)
    await this.ready()
  }

  async endWriters(): Promise<void> {
    await Promise.race([Promise.all(this.#writers.map((writer) => writer.end())), sleep(20_000, undefined, { ref: false })])
    this.#writers = []
  }

  get faults(): number {
    return this.instances.reduce((sum, { gateway }) => sum + gateway.faults, 0)
  }

  async close(): Promise<void> {
    await this.endWriters()
    await Promise.all(this.instances.map(({ service }) => service.stop()))
    for (const { gateway } of this.instances) gateway.close()
    running.delete(this)
    await this.#clickhouse.ready()
    await this.#clickhouse.drop(this.database)
  }
}
