/** The kinds of rounds: what is done to the instances while callers write. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Dice } from '../faults/dice.ts'
import type { Entry } from '../faults/ledger.ts'
import { startProxy } from '../faults/proxy.ts'
import { personOf, type Findings } from './books.ts'
import type { ClickHouse } from './clickhouse.ts'
import type { Deployment, Instance } from './deployment.ts'
import { STORES_EVENTS, STORES_NAMES } from './schema.ts'
import { keepRivals, rivals, send, stream } from './traffic.ts'

export interface Scene {
  readonly site: Deployment
  readonly clickhouse: ClickHouse
  readonly dice: Dice
  /** No other round has this name; it starts the names of what the round makes. */
  readonly name: string
  readonly short: boolean
  /** Tenants that are to read with their own token afterwards, besides a few that are picked. */
  readonly readers: string[]
  /** Called when the round has been checked. */
  readonly afterwards: Array<() => void>
  /** Found while the round runs. */
  readonly found: Findings
  readonly report: (text: string) => void
}

export interface Kind {
  readonly title: string
  /** No other round may follow on the same deployment. */
  readonly spends?: true
  /** @returns what was done, in a few words */
  run(scene: Scene): Promise<string>
}

/** New events of two tenants, one of them new, by users half of whom are new. */
function fresh({ site, dice, name }: Scene, sender: string, count: number): Entry[] {
  return Array.from({ length: count }, (_, at) => {
    const user = dice.chance(0.5) ? `user ${dice.between(1, 300)}` : `user ${name}-${dice.between(1, count)}`
    return site.make(dice, sender, at % 3 === 0 ? 'acme' : `tenant ${name}`, user)
  })
}

const sameIds: Kind = {
  title: 'the same ids to all at once',
  async run(scene) {
    const { site, dice, short } = scene
    const entries = fresh(scene, 'sameIds', short ? 1_500 : 3_000)
    await rivals(site, dice, entries)
    site.write(dice, scene.name, { count: 2 })
    await sleep(short ? 1_000 : 3_000)
    return `${entries.length} ids over one connection each`
  },
}

const loadBalancer: Kind = {
  title: 'a load balancer: every id to one instance only',
  async run(scene) {
    const { site, dice, short, name } = scene
    const entries = fresh(scene, 'balanced', short ? 2_000 : 6_000)
    const { length } = site.instances
    site.write(dice, name, { count: length, urls: (writer) => site.url(writer), ownOnly: true })
    await Promise.all(
      site.instances.map((_, at) =>
        stream({ site, dice, entries: entries.filter((__, index) => index % length === at), url: () => site.url(at) }),
      ),
    )
    return `${entries.length} ids`
  },
}

const CALLERS = 6

const newCompanies: Kind = {
  title: 'new companies at all instances at once',
  async run({ site, dice, short, name, readers }) {
    const companies = Array.from({ length: short ? 80 : 300 }, (_, at) => `company ${name}-${at}`)
    readers.push(...companies)
    // The first events of each go to one instance, those that follow to another.
    const work = companies.map((company, at) => {
      const make = () =>
        site.make(dice, 'company', company, `user ${company} ${dice.between(1, 3)}`, { metadata: { of: company } })
      return { company, at, first: [make(), make()], more: [make()] }
    })
    await Promise.all(
      site.instances.map(async (_, instance) => {
        const mine = work.filter(({ at }) => at % site.instances.length === instance)
        const caller = async () => {
          for (let next = mine.shift(); next; next = mine.shift()) {
            await stream({ site, dice, entries: next.first, url: (tries) => site.url(instance + tries) })
            await stream({ site, dice, entries: next.more, url: (tries) => site.url(instance + 1 + tries) })
          }
        }
        await Promise.all(Array.from({ length: CALLERS }, caller))
      }),
    )
    return `${companies.length} companies`
  },
}

/** How soon another instance has to store again, in milliseconds, and after how long one that cannot has to say so. */
const STORES_WITHIN_MS = 10_000
const SAYS_WITHIN_MS = 5_000
/** Between two batches that try whether an instance stores, and how long they are tried at most. */
const PROBE_EVERY_MS = 500
const PROBE_FOR_MS = 60_000

/**
 * Waits until an instance stores something that was sent from now on.
 * @returns after how many milliseconds, and how many of them later than SAYS_WITHIN_MS it said that it was ready meanwhile
 */
