/** Compares what is stored, and what each instance answers, with what the callers know, while nobody writes. */
import { countDrift, countWrong, get, wasSent, whole, type Asking, type Listed, type Page } from '../faults/check.ts'
import type { Dice } from '../faults/dice.ts'
import type { Entry } from '../faults/ledger.ts'
import type { SentEvent } from '../reference.ts'
import { personOf, type Deployment } from './deployment.ts'
import { nameRows, storedRows, type StoredRow } from './schema.ts'

/** All of them have to be 0. */
export interface Findings {
  /** Acknowledged events that are not stored. */
  lost: number
  /** Events that are stored more than once: rows too many. */
  doubled: number
  /** Rows that were never sent, or refused, or say something else than what was sent. */
  unexpected: number
  /** Numbers of assistants and users that have two names. */
  sharedNumbers: number
  /** Names of tenants, assistants and users that have two numbers. */
  doubleNames: number
  /** Companies whose number another company has too. */
  sharedCompanies: number
  /** Companies that see events or users of another with their own token. */
  readOthers: number
  /** Days of a tenant and rollup that differ from the raw log. */
  drift: number
  /** Answers of endpoints that differ from what the acknowledged events add up to. */
  wrong: number
  /** Receipts that cannot be right. */
  receipts: number
  /** Events of others without their name after a person was removed, or of the person with it, and removals that failed. */
  removals: number
  /** Times that it took too long until another instance stored. */
  slow: number
  /** Times that an instance which could not store said that it was ready. */
  saidReady: number
  /** Rounds that did not come to their end. */
  failed: number
}

export const NOTHING: Readonly<Findings> = {
  lost: 0,
  doubled: 0,
  unexpected: 0,
  sharedNumbers: 0,
  doubleNames: 0,
  sharedCompanies: 0,
  readOthers: 0,
  drift: 0,
  wrong: 0,
  receipts: 0,
  removals: 0,
  slow: 0,
  saidReady: 0,
  failed: 0,
}

export interface CheckOptions {
  site: Deployment
  dice: Dice
  /** Tenants that read with their own token, at each instance. */
  readers: readonly string[]
  /** Tenants whose figures are added up and compared, at each instance. */
  figures: readonly string[]
  /** What is found is added to this. */
  found: Findings
  /** Told what was found, in words. */
  report: (text: string) => void
}

export async function check(options: CheckOptions): Promise<void> {
  const { site, found, report } = options
  const laps: string[] = []
  let since = performance.now()
  const lap = (what: string) => {
    laps.push(`${what} ${((performance.now() - since) / 1000).toFixed(1)}`)
    since = performance.now()
  }
  const rows = await storedRows(site.sql)
  const stored = checkRows(options, rows)
  await checkNames(options, rows)
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
    found.drift += await countDrift({ service: first.service, tokens: site.tokens, operator: site.operator, now: Date.now(), report })
  }
  lap('reconcile')
  report(laps.join(', '))
}

/** The mark that an event has in its trace id, and in its id where it was sent with one. */
const markOf = ({ traceId, id }: { traceId?: string | null | undefined; id: string }) => traceId || id.slice('id '.length)

