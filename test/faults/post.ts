/** One batch of events: how it is put together, sent once, and what its answer says about each event. */
import { gzipSync } from 'node:zlib'
import type { Dice } from './dice.ts'
import type { Entry, Ledger } from './ledger.ts'

/** Longer than the service lets a caller wait. */
const REQUEST_TIMEOUT_MS = 15_000

/** A bearer token of each tenant. */
export interface Tokens {
  get(tenant: string): string | undefined
}

export interface Batch {
  readonly tenant: string
  readonly entries: readonly Entry[]
  readonly body: Uint8Array<ArrayBuffer>
  readonly headers: Readonly<Record<string, string>>
}

interface Receipt {
  accepted: number
  duplicates: number
  rejected: Array<{ index: number; message: string }>
}

/** `refused`: nothing of it is acknowledged; `busy` where the status was 503 or 429. `unknown`: there was no answer. */
export type Outcome = { status: 'stored'; receipt: Receipt } | { status: 'refused'; busy: boolean } | { status: 'unknown' }

export interface PostOptions {
  ledger: Ledger
  tokens: Tokens
  /** Of the service, without a path. */
  url: string
  /** The caller gives up after this many milliseconds. */
  timeoutMs?: number
  /** The batch was acknowledged before, under its Idempotency-Key: its receipt is the one of that time. */
  repeated?: boolean
}

/** @param key sent as Idempotency-Key */
export function batchOf(dice: Dice, tenant: string, entries: readonly Entry[], key?: string): Batch {
  const events = entries.map(({ event }) => event)
  const lines = dice.chance(0.8)
  const text = lines ? events.map((event) => JSON.stringify(event)).join('\n') : JSON.stringify(events)
  const zipped = dice.chance(0.15)
  return {
    tenant,
    entries,
    body: new Uint8Array(zipped ? gzipSync(text) : Buffer.from(text)),
    headers: {
      'Content-Type': lines ? 'application/x-ndjson' : 'application/json',
      ...(zipped ? { 'Content-Encoding': 'gzip' } : {}),
      ...(key === undefined ? {} : { 'Idempotency-Key': key }),
    },
  }
}

/** Sends a batch once and writes what its answer says into the ledger. Never rejects. */
export async function post({ tenant, entries, body, headers }: Batch, options: PostOptions): Promise<Outcome> {
  const { ledger, tokens, url, timeoutMs = REQUEST_TIMEOUT_MS, repeated = false } = options
  const unknown = new Set(entries.filter(({ state }) => state === 'held' || state === 'sent'))
  ledger.markSent(entries)
  ledger.counts.requests++
  let response: Response
  let text: string
  try {
    response = await fetch(`${url}/analytics/events`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${tokens.get(tenant)}`, ...headers },
      body,
      signal: AbortSignal.timeout(timeoutMs),
    })
    text = await response.text()
  } catch {
    ledger.counts.unanswered++
    return { status: 'unknown' }
  }
  const { status } = response
  if (status === 503 || status === 429) {
    ledger.counts.refusals++
    if (!response.headers.has('Retry-After')) ledger.complain(`${status} without Retry-After`)
    return { status: 'refused', busy: true }
  }
  // The first request with this key lost its connection and is still at work.
  if (status === 409 && headers['Idempotency-Key'] !== undefined) return { status: 'refused', busy: false }
  if (status !== 200) {
    ledger.complain(`${status} ${text.slice(0, 200)}`)
    return { status: 'refused', busy: false }
  }
  const receipt = (JSON.parse(text) as { data: Receipt }).data
  if (!repeated) ledger.counts.accepted += receipt.accepted
  judge(ledger, receipt, entries, unknown, repeated)
  return { status: 'stored', receipt }
}

function judge(
  ledger: Ledger,
  receipt: Receipt,
  entries: readonly Entry[],
  unknown: ReadonlySet<Entry>,
  repeated: boolean,
): void {
  const { accepted, duplicates, rejected } = receipt
  const rejectedAt = new Set(rejected.map(({ index }) => index))
  if (accepted + duplicates + rejected.length !== entries.length) {
    ledger.complain(`a receipt of ${accepted} + ${duplicates} + ${rejected.length} for ${entries.length} events`)
  }
  // What was acknowledged before this request was sent can only be a duplicate, unless the answer is an old one.
  if (!repeated && accepted > unknown.size) {
    ledger.complain(`${accepted} events accepted, but only ${unknown.size} were not acknowledged before`)
  }
  for (const [index, entry] of entries.entries()) {
    if (rejectedAt.has(index) !== (entry.state === 'refused')) {
      const reason = rejected.find((rejection) => rejection.index === index)?.message
      ledger.complain(reason === undefined ? 'an id was reused and accepted' : `rejected: ${reason}`)
    } else ledger.markStored(entry)
  }
}