async function untilStores({ site, dice, name }: Scene, instance: Instance): Promise<{ ms: number; saidReadyMs: number }> {
  const begun = performance.now()
  /** After how long each probe was acknowledged that was. */
  const stored: number[] = []
  const probe = async () => {
    const entry = site.make(dice, 'probe', `probe ${name}`, 'prober')
    const { status } = await send(site, dice, entry.tenant, [entry], instance.service.url)
    if (status === 'stored') stored.push(performance.now() - begun)
  }
  let saidReadyMs = 0
  const probes: Array<Promise<void>> = []
  while (stored.length === 0 && performance.now() < begun + PROBE_FOR_MS) {
    probes.push(probe())
    const asked = performance.now()
    const saysReady = await instance.service.isReady()
    if (saysReady && stored.length === 0 && asked > begun + SAYS_WITHIN_MS) saidReadyMs += PROBE_EVERY_MS
    await sleep(Math.max(0, asked + PROBE_EVERY_MS - performance.now()))
  }
  await Promise.all(probes)
  return { ms: Math.min(PROBE_FOR_MS, ...stored), saidReadyMs }
}

/** How another instance took over, in words; notes what is wrong about it. */
async function takeOver(scene: Scene, others: readonly Instance[]): Promise<string> {
  const { found, report } = scene
  const waits = await Promise.all(
    others.map(async (instance) => {
      const { ms, saidReadyMs } = await untilStores(scene, instance)
      if (ms > STORES_WITHIN_MS) found.slow++
      if (saidReadyMs > 0) {
        found.saidReady++
        report(
          `${instance.name} could not store for ${(ms / 1_000).toFixed(1)} s, and said for ${saidReadyMs / 1_000} s of them that it was ready`,
        )
      }
      return `${instance.name} stores after ${(ms / 1_000).toFixed(1)} s`
    }),
  )
  return waits.join(', ')
}

const killed: Kind = {
  title: 'the instance that stores is killed',
  async run(scene) {
    const { site, dice, name, short } = scene
    site.write(dice, name, { count: 3 })
    const sending = keepRivals(site, dice, () => fresh(scene, 'rivals', 200), { timeoutMs: 4_000 })
    await sleep(dice.between(500, 2_000))
    const victim = await site.nextToStore(20_000)
    await sleep(dice.between(0, 30))
    // Long enough away for the others to have to do without it.
    await site.kill(victim, short ? 15_000 : 40_000)
    const others = site.instances.filter((instance) => instance !== victim)
    const what = await takeOver(scene, others)
    await sending.stop()
    return `${victim.name} killed, ${what}`
  },
}

const stopped: Kind = {
  title: 'an instance is stopped past its lease and goes on',
  async run(scene) {
    const { site, dice, name, short } = scene
    site.write(dice, name, { count: 3 })
    const sending = keepRivals(site, dice, () => fresh(scene, 'rivals', 200), { timeoutMs: 2_000 })
    await sleep(dice.between(500, 2_000))
    const victim = await site.nextToStore(20_000)
    await sleep(dice.between(0, 10))
    const pid = await victim.service.signal('service', 'SIGSTOP')
    const ms = short ? 12_000 : dice.pick([12_000, 16_000, 20_000, 36_000])
    const resumed = sleep(ms).then(() => victim.service.resume(pid))
    try {
      const what = await takeOver(
        scene,
        site.instances.filter((instance) => instance !== victim),
      )
      await resumed
      await sleep(2_000)
      return `${victim.name} stopped for ${ms / 1_000} s, ${what}`
    } finally {
      victim.service.resume(pid)
      await sending.stop()
    }
  },
}