/** @returns the events that should be stored, by tenant, each once, and with an id */
function checkRows({ site, found, report }: CheckOptions, rows: readonly StoredRow[]): Map<string, SentEvent[]> {
  const { ledger, removed } = site
  const entries = new Map<string, Entry>()
  for (const tenant of ledger.tenants) for (const [mark, entry] of ledger.of(tenant)) entries.set(mark, entry)
  const tenantsOf = new Map<string, Set<string>>()
  const keysOf = new Map<string, Set<string>>()
  const ids = new Map<string, string>()
  for (const row of rows) {
    const mark = markOf(row)
    const entry = entries.get(mark)
    if (!entry) {
      found.unexpected++
      report(`stored, and nobody made it: ${JSON.stringify(row)}`)
      continue
    }
    note(tenantsOf, row.tenantKey, entry.tenant)
    note(keysOf, entry.tenant, row.tenantKey)
    if (ids.has(mark)) {
      found.doubled++
      report(`stored twice: ${mark} of ${entry.tenant}, it is ${entry.state}`)
      continue
    }
    ids.set(mark, row.id)
    const isRemoved = removed.has(personOf(entry.tenant, entry.event.user))
    if (isRemoved !== (row.user === '') || (isRemoved && row.traceId + row.metadata !== '')) {
      found.removals++
      report(`${entry.event.user} ${isRemoved ? 'was' : 'was not'} removed, and the event ${mark} is of "${row.user}"`)
    } else if (!isRemoved && !wasSent(entry, listed(row))) {
      found.unexpected++
      report(`stored: ${JSON.stringify(row)}, and made: ${JSON.stringify(entry)}`)
    }
  }
  const expected = new Map<string, SentEvent[]>()
  for (const [mark, { tenant, event, state }] of entries) {
    const id = ids.get(mark)
    if (id === undefined && state !== 'stored') continue
    if (id === undefined) {
      found.lost++
      report(`acknowledged, and not stored: ${mark} of ${tenant}`)
    }
    const list = expected.get(tenant) ?? []
    list.push({ ...event, id: id ?? event.id ?? mark })
    expected.set(tenant, list)
  }
  for (const [key, tenants] of tenantsOf) {
    if (tenants.size < 2) continue
    found.sharedCompanies += tenants.size
    report(`one number of ${tenants.size} companies: ${key} of ${[...tenants].join(', ')}`)
  }
  for (const [tenant, keys] of keysOf) {
    if (keys.size < 2) continue
    found.doubleNames++
    report(`${tenant} has ${keys.size} numbers`)
  }
  if (ledger.counts.accepted > ids.size || (ledger.counts.unanswered === 0 && ledger.counts.accepted < ids.size)) {
    found.receipts++
    report(`receipts say ${ledger.counts.accepted} accepted, and ${ids.size} different events are stored`)
  }
  return expected
}

function note(map: Map<string, Set<string>>, key: string, value: string): void {
  const set = map.get(key)
  if (set) set.add(value)
  else map.set(key, new Set([value]))
}

function listed({ id, eventType, at, assistant, user, nanos, inputTokens, outputTokens, model, traceId, metadata }: StoredRow): Listed {
  return {
    id,
    eventType,
    timestamp: new Date(at).toISOString(),
    assistant,
    user,
    cost: nanos / 1e9,
    inputTokens,
    outputTokens,
    model: (model || null) as string,
    traceId,
    metadata: (metadata === '' ? null : JSON.parse(metadata)) as object,
  }
}

/** Both what the dictionary says and what the log uses. */
async function checkNames({ site, found, report }: CheckOptions, rows: readonly StoredRow[]): Promise<void> {
  const names = new Map<string, Set<string>>()
  const numbers = new Map<string, Set<string>>()
  const add = (tenantKey: string, kind: string, name: string, key: string) => {
    note(names, JSON.stringify([tenantKey, kind, key]), name)
    note(numbers, JSON.stringify([tenantKey, kind, name]), key)
  }
  for (const { tenantKey, kind, name, key } of await nameRows(site.sql)) if (kind !== 'tenant') add(tenantKey, kind, name, key)
  for (const { tenantKey, assistant, assistantNo, user, userNo } of rows) {
    add(tenantKey, 'assistant', assistant, String(assistantNo))
    if (user !== '') add(tenantKey, 'user', user, String(userNo))
  }
  const [shared, double] = [names, numbers].map((map) => [...map].filter(([, set]) => set.size > 1)) as [
    Array<[string, Set<string>]>,
    Array<[string, Set<string>]>,
  ]
  found.sharedNumbers += shared.length
  found.doubleNames += double.length
  for (const [key, set] of shared.slice(0, 5)) report(`one number of ${set.size} names: ${key} of ${[...set].slice(0, 4).join(', ')}`)
  for (const [key, set] of double.slice(0, 5)) report(`one name with ${set.size} numbers: ${key} has ${[...set].join(', ')}`)
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
      const top = queue.length % RANKED_EVERY === 0 ? (await get<{ data: Listed[] }>(asking, tenant, 'users/top', range)).data : []
      const strangers = top.filter(({ user }) => !users.has(user))
      if (others.length + strangers.length === 0) continue
      found.add(tenant)
      asking.report(`${tenant} reads ${others.length} events of others, ${strangers.length} users: ${JSON.stringify(others[0] ?? strangers[0])}`)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return found
}
