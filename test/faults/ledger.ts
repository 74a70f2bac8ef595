/** What the writers know: every event they made, whether it was sent, and whether a 2xx said that it is stored. */
import type { SentEvent } from '../reference.ts'

/**
 * - `held`: never sent, so it must not be there
 * - `sent`: sent at least once, no 2xx came back; it is there once or not at all
 * - `stored`: a 2xx counted it as accepted or duplicate; it is there exactly once
 * - `refused`: sent with the id of another, stored event; it must not be there
 */
export type State = 'held' | 'sent' | 'stored' | 'refused'

export interface Entry {
  readonly tenant: string
  /** Without an id where the service has to make one up. */
  readonly event: Omit<SentEvent, 'id'> & { id?: string; traceId: string }
  state: State
}

export class Ledger {
  /** By tenant and trace id, which no two events of a tenant share. */
  readonly #entries = new Map<string, Map<string, Entry>>()
  /** Stored events with an id, by tenant, to send again. */
  readonly #stored = new Map<string, Entry[]>()
  /** `accepted` adds up the receipts; `refusals` are answers of 503 and 429. */
  readonly counts = { events: 0, requests: 0, sent: 0, stored: 0, accepted: 0, refusals: 0, unanswered: 0 }
  /** Answers that cannot be right, in words. */
  readonly complaints: string[] = []

  readonly #tenants: string[] = []

  constructor(tenants: readonly string[]) {
    for (const tenant of tenants) this.open(tenant)
  }

  /** In the order in which they were opened. */
  get tenants(): readonly string[] {
    return this.#tenants
  }

  /** Starts a page for a tenant, unless there is one. */
  open(tenant: string): void {
    if (this.#entries.has(tenant)) return
    this.#tenants.push(tenant)
    this.#entries.set(tenant, new Map())
    this.#stored.set(tenant, [])
  }

  add(entry: Entry): Entry {
    this.of(entry.tenant).set(entry.event.traceId, entry)
    this.counts.events++
    if (entry.state === 'refused') this.counts.sent++
    return entry
  }

  of(tenant: string): Map<string, Entry> {
    const entries = this.#entries.get(tenant)
    if (!entries) throw new Error(`no tenant ${tenant}`)
    return entries
  }

  storedOf(tenant: string): readonly Entry[] {
    return this.#stored.get(tenant) ?? []
  }

  markSent(entries: Iterable<Entry>): void {
    for (const entry of entries) {
      if (entry.state !== 'held') continue
      entry.state = 'sent'
      this.counts.sent++
    }
  }

  markStored(entry: Entry): void {
    if (entry.state !== 'sent') return
    entry.state = 'stored'
    this.counts.stored++
    // Without an id it would be another event.
    if (entry.event.id !== undefined) this.#stored.get(entry.tenant)?.push(entry)
  }

  complain(text: string): void {
    this.complaints.push(text)
  }
}