const stalled: Kind = {
  title: 'bodies of inserts stall while callers retry through another instance',
  async run(scene) {
    const { site, dice, short } = scene
    const ms = short ? 15_000 : dice.between(20_000, 40_000)
    const statement = dice.pick([STORES_EVENTS, STORES_EVENTS, STORES_NAMES])
    const at = dice.between(0, site.instances.length - 1)
    const { gateway } = site.instances[at] as Instance
    // One of them at a time, as a network stalls one connection and not another.
    let left = short ? 1 : 2
    gateway.fault = (text) => (statement.test(text) && gateway.stalled === 0 && left-- > 0 ? { kind: 'stall', ms } : undefined)
    const entries = fresh(scene, 'stalled', short ? 200 : 600)
    await Promise.all([
      stream({ site, dice, entries, timeoutMs: 3_000, url: (tries) => site.url(at + tries) }),
      sleep(1_000).then(() => stream({ site, dice, entries, timeoutMs: 12_000, most: 40, url: () => site.url(at + 1) })),
    ])
    while (gateway.stalled > 0) await sleep(100)
    site.write(dice, scene.name, { count: 2 })
    await sleep(1_000)
    return `${statement === STORES_NAMES ? 'names' : 'events'} of ${site.instances[at]?.name} for ${ms / 1_000} s`
  },
}

/** Of the requests to ClickHouse, this share meets a fault: one group of events makes a dozen of them. */
const CUT = 0.03

const cuts: Kind = {
  title: 'connections are cut and answers lost, on both sides',
  async run(scene) {
    const { site, dice, short, name } = scene
    const proxies = await Promise.all(site.instances.map(({ service }) => startProxy(Number(new URL(service.url).port), dice)))
    for (const { gateway } of site.instances) {
      gateway.fault = () => (dice.chance(CUT) ? { kind: dice.pick(['refuse', 'cut', 'lose'] as const) } : undefined)
    }
    const before = site.faults
    site.write(dice, name, { count: 6, urls: () => dice.pick(proxies).url })
    const sending = keepRivals(site, dice, () => fresh(scene, 'rivals', 200), { timeoutMs: 3_000 })
    await sleep(short ? 6_000 : 15_000)
    const faults = site.faults - before
    for (const { gateway } of site.instances) gateway.fault = () => undefined
    await sending.stop()
    // Until the writers have everything stored.
    scene.afterwards.push(() => proxies.forEach((proxy) => proxy.close()))
    return `${faults} before ClickHouse, ${proxies.reduce((sum, proxy) => sum + proxy.cuts, 0)} before the instances`
  },
}

/** How long inserts of one instance fail. */
const FAILS_MS = 3_000

const failing: Kind = {
  title: 'inserts of one instance fail for 3 s while another stores some of their events',
  async run(scene) {
    const { site, dice, short, name } = scene
    let times = 0
    for (; times < (short ? 2 : 4); times++) {
      const at = dice.between(0, site.instances.length - 1)
      const [url, elsewhere] = [site.url(at), site.url(at + 1)]
      const { gateway } = site.instances[at] as Instance
      const kind = dice.pick(['refuse', 'cut'] as const)
      gateway.fault = (statement) => (STORES_EVENTS.test(statement) ? { kind } : undefined)
      const restored = sleep(FAILS_MS).then(() => (gateway.fault = () => undefined))
      const one = (sender: string) => [site.make(dice, sender, `tenant ${name}`, `user ${name}-${dice.between(1, 50)}`)]
      // All in one group of the instance whose inserts fail: of half of them the callers retry elsewhere at once.
      const [impatient, patient] = ['impatient', 'patient'].map((sender) => Array.from({ length: 5 }, () => one(sender))) as [
        Entry[][],
        Entry[][],
      ]
      const waiting = [...impatient, ...patient].map((entries, index) =>
        stream({
          site,
          dice,
          entries,
          timeoutMs: index < 5 ? 400 : 12_000,
          url: (tries) => (tries === 0 || index >= 5 ? url : elsewhere),
        }),
      )
      // Stored by another one meanwhile, and then sent here too.
      const later = Array.from({ length: 5 }, () => one('twice'))
      const twice = later.map(async (entries) => {
        await sleep(300)
        await stream({ site, dice, entries, url: () => elsewhere })
        await stream({ site, dice, entries, url: () => url })
      })
      await Promise.all([...waiting, ...twice, restored])
    }
    site.write(dice, name, { count: 2 })
    await sleep(1_000)
    return `${times} times`
  },
}

const slowNetwork: Kind = {
  title: 'ClickHouse is 100 to 200 ms further away',
  async run(scene) {
    const { site, dice, short, name } = scene
    const all = dice.chance(0.5)
    const far = all ? site.instances : [dice.pick(site.instances)]
    for (const { gateway } of far) gateway.latencyMs = dice.between(100, 200)
    const what = far.map((instance) => `${instance.name} ${instance.gateway.latencyMs} ms`).join(', ')
    site.write(dice, name, { count: 2 })
    const entries = fresh(scene, 'sameIds', short ? 400 : 1_500)
    await rivals(site, dice, entries)
    return `${what}, ${entries.length} ids`
  },
}

