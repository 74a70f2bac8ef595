/** Compares what the service answers with what the writers know. */
import { isDeepStrictEqual } from 'node:util'
import { Reference, type SentEvent } from '../reference.ts'
import type { Entry, Ledger } from './ledger.ts'
import type { Tokens } from './post.ts'

const DAY = 86_400_000
const REQUEST_TIMEOUT_MS = 60_000
/** All tenants and days are compared, a stretch of days at a time. */
const RECONCILE_TIMEOUT_MS = 240_000

/** All of them have to be 0. */
export interface Findings {
  /** Acknowledged events that are not there. */
  lost: number
  /** Events that are there more than once, and ids. */
  doubled: number
  /** Events that are there and were never sent, or refused, or say something else than what was sent. */
  unexpected: number
  /** Days of a tenant and rollup that differ from the raw log. */
  drift: number
  /** Answers of endpoints that differ from what the listed events add up to. */
  wrong: number
}

export const NOTHING: Readonly<Findings> = { lost: 0, doubled: 0, unexpected: 0, drift: 0, wrong: 0 }

/** Whom to ask, and as whom. */
export interface Asking {
  service: { readonly url: string }
  /** They may read. */
  tokens: Tokens
  operator: string
  /** Epoch milliseconds on the service's clock. */
  now: number
  /** Told what was found, in words. */
  report: (text: string) => void
}

export interface CheckOptions extends Asking {
  ledger: Ledger
  /** Lists every event, instead of comparing counts alone. */
  full: boolean
}

export interface Listed extends SentEvent {
  cost: number
}

/** Checks everything while nobody writes. */
export async function check(options: CheckOptions): Promise<Findings> {
  const { ledger, full } = options
  const found: Findings = { ...NOTHING }
  const add = (more: Partial<Findings>) => {
    for (const [name, count] of Object.entries(more)) found[name as keyof Findings] += count
  }
  for (const tenant of ledger.tenants) {
    add(await (full ? checkEvents(options, tenant) : checkCounts(options, tenant)))
  }
  add({ drift: await countDrift(options) })
  return found
}

async function ask<T>({ service }: Asking, token: string, path: string, init: RequestInit = {}): Promise<T> {
  const response = await fetch(`${service.url}${path}`, {
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    ...init,
    headers: { Authorization: `Bearer ${token}` },
  })
  const text = await response.text()
  if (response.status !== 200) throw new Error(`${path} answered ${response.status} ${text.slice(0, 300)}`)
  return JSON.parse(text) as T
}

/** A range that holds every event. */
export const whole = ({ now }: Pick<Asking, 'now'>) => ({
  startDate: new Date(now - 1_000 * DAY).toISOString(),
  endDate: new Date(now + DAY).toISOString(),
})

export interface Page {
  data: Listed[]
  pagination: { total: number; nextCursor: string | null }
}

export async function get<T>(options: Asking, tenant: string, path: string, params: Record<string, string>): Promise<T> {
  return ask<T>(options, options.tokens.get(tenant) ?? '', `/analytics/${path}?${new URLSearchParams(params)}`)
}

async function checkCounts(options: CheckOptions, tenant: string): Promise<Partial<Findings>> {
  const asked = { ...whole(options), period: 'month' }
  const { data } = await get<{ data: Array<{ total: number }> }>(options, tenant, 'metrics', asked)
  const total = data.reduce((sum, entry) => sum + entry.total, 0)
  const states = { held: 0, sent: 0, stored: 0, refused: 0 }
  for (const { state } of options.ledger.of(tenant).values()) states[state]++
  const lost = Math.max(0, states.stored - total)
  const unexpected = Math.max(0, total - states.stored - states.sent)
  if (lost + unexpected > 0) {
    options.report(`${tenant}: ${total} events counted, ${states.stored} acknowledged, ${states.sent} sent without an answer`)
  }
  return { lost, unexpected }
}

