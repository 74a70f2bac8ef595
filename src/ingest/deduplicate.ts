/** What becomes of each event of a group: it is new, a duplicate, or refused; and the rows that the new ones make. */
import { randomUUID } from 'node:crypto'
import { lateLevels } from '../rollups/state.ts'
import type { Store } from '../clickhouse/store.ts'
import type { Term } from '../clickhouse/writer-lease.ts'
import { toIso } from '../time/iso8601.ts'
import type { Event } from '../domain/event.ts'
import { tenantKey, type TenantKey } from '../domain/tenant.ts'
import { idHash, type IdFilter } from './event-id-filter.ts'
import { eventRow } from './insert.ts'
import type { Insert } from './journal.ts'
import type { Numbers } from '../ids/allocator.ts'
import type { Tenants } from '../ids/tenants.ts'
import type { Retention } from '../maintenance/retention.ts'
import type { Seals } from '../maintenance/compaction.ts'
import { slices } from '../clickhouse/parameters.ts'

export interface Rejection {
  /** Position in the caller's batch, from 0. */
  index: number
  message: string
}

/** What became of a batch; accepted + duplicates + rejected.length is its size. */
export interface Receipt {
  accepted: number
  duplicates: number
  rejected: Rejection[]
}

/** A batch of one tenant: checked events with their positions, and what was refused already. */
export interface Batch {
  /** The name of the organization. */
  readonly tenant: string
  readonly events: ReadonlyArray<{ index: number; event: Event }>
  readonly rejected: readonly Rejection[]
  /** Remembers the receipt under an Idempotency-Key, in the same journalled step as the events. */
  readonly answer?: { key: string; body: string } | undefined
}

/** What an earlier attempt at the same batches did. */
export interface SentBefore {
  /** Terms of the writer lease under which it sent events. What is stored under one of them may be its own. */
  readonly terms: ReadonlySet<number>
  /** Ids of a tenant that were stored before its first insert: those are not its own. */
  readonly found: ReadonlyMap<TenantKey, ReadonlySet<string>>
}

/** What the classification rests on. */
export interface Knowledge {
  readonly store: Store
  readonly filter: IdFilter
  readonly numbers: Numbers
  readonly tenants: Tenants
  readonly seals: Seals
  readonly retention: Retention
  /** The present term of the writer lease, with time left for an insert. */
  readonly term: () => Promise<Term>
  /** Set where these same batches were sent before, without an answer: every id is looked up, whatever the filter says. */
  readonly before: SentBefore | undefined
}

/** What a group comes to: inserts that belong together, a receipt for each batch, and the new events of each tenant. */
export interface Decision {
  readonly inserts: Insert[]
  readonly receipts: Receipt[]
  readonly added: ReadonlyMap<TenantKey, readonly Event[]>
  /** Ids that are stored already. */
  readonly found: ReadonlyMap<TenantKey, ReadonlySet<string>>
}

/**
 * Finds for every event of some batches, in their order, whether it is new, and makes the rows of those that are not stored
 * yet. Only under the writer lease.
 */
