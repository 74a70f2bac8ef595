/** What becomes of each event of a group: it is new, a duplicate, or refused; and the rows that the new ones make. */
import { randomUUID } from 'node:crypto'
import { lateLevels } from '../rollups/granularities.ts'
import { slices, type Store } from '../clickhouse/store.ts'
import { tenantKey, type TenantKey } from '../domain/tenant.ts'
import { toIso } from '../time/calendar.ts'
import type { Event } from './check-event.ts'
import { idHash, type IdFilter } from './event-id-filter.ts'
import { EVENT_COLUMNS, eventRow } from './insert.ts'
import type { Insert } from './journal.ts'
import type { Numbers } from '../ids/allocator.ts'
import type { Tenants } from '../ids/tenants.ts'
import type { Retention } from '../maintenance/retention.ts'
import type { Seals } from '../maintenance/compaction.ts'

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

/** What deciding rests on. */
export interface Knowledge {
  readonly store: Store
  readonly filter: IdFilter
  readonly numbers: Numbers
  readonly tenants: Tenants
  readonly seals: Seals
  readonly retention: Retention
}

/** What a group comes to: inserts that belong together, a receipt for each batch, and the new events of each tenant. */
export interface Decision {
  readonly inserts: Insert[]
  readonly receipts: Receipt[]
  readonly added: ReadonlyMap<TenantKey, readonly Event[]>
}

/** Decides about every event of some batches, in their order. Only within a turn of the lane. */
export async function decide(batches: readonly Batch[], known: Knowledge): Promise<Decision> {
  const { numbers, tenants, seals, retention } = known
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
  const lines: string[] = []
  for (const [tenant, items] of byTenant) {
    const stored = await storedEvents(known, tenant, items.map(({ event }) => event.id))
    const seen = new Map<string, Event>()
    const fresh: Event[] = []
    for (const { event, index, receipt } of items) {
      const twin = seen.get(event.id) ?? stored.get(event.id)
      if (event.timestamp < retention.horizon) {
        receipt.rejected.push({ index, message: `timestamp is too old: nothing before ${toIso(retention.horizon)} is kept` })
      } else if (!twin) {
        seen.set(event.id, event)
        fresh.push(event)
        receipt.accepted++
      } else if (sameContent(twin, event)) receipt.duplicates++
      else receipt.rejected.push({ index, message: 'id was used before for an event with other content' })
    }
    const assistants = await numbers.of(tenant, 'assistant', fresh.map(({ assistant }) => assistant))
    const users = await numbers.of(tenant, 'user', fresh.map(({ user }) => user))
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
    added.set(tenant, fresh)
  }
  for (const receipt of receipts) receipt.rejected.sort((a, b) => a.index - b.index)

  const inserts: Insert[] = []
  const token = randomUUID()
  if (lines.length > 0) inserts.push({ token, table: 'events', columns: EVENT_COLUMNS, rows: lines.join('\n') })
  const answers = batches.flatMap(({ tenant, answer }, at) =>
    answer ? [JSON.stringify([tenantKey(tenant), answer.key, answer.body, JSON.stringify(receipts[at])])] : [],
  )
  if (answers.length > 0) {
    inserts.push({ token, table: 'answers', columns: ['tenant', 'key', 'body', 'answer'], rows: answers.join('\n') })
  }
  return { inserts, receipts, added }
}

/** Those of the ids that are stored, with their events. */
async function storedEvents({ store, filter }: Knowledge, tenant: TenantKey, ids: readonly string[]): Promise<Map<string, Event>> {
  const doubtful = ids.filter((id) => filter.mayHold(idHash(tenant, id)))
  const found = new Map<string, Event>()
  for (const slice of slices(doubtful)) {
    const rows = await store.readInternal<Event>(
      'events_by_id',
      `SELECT id, event_type AS eventType, toUnixTimestamp64Milli(events.timestamp) AS timestamp, assistant, user,
         cost_nanos AS costNanos, input_tokens AS inputTokens, output_tokens AS outputTokens, model,
         trace_id AS traceId, metadata
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
