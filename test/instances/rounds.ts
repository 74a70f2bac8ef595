/** The kinds of rounds: what is done to the instances while callers write. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Dice } from '../faults/dice.ts'
import type { Entry } from '../faults/ledger.ts'
import type { Findings } from './check.ts'
import type { ClickHouse } from './clickhouse.ts'
import type { Deployment } from './deployment.ts'
import { rivals, stream } from './traffic.ts'

export interface Scene {
  readonly site: Deployment
  readonly clickhouse: ClickHouse
  readonly dice: Dice
  /** No other round has this name; it starts the names of what the round makes. */
  readonly name: string
  readonly short: boolean
  /** Tenants that are to read with their own token afterwards, besides a few that are picked. */
  readonly readers: string[]
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
function fresh({ site, dice, name }: Scene, count: number): Entry[] {
  return Array.from({ length: count }, (_, at) => {
    const user = dice.chance(0.5) ? `user ${dice.between(1, 300)}` : `user ${name}-${dice.between(1, count)}`
    return site.make(dice, at % 3 === 0 ? 'acme' : `tenant ${name}`, user)
  })
}

const sameIds: Kind = {
  title: 'the same ids to all at once',
  async run(scene) {
    const { site, dice, short } = scene
    const entries = fresh(scene, short ? 1_500 : 3_000)
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
    const entries = fresh(scene, short ? 2_000 : 6_000)
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
      const make = () => site.make(dice, company, `user ${company} ${dice.between(1, 3)}`, { metadata: { of: company } })
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

export const KINDS: Readonly<Record<string, Kind>> = { sameIds, loadBalancer, newCompanies }