export async function decide(batches: readonly Batch[], known: Knowledge): Promise<Decision> {
  const { numbers, tenants, seals, retention, before } = known
  await tenants.record(batches.map(({ tenant }) => tenant))
  const byTenant = new Map<TenantKey, Array<{ event: Event; index: number; receipt: Receipt }>>()
  const receipts = batches.map((batch) => {
    const receipt: Receipt = { accepted: 0, duplicates: 0, rejected: [...batch.rejected] }
    const tenant = tenantKey(batch.tenant)
    const list = byTenant.get(tenant) ?? []
    for (const { event, index } of batch.events) list.push({ event, index, receipt })
    byTenant.set(tenant, list)
    return receipt
  })

  const added = new Map<TenantKey, Event[]>()
  const foundIds = new Map<TenantKey, ReadonlySet<string>>()
  const lines: string[] = []
  for (const [tenant, items] of byTenant) {
    const stored = await storedEvents(
      known,
      tenant,
      items.map(({ event }) => event.id),
    )
    foundIds.set(tenant, new Set(stored.keys()))
    const seen = new Map<string, Event>()
    const fresh: Event[] = []
    const storedBefore: Event[] = []
    for (const { event, index, receipt } of items) {
      const earlier = seen.get(event.id)
      const found = stored.get(event.id)
      const twin = earlier ?? found
      if (event.timestamp < retention.horizon) {
        receipt.rejected.push({ index, message: `timestamp is too old: nothing before ${toIso(retention.horizon)} is kept` })
      } else if (!twin) {
        seen.set(event.id, event)
        fresh.push(event)
        receipt.accepted++
      } else if (!earlier && found && isOwn(before, tenant, found) && sameContent(found, event)) {
        seen.set(event.id, event)
        storedBefore.push(event)
        receipt.accepted++
      } else if (sameContent(twin, event)) receipt.duplicates++
      else receipt.rejected.push({ index, message: 'id was used before for an event with other content' })
    }
    const assistants = await numbers.of(
      tenant,
      'assistant',
      fresh.map(({ assistant }) => assistant),
      known.term,
    )
    const users = await numbers.of(
      tenant,
      'user',
      fresh.map(({ user }) => user),
      known.term,
    )
    for (const event of fresh) {
      lines.push(
        eventRow(
          event,
          tenant,
          assistants.get(event.assistant) as number,
          users.get(event.user) as number,
          lateLevels(event.timestamp, seals.sealedUntil),
        ),
      )
    }
    added.set(tenant, [...fresh, ...storedBefore])
  }
  for (const receipt of receipts) receipt.rejected.sort((a, b) => a.index - b.index)

  const inserts: Insert[] = []
  const token = randomUUID()
  if (lines.length > 0) inserts.push({ token, table: 'events', rows: lines.join('\n') })
  const answers = batches.flatMap(({ tenant, answer }, at) =>
    answer ? [JSON.stringify([tenantKey(tenant), answer.key, answer.body, JSON.stringify(receipts[at])])] : [],
  )
  if (answers.length > 0) {
    inserts.push({ token, table: 'answers', rows: answers.join('\n') })
  }
  return { inserts, receipts, added, found: foundIds }
}

/** Whether an event was stored by an earlier attempt at the same batches. */
const isOwn = (before: SentBefore | undefined, tenant: TenantKey, { id, term }: StoredEvent): boolean =>
  before !== undefined && before.terms.has(term) && !before.found.get(tenant)?.has(id)

/** An event as it is stored, with the term of the writer lease under which it was. */
type StoredEvent = Event & { term: number }

/** Those of the ids that are stored, with their events. */
async function storedEvents(
  { store, filter, before }: Knowledge,
  tenant: TenantKey,
  ids: readonly string[],
): Promise<Map<string, StoredEvent>> {
  const possible = ids.filter((id) => before !== undefined || filter.mayHold(idHash(tenant, id)))
  const found = new Map<string, StoredEvent>()
  for (const slice of slices(possible)) {
    const rows = await store.readInternal<StoredEvent>(
      'events_by_id',
      `SELECT id, event_type AS eventType, toUnixTimestamp64Milli(events.timestamp) AS timestamp, assistant, user,
         cost_nanos AS costNanos, input_tokens AS inputTokens, output_tokens AS outputTokens, model,
         trace_id AS traceId, metadata, term
       FROM events WHERE tenant = {tenant:UUID} AND id IN {ids:Array(String)}
       SETTINGS min_table_rows_to_use_projection_index = 0`,
      { tenant, ids: slice },
    )
    for (const row of rows) found.set(row.id, row)
  }
  return found
}

/** Whether an event is the stored one; of somebody who was removed, as far as it can still be told. */
const sameContent = (stored: Event, sent: Event): boolean =>
  isEqual(stored, stored.user === '' ? { ...sent, user: '', traceId: '', metadata: '' } : sent)

const isEqual = (a: Event, b: Event): boolean =>
  a.timestamp === b.timestamp &&
  a.eventType === b.eventType &&
  a.assistant === b.assistant &&
  a.user === b.user &&
  a.costNanos === b.costNanos &&
  a.inputTokens === b.inputTokens &&
  a.outputTokens === b.outputTokens &&
  a.model === b.model &&
  a.traceId === b.traceId &&
  a.metadata === b.metadata
