/** A small fleet of several companies, and what its dashboards, agents and reporters ask and send. */
import { gzipSync } from 'node:zlib'

/** The first company has four tenths of the events and asks four tenths of the questions. */
export const COMPANIES = ['org 1', 'org 2', 'org 3', 'org 4', 'org 5', 'org 6', 'org 7']
const SHARES = [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
const DAYS = 90
const DAY_MS = 86_400_000
const TYPES = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted']

/** Numbers in [0, 1), the same for the same seed. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

export interface Call {
  company: string
  method: 'GET' | 'POST'
  path: string
  body?: Buffer
}

export const pick = <T>(list: readonly T[], random: () => number): T => list[Math.floor(random() * list.length)] as T

function companyFor(random: () => number): string {
  let left = random()
  return COMPANIES.find((_, n) => (left -= SHARES[n] as number) < 0) ?? (COMPANIES[0] as string)
}

const event = (random: () => number, now: number, days: number) => ({
  eventType: pick(TYPES, random),
  timestamp: new Date(now - Math.floor(random() * days * DAY_MS)).toISOString(),
  assistant: `assistant ${Math.floor(40 * random() ** 2)}`,
  user: `user ${Math.floor(5_000 * random() ** 2)}`,
  cost: Math.floor(random() * 1_000) / 1e5,
  inputTokens: Math.floor(random() * 2_000),
  outputTokens: Math.floor(random() * 500),
})

/** The batches that make up the fleet. */
export function* fleet(events: number, now: number): Generator<Call> {
  const random = randomOf(7)
  for (const [n, company] of COMPANIES.entries()) {
    for (let left = Math.round(events * (SHARES[n] as number)); left > 0; left -= 10_000) {
      const batch = Array.from({ length: Math.min(left, 10_000) }, () => event(random, now, DAYS))
      yield { company, method: 'POST', path: '/analytics/events', body: gzipSync(JSON.stringify(batch), { level: 1 }) }
    }
  }
}

/**
 * One call of the mix. Most questions are about ranges that nobody has asked about before, so that they reach
 * ClickHouse; a fifth are what a screen on the wall asks every few seconds, which the service answers from memory.
 */
export function callOf(random: () => number, now: number): Call {
  const company = companyFor(random)
  const to = new Date(now - Math.floor(random() * 20 * DAY_MS)).toISOString()
  const from = (days: number) => new Date(Date.parse(to) - days * DAY_MS).toISOString()
  const range = (days: number) => `startDate=${from(days)}&endDate=${to}`
  const get = (path: string): Call => ({ company, method: 'GET', path: `/analytics/${path}` })
  const choice = random()
  if (choice < 0.1) return get('overview?period=month')
  if (choice < 0.2) return get('rolling?window=30')
  if (choice < 0.35) return get(`rolling?window=${pick([7, 30], random)}&endDate=${to}`)
  if (choice < 0.5) return get(`metrics?period=day&${range(30)}&assistant=assistant%20${Math.floor(random() * 40)}`)
  if (choice < 0.65) return get(`events?${range(7)}&limit=50`)
  if (choice < 0.75) return get(`events?${range(30)}&user=user%20${Math.floor(random() * 5_000)}`)
  if (choice < 0.82) return get(`assistants?${range(30)}`)
  if (choice < 0.88) return get(`users/top?${range(30)}`)
  if (choice < 0.96) return get(`snapshots?${range(60)}`)
  const batch = Array.from({ length: 20 }, () => event(random, now, 0.01))
  return { company, method: 'POST', path: '/analytics/events', body: gzipSync(JSON.stringify(batch), { level: 1 }) }
}