async function checkEvents(options: CheckOptions, tenant: string): Promise<Partial<Findings>> {
  const { ledger, report } = options
  const listed: Listed[] = []
  const totals = new Set<number>()
  let cursor: string | null | undefined
  while (cursor !== null) {
    const params = { ...whole(options), limit: '1000', ...(cursor === undefined ? {} : { cursor }) }
    const { data, pagination } = await get<Page>(options, tenant, 'events', params)
    listed.push(...data)
    totals.add(pagination.total)
    cursor = pagination.nextCursor
  }
  const found = { lost: 0, doubled: 0, unexpected: 0, wrong: 0 }
  const ids = new Set<string>()
  const traces = new Set<string>()
  for (const event of listed) {
    const entry = ledger.of(tenant).get(event.traceId ?? '')
    if (ids.has(event.id) || traces.has(event.traceId ?? '')) {
      found.doubled++
      report(`${tenant}: ${event.traceId} is there twice, it is ${entry?.state}`)
    } else if (!entry || !wasSent(entry, event)) {
      found.unexpected++
      report(`${tenant}: ${JSON.stringify(event)} is there, but ${entry ? JSON.stringify(entry) : 'nobody made it'}`)
    }
    ids.add(event.id)
    traces.add(event.traceId ?? '')
  }
  for (const { event, state } of ledger.of(tenant).values()) {
    if (state !== 'stored' || traces.has(event.traceId)) continue
    found.lost++
    report(`${tenant}: ${event.traceId} of ${event.timestamp} was acknowledged and is not there`)
  }
  if (totals.size !== 1 || !totals.has(listed.length)) {
    found.wrong++
    report(`${tenant}: ${listed.length} events listed, total says ${[...totals].join(', ')}`)
  }
  found.wrong += await countWrong(options, tenant, listed)
  return found
}

/** Whether a listed event is one that was sent, field by field. */
export function wasSent({ event, state }: Entry, listed: Listed): boolean {
  if (state !== 'sent' && state !== 'stored') return false
  const expected = {
    id: event.id ?? listed.id,
    eventType: event.eventType,
    timestamp: event.timestamp,
    assistant: event.assistant,
    user: event.user,
    cost: event.cost ?? 0,
    inputTokens: event.inputTokens ?? 0,
    outputTokens: event.outputTokens ?? 0,
    model: event.model ?? null,
    traceId: event.traceId,
    metadata: event.metadata ?? null,
  }
  return isDeepStrictEqual(expected, listed)
}

/**
 * Asks what is answered from rollups, and adds the same up from events.
 * @param named those of users who were not removed; others are counted without being listed
 */
export async function countWrong(
  options: Asking,
  tenant: string,
  events: readonly SentEvent[],
  named: readonly SentEvent[] = events,
): Promise<number> {
  const { startDate, endDate } = whole(options)
  const reference = new Reference(events, options.now)
  const people = named === events ? reference : new Reference(named, options.now)
  const range = { startDate, endDate }
  const cases: Array<[path: string, params: Record<string, string>, expected: unknown]> = [
    ['metrics', { ...range, period: 'month' }, reference.metrics({ ...range, period: 'month' })],
    ['metrics', { ...range, period: 'week' }, reference.metrics({ ...range, period: 'week' })],
    ['rolling', { window: '90', endDate }, reference.rolling({ window: 90, endDate })],
    ['assistants', range, reference.assistants(range)],
    ['users/top', { ...range, limit: '1000' }, people.usersTop({ ...range, limit: 1_000 })],
    ['overview', { period: 'month', endDate }, reference.overview({ period: 'month', endDate })],
  ]
  let wrong = 0
  for (const [path, params, expected] of cases) {
    const { data } = await get<{ data: unknown }>(options, tenant, path, params)
    if (isDeepStrictEqual(lasting(data), lasting(expected))) continue
    wrong++
    options.report(`${tenant}: ${path} ${JSON.stringify(params)} answers ${firstDifference(data, expected)}`)
  }
  return wrong
}

/** An answer without what moves on: the last five minutes, and the moment of the answer. */
function lasting(data: unknown): unknown {
  if (Array.isArray(data)) return data
  const { realtime: _, computedAt: __, ...rest } = data as Record<string, unknown>
  return rest
}

function firstDifference(found: unknown, wanted: unknown): string {
  if (!Array.isArray(found) || !Array.isArray(wanted)) return `${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`
  const at = wanted.findIndex((entry, index) => !isDeepStrictEqual(entry, found[index]))
  return `at ${at} of ${found.length} ${JSON.stringify(found[at])}, not ${JSON.stringify(wanted[at])}`
}

interface Drifted {
  data: { days: number; drift: Array<{ tenant: string; start: string; rollup: string }> }
}

export async function countDrift(options: Asking): Promise<number> {
  const { data } = await ask<Drifted>(options, options.operator, '/operations/reconcile', {
    method: 'POST',
    signal: AbortSignal.timeout(RECONCILE_TIMEOUT_MS),
  })
  for (const drift of data.drift.slice(0, 20)) options.report(`drift: ${JSON.stringify(drift)}`)
  return data.drift.length
}
