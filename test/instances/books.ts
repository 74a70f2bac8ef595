/** What is stored, compared with what the callers know. */
import { wasSent, type Listed } from '../faults/check.ts'
import type { Entry, Ledger } from '../faults/ledger.ts'
import type { SentEvent } from '../reference.ts'
import type { NameRow, StoredRow } from './schema.ts'

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

export interface Books {
  ledger: Ledger
  /** Users who were removed, as `personOf` names them. */
  removed: ReadonlySet<string>
  /** What is found is added to this. */
  found: Findings
  /** Told what was found, in words. */
  report: (text: string) => void
}

export const personOf = (tenant: string, user: string): string => `${tenant}\0${user}`

/** The mark that an event has in its trace id, and in its id where it was sent with one. */
export const markOf = ({ traceId, id }: { traceId?: string | null | undefined; id: string }) => traceId || id.slice('id '.length)

/**
 * Compares the raw log with the ledger.
 * @returns the events that should be stored, by tenant, each once, and with an id
 */
export function checkRows({ ledger, removed, found, report }: Books, rows: readonly StoredRow[]): Map<string, SentEvent[]> {
  const entries = new Map<string, Entry>()
  for (const tenant of ledger.tenants) for (const [mark, entry] of ledger.of(tenant)) entries.set(mark, entry)
  const tenantsOf = new Map<string, Set<string>>()
  const keysOf = new Map<string, Set<string>>()
  const ids = new Map<string, string>()
  const doubled: string[] = []
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
      doubled.push(mark)
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
  const lost: string[] = []
  const expected = new Map<string, SentEvent[]>()
  for (const [mark, { tenant, event, state }] of entries) {
    const id = ids.get(mark)
    if (id === undefined && state !== 'stored') continue
    if (id === undefined) {
      found.lost++
      lost.push(mark)
    }
    const list = expected.get(tenant) ?? []
    list.push({ ...event, id: id ?? event.id ?? mark })
    expected.set(tenant, list)
  }
  if (lost.length > 0) report(`acknowledged, and not stored: ${bySender(lost)}`)
  if (doubled.length > 0) report(`stored more than once: ${bySender(doubled)}`)
  for (const [key, tenants] of tenantsOf) {
    if (tenants.size < 2) continue
    found.sharedCompanies += tenants.size
    if (found.sharedCompanies < 8) report(`one number of ${tenants.size} companies: ${key} of ${[...tenants].join(', ')}`)
  }
  for (const [tenant, keys] of keysOf) {
    if (keys.size < 2) continue
    found.doubleNames++
    report(`${tenant} has ${keys.size} numbers`)
  }
  const { accepted, unanswered, refusals } = ledger.counts
  // What was refused, or not answered, may be stored all the same, and its retry is a duplicate.
  if (accepted > ids.size || (unanswered + refusals === 0 && accepted < ids.size)) {
    found.receipts++
    report(`receipts say ${accepted} accepted, and ${ids.size} different events are stored`)
  }
  return expected
}

/** How many of the marks each sender has, and one of them. */
function bySender(marks: readonly string[]): string {
  const senders = new Map<string, string[]>()
  for (const mark of marks) {
    const sender = mark.slice(0, mark.lastIndexOf('-'))
    senders.set(sender, [...(senders.get(sender) ?? []), mark])
  }
  return [...senders].map(([sender, list]) => `${list.length} of ${sender} (${list[0]})`).join(', ')
}

function note(map: Map<string, Set<string>>, key: string, value: string): void {
  const set = map.get(key)
  if (set) set.add(value)
  else map.set(key, new Set([value]))
}

function listed({
  id,
  eventType,
  at,
  assistant,
  user,
  nanos,
  inputTokens,
  outputTokens,
  model,
  traceId,
  metadata,
}: StoredRow): Listed {
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

/** Looks for numbers with two names and names with two numbers, both in the dictionary and in what the log uses. */
export function checkNames({ found, report }: Books, rows: readonly StoredRow[], dictionary: readonly NameRow[]): void {
  const names = new Map<string, Set<string>>()
  const numbers = new Map<string, Set<string>>()
  const add = (tenantKey: string, kind: string, name: string, key: string) => {
    note(names, JSON.stringify([tenantKey, kind, key]), name)
    note(numbers, JSON.stringify([tenantKey, kind, name]), key)
  }
  for (const { tenantKey, kind, name, key } of dictionary) add(tenantKey, kind, name, key)
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
  for (const [key, set] of shared.slice(0, 3))
    report(`one number of ${set.size} names: ${key} of ${[...set].slice(0, 4).join(', ')}`)
  for (const [key, set] of double.slice(0, 3)) report(`one name with ${set.size} numbers: ${key} has ${[...set].join(', ')}`)
}
