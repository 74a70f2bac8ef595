/**
 * Two companies that cannot be told apart by anything but their tokens: the same users, assistants and event ids, with
 * other counts behind them. And services to ask about them, sound ones and deliberately broken ones.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inject } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { createService, type ServiceOptions } from '../../src/service.ts'
import type { SentEvent } from '../reference.ts'
import { dropDatabase, type Caller } from '../support.ts'
import { authorization } from '../tokens.ts'

export const NOW = Date.parse('2026-03-01T12:00:00.000Z')
/** A day with nothing but a crowd: so many users with one event each that ClickHouse has to break the tie by name. */
export const CROWD_DAY = '2025-12-01'
const CROWD = 1_005

const DAY_MS = 86_400_000
const TYPES = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted'] as const

export type Company = 'acme' | 'globex'

/** What makes the figures of one company differ from the other's. */
const TRAITS = {
  acme: { events: 240, types: 3, spread: 40, cost: 0.001, order: 1 },
  globex: { events: 400, types: 4, spread: 37, cost: 1.5, order: -1 },
}

export function eventsOf(company: Company): SentEvent[] {
  const { events, types, spread, cost, order } = TRAITS[company]
  const regular = Array.from({ length: events }, (_, n): SentEvent => {
    const own = n % 20 === 19
    // Names are numbered in the order they come, so one number is two users in the two companies.
    const turn = order > 0 ? n : events - n
    return {
      id: `event ${n}`,
      eventType: TYPES[n % types] as SentEvent['eventType'],
      timestamp: new Date(NOW - 60_000 - Math.floor((n / events) * spread * DAY_MS)).toISOString(),
      assistant: own ? `only ${company}` : `assistant ${turn % 3}`,
      user: own ? `only ${company}` : `user ${turn % 7}`,
      cost: cost * (1 + (n % 5)),
      inputTokens: n * types,
      outputTokens: n + types,
      model: `${company} model`,
      traceId: `${company} trace ${n}`,
      metadata: { of: company },
    }
  })
  const crowd = Array.from({ length: CROWD }, (_, n): SentEvent => ({
    id: `crowd ${n}`,
    eventType: 'incomingMessages',
    timestamp: `${CROWD_DAY}T10:00:00.000Z`,
    assistant: 'assistant 0',
    user: `crowd ${company} ${order > 0 ? n : CROWD - n}`,
  }))
  return [...regular, ...crowd]
}

export interface Question {
  method?: string
  /** Path and query. */
  url: string
  headers?: Record<string, string>
  body?: string
}

/** What a caller can see of an answer; the request id is the caller's own, the rate limit depends on when it asks. */
export interface Seen {
  status: number
  headers: Record<string, string>
  body: string
}

const VISIBLE = [
  'Allow',
  'Cache-Control',
  'Content-Disposition',
  'Content-Type',
  'ETag',
  'Retry-After',
  'Vary',
  'WWW-Authenticate',
]

export type World = Awaited<ReturnType<typeof startWorld>>

/** A service on a database of its own. */
export async function startWorld({
  config: settings = {},
  ...broken
}: Pick<ServiceOptions, 'makeStore' | 'makeCache'> & { config?: Record<string, string> } = {}) {
  const clickhouse = { ...inject('clickhouse'), stop: () => Promise.resolve() }
  const database = `analytics_test_${randomBytes(6).toString('hex')}`
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-test-data-'))
  const config = readConfig({
    DATA_DIR: dataDir,
    LOG_LEVEL: 'silent',
    RATE_LIMIT_PER_SECOND: '1000000',
    MAX_CONCURRENT_QUERIES: '1000',
    INGEST_QUEUE_MB: '4096',
    ID_FILTER_MB: '1',
    ...settings,
  })
  const service = await createService({ config, clickhouse, database, log: () => {}, clock: () => NOW, ...broken })
  const tokens = new Map<string, Promise<string>>()

  async function ask({ method = 'GET', url, headers = {}, body }: Question, caller: Caller): Promise<Seen> {
    const name = JSON.stringify(caller)
    const token = tokens.get(name) ?? authorization(service, caller)
    tokens.set(name, token)
    const response = await service.app.request(url, {
      method,
      headers: { Authorization: await token, 'X-Request-Id': 'mine', ...headers },
      ...(body === undefined ? {} : { body }),
    })
    const shown = VISIBLE.map((header) => [header, response.headers.get(header) ?? '']).filter(([, value]) => value)
    return { status: response.status, headers: Object.fromEntries(shown), body: await response.text() }
  }

  return {
    app: service.app,
    ask,

    /** Writes rows into a table, past the service. */
    async plant(table: string, rows: readonly object[]) {
      await service.store.admin.insert({ table, values: rows, format: 'JSONEachRow' })
    },

    /** Empties the service's memory of names. */
    forgetNames: () => service.names.forgetAll(),

    async rows<Row>(query: string): Promise<Row[]> {
      return service.store.adminRows<Row>(query)
    },

    async store(events: readonly SentEvent[], caller: Caller) {
      const headers = { 'Content-Type': 'application/json' }
      const reply = await ask({ method: 'POST', url: '/analytics/events', headers, body: JSON.stringify(events) }, caller)
      const wanted = JSON.stringify({ success: true, data: { accepted: events.length, duplicates: 0, rejected: [] } })
      if (reply.body !== wanted) throw new Error(`${reply.status} ${reply.body.slice(0, 500)}`)
    },

    async close() {
      await service.close()
      await dropDatabase(clickhouse, database)
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}