const CLOCKS_APART_MS = 600_000

const clocks: Kind = {
  title: 'the clocks of two instances are 10 minutes apart',
  spends: true,
  async run(scene) {
    const { site, dice, short, name } = scene
    const ahead = dice.pick(site.instances)
    ahead.aheadMs = CLOCKS_APART_MS
    await site.restart()
    site.write(dice, name, { count: 3 })
    await rivals(site, dice, fresh(scene, 'apart', short ? 800 : 2_000))
    // The one ahead, or the one behind, ends while it stores.
    const victim = await site.nextToStore(20_000)
    await site.kill(victim, 500)
    await rivals(site, dice, fresh(scene, 'killed', short ? 400 : 1_000), { timeoutMs: 4_000 })
    return `${ahead.name} is ahead`
  },
}

const PEOPLE = 6

const removals: Kind = {
  title: 'people are removed while all instances store',
  async run(scene) {
    const { site, dice, short, name, found, report } = scene
    const tenant = `tenant ${name}`
    const people = Array.from({ length: PEOPLE }, (_, at) => `person ${name}-${at}`)
    const entries = Array.from({ length: short ? 500 : 1_500 }, (_, at) =>
      site.make(dice, 'people', tenant, at % 5 === 0 ? dice.pick(people) : `user ${name}-${dice.between(1, 400)}`),
    )
    // As a load balancer does it, so that names are new at all instances at once.
    const { length } = site.instances
    await Promise.all(
      site.instances.map((_, at) =>
        stream({ site, dice, most: 40, entries: entries.filter((__, index) => index % length === at), url: () => site.url(at) }),
      ),
    )
    site.write(dice, name, { count: 3 })
    const sending = keepRivals(site, dice, () => fresh(scene, 'rivals', 100))
    const queue = people.entries()
    const work = async () => {
      for (const [at, person] of queue) {
        const events = entries.filter(({ event }) => event.user === person).length
        const said = await remove(scene, tenant, person, at)
        site.removed.add(personOf(tenant, person))
        if (said === events || events === 0) continue
        found.removals++
        report(`${person} had ${events} events, and the receipt says ${said}`)
      }
    }
    await Promise.all([work(), work()])
    await sending.stop()
    return `${people.length} people`
  },
}

/** Removes a person through one instance, by another at each try; how many events the receipt says that there were. */
async function remove({ site }: Scene, tenant: string, person: string, at: number): Promise<number | string> {
  let said = ''
  for (let tries = 0; tries < 20; tries++, await sleep(1_000)) {
    const response = await fetch(`${site.url(at + tries)}/analytics/users/${encodeURIComponent(person)}`, {
      method: 'DELETE',
      headers: { Authorization: `Bearer ${site.tokens.get(tenant)}` },
      signal: AbortSignal.timeout(60_000),
    })
    const text = await response.text()
    if (response.status === 200) return (JSON.parse(text) as { data: { events: number } }).data.events
    said = `${response.status} ${text.slice(0, 200)}`
    if (response.status !== 503) break
  }
  return said
}

const clickhouseKilled: Kind = {
  title: 'ClickHouse is killed while all instances store',
  async run(scene) {
    const { site, clickhouse, dice, short, name } = scene
    site.write(dice, name, { count: 3 })
    const sending = keepRivals(site, dice, () => fresh(scene, 'rivals', 200), { timeoutMs: 4_000 })
    const times = short ? 1 : dice.between(1, 3)
    for (let kill = 0; kill < times; kill++) {
      await sleep(dice.between(500, 2_000))
      await site.nextToStore(30_000)
      await sleep(dice.between(0, 40))
      clickhouse.kill()
    }
    await clickhouse.ready()
    await sleep(1_000)
    await sending.stop()
    return `${times} times`
  },
}

export const KINDS: Readonly<Record<string, Kind>> = {
  sameIds,
  loadBalancer,
  newCompanies,
  killed,
  stopped,
  stalled,
  cuts,
  failing,
  slowNetwork,
  clocks,
  removals,
  clickhouseKilled,
}
