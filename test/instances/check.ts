/** Compares what is stored, and what each instance answers, with what the callers know, while nobody writes. */
import { countDrift, countWrong, get, whole, type Asking, type Listed, type Page } from '../faults/check.ts'
import { checkNames, checkRows, markOf, personOf, type Books, type Findings } from './books.ts'
import type { Deployment } from './deployment.ts'
import { nameRows, storedRows } from './schema.ts'

export interface CheckOptions {
  site: Deployment
  /** Tenants that read with their own token, at each instance. */
  readers: readonly string[]
  /** Tenants whose figures are added up and compared, at each instance. */
  figures: readonly string[]
  /** What is found is added to this. */
  found: Findings
  /** Told what was found, in words. */
  report: (text: string) => void
}

/** @returns what took how many seconds, in words */
export async function check(options: CheckOptions): Promise<string> {
  const { site, found, report } = options
  const laps = new Map<string, number>()
  let since = performance.now()
  const lap = (what: string) => {
    const now = performance.now()
    laps.set(what, (laps.get(what) ?? 0) + now - since)
    since = now
  }
  const rows = await storedRows(site.sql)
  const books: Books = { ledger: site.ledger, removed: site.removed, found, report }
  const stored = checkRows(books, rows)
  checkNames(books, rows, await nameRows(site.sql))
  lap('rows')
  const strangers = new Set<string>()
  for (const instance of site.instances) {
    const asking: Asking = {
      service: instance.service,
      tokens: site.tokens,
      operator: site.operator,
      now: Date.now(),
      report: (text) => report(`${instance.name}: ${text}`),
    }
    for (const tenant of await readersOfOthers(options, asking)) strangers.add(tenant)
    lap('readers')
    for (const tenant of options.figures) {
      const mine = stored.get(tenant) ?? []
      const named = mine.filter(({ user }) => !site.removed.has(personOf(tenant, user)))
      found.wrong += await countWrong(asking, tenant, mine, named.length < mine.length ? named : mine)
    }
    lap('figures')
  }
  found.readOthers += strangers.size
  const [first] = site.instances
  if (first) {
    found.drift += await countDrift({
      service: first.service,
      tokens: site.tokens,
      operator: site.operator,
      now: Date.now(),
      report,
    })
  }
  lap('reconcile')
  return [...laps].map(([what, ms]) => `${what} ${(ms / 1_000).toFixed(1)} s`).join(', ')
}

/** Requests at once, and of how many companies one ranks its users too. */
const AT_ONCE = 6
const RANKED_EVERY = 4

/** Each company asks with its own token and must see its own events and users, and no others; returns those that do not. */
async function readersOfOthers({ site, readers }: CheckOptions, asking: Asking): Promise<Set<string>> {
  const { ledger } = site
  const queue = [...readers]
  const found = new Set<string>()
  const work = async () => {
    for (let tenant = queue.shift(); tenant !== undefined; tenant = queue.shift()) {
      const own = ledger.of(tenant)
      const users = new Set([...own.values()].map(({ event }) => event.user))
      const range = { ...whole(asking), limit: '1000' }
      const { data } = await get<Page>(asking, tenant, 'events', range)
      const others = data.filter((event) => !own.has(markOf(event)))
      // A ranking costs more, and holds the same names.
      const top =
        queue.length % RANKED_EVERY === 0 ? (await get<{ data: Listed[] }>(asking, tenant, 'users/top', range)).data : []
      const strangers = top.filter(({ user }) => !users.has(user))
      if (others.length + strangers.length === 0) continue
      found.add(tenant)
      asking.report(
        `${tenant} reads ${others.length} events of others, ${strangers.length} users: ${JSON.stringify(others[0] ?? strangers[0])}`,
      )
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return found
}
