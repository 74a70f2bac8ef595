/** The ranking of users from lists of the most active, against the whole log: fresh lists, old ones, none, and users alike. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { USER_LEVELS } from '../../src/rollups/granularities.ts'
import { tenantKey } from '../../src/domain/tenant.ts'
import { Store } from '../../src/clickhouse/store.ts'
import { UserRanks } from '../../src/analytics/user-ranks.ts'
import { compare } from '../compare.ts'
import { random } from '../ingest/events.ts'
import { EVENT_TYPES, Reference, type Asked, type SentEvent } from '../reference.ts'
import { startService, type TestService } from '../support.ts'
import { cut } from '../../src/rollups/plan.ts'

const NOW = '2026-03-01T12:00:00.000Z'
const WHOLE = { startDate: '2026-01-10', endDate: '2026-03-01' }
const DAY_MS = 86_400_000

const next = random(8)
const below = (end: number) => Math.floor(next() * end)
let made = 0
const event = (user: string, at: number): SentEvent => ({
  id: `e-${made++}`,
  eventType: EVENT_TYPES[below(4)] as SentEvent['eventType'],
  timestamp: new Date(at).toISOString(),
  assistant: `assistant ${below(3)}`,
  user,
})

const from = Date.parse(`${WHOLE.startDate}T00:00:00Z`)
const days = (Date.parse(`${WHOLE.endDate}T00:00:00Z`) - from) / DAY_MS
/** 5,000 users once on the second and once on the tenth day, so that lists end before they do, and some busier ones. */
const many = [1, 9].flatMap((day) =>
  Array.from({ length: 5_000 }, (_, n) => event(`once ${n}`, from + day * DAY_MS + below(DAY_MS))),
)
const busy = Array.from({ length: 120 }, (_, n) =>
  Array.from({ length: 1 + Math.floor(240 / (1 + (n >> 1))) }, () => event(`busy ${n}`, from + below(days * DAY_MS))),
).flat()
/** Everybody alike: no list can tell who is first. */
const alike = Array.from({ length: 9_600 }, (_, n) => event(`alike ${n % 4_800}`, from + (20 + (n % 2)) * DAY_MS + below(DAY_MS)))

let service: TestService
let all: SentEvent[]
let asked: string[] = []
let sent: string[] = []
let store: Store
beforeAll(async () => {
  service = await startService({ now: NOW, makeStore: (to) => (store = new Store(to)) })
  all = [...many, ...busy]
  await service.store(all)
  // Sealed as in a service that has run since: the coarse spans are there as they would be in production.
  await vi.waitFor(() => expect(service.seals.due).toBe(false), { timeout: 20_000 })
  const read = store.read.bind(store)
  vi.spyOn(store, 'read').mockImplementation((...question) => {
    asked.push(question[1].name)
    sent.push(question[1].sql)
    return read(...question) as Promise<never[]>
  })
}, 60_000)
afterAll(() => service.close())

/** One question, whose answer must be that of the whole log, and the queries that it took. */
async function queriesOf(question: Asked, hint = ''): Promise<string[]> {
  asked = []
  sent = []
  await compare(service, new Reference(all, Date.parse(NOW)), 'users/top', question, hint)
  return asked
}

/** Makes the lists that a question of this range wants, without waiting for one to ask for them. */
async function makeLists({ startDate, endDate }: { startDate: string; endDate: string }) {
  const ranks = new UserRanks(
    store,
    (work) => service.writer.exclusive(work),
    (_, message) => expect.fail(message),
  )
  const range = { from: Date.parse(startDate), to: Date.parse(endDate) }
  await ranks.refresh(ACME, cut(range, USER_LEVELS, service.seals.sealedUntil).spans)
}

const LISTS = ['users_top_lists', 'users_top_details']
const ACME = tenantKey('acme')
const ALL = ['users_top_lists', 'users_top', 'users_top_details']

describe('users/top from lists', () => {
  test('the first question makes the lists, the next one is answered from them', async () => {
    expect(await queriesOf(WHOLE)).toEqual(ALL)
    const lists = () => service.rows<{ n: number }>(`SELECT toUInt32(count()) AS n FROM user_ranks`)
    await vi.waitFor(async () => expect(await queriesOf(WHOLE)).toEqual(LISTS), { timeout: 20_000 })
    expect((await lists())[0]?.n).toBeGreaterThan(1)
    const [cutOff] = await service.rows<{ n: number }>(`SELECT toUInt32(countIf(bound > 0)) AS n FROM user_ranks`)
    expect(cutOff?.n).toBeGreaterThan(0)
  })

  test('any limit, with ties, and any range, is that of the whole log', async () => {
    const taken = new Set<string>()
    for (let round = 0; round < 40; round++) {
      const start = from + below(days) * DAY_MS + (round % 3 === 0 ? below(DAY_MS) : 0)
      const end = start + (1 + below(days)) * DAY_MS + (round % 4 === 0 ? below(DAY_MS) : 0)
      const question = {
        startDate: new Date(start).toISOString(),
        endDate: new Date(Math.min(end, Date.parse(NOW))).toISOString(),
        limit: [1, 2, 10, 50, 121, 1_000][below(6)] as number,
      }
      if (round % 2 === 0) await makeLists(question)
      for (const name of await queriesOf(question)) taken.add(name)
    }
    // Each way was taken.
    expect([...taken].sort()).toEqual([...ALL, 'users_top_tied'].sort())
  }, 120_000)

  test('events that came after a list was made are counted', async () => {
    await makeLists(WHOLE)
    const late = Array.from({ length: 40 }, () => event('busy 5', from + below(days * DAY_MS)))
    all = [...all, ...late]
    await service.store(late)
    expect(await queriesOf({ ...WHOLE, limit: 3 })).toEqual(LISTS)
    // Somebody who is on no list yet: as many as this could be anybody's.
    const risen = Array.from({ length: 400 }, () => event('risen', from + 5 * DAY_MS + below(DAY_MS)))
    all = [...all, ...risen]
    await service.store(risen)
    expect(await queriesOf({ ...WHOLE, limit: 3 })).toEqual(ALL)
    await makeLists(WHOLE)
    expect(await queriesOf({ ...WHOLE, limit: 3 })).toEqual(LISTS)
  })

  test('what is done at ragged ends is bounded by the lists of their days', async () => {
    const ragged = { startDate: '2026-01-11T07:30:00.123Z', endDate: '2026-02-27T21:15', limit: 5 }
    const fromLists = async () => {
      await makeLists(ragged)
      await makeLists({ startDate: '2026-01-11', endDate: '2026-01-12' })
      await makeLists({ startDate: '2026-02-27', endDate: '2026-02-28' })
      expect(await queriesOf(ragged)).toEqual(LISTS)
      expect(sent[0]).not.toContain('FROM events')
    }
    await fromLists()
    // First of all, and known of from nothing but the last hours of the range; and one who did as much just outside it.
    const end = Date.parse('2026-02-27T21:15:00Z')
    const within = Array.from({ length: 600 }, () => event('late riser', end - 1 - below(7_200_000)))
    const outside = Array.from({ length: 600 }, () => event('too late', end + below(7_200_000)))
    all = [...all, ...within, ...outside]
    await service.store([...within, ...outside])
    expect(await queriesOf(ragged)).toEqual(ALL)
    await fromLists()
    expect((await service.data('users/top', ragged))[0]).toMatchObject({ user: 'late riser', total: 600 })
  })

  test('a list is good for its own company and its own span only', async () => {
    await service.store([event('stranger', from + DAY_MS)], { org: 'other' })
    await vi.waitFor(
      async () => {
        expect(await service.data('users/top', WHOLE, { org: 'other' })).toMatchObject([{ user: 'stranger', total: 1 }])
        expect(asked.slice(-2)).toEqual(LISTS)
      },
      { timeout: 20_000 },
    )
  })

  test('users who are all alike are ranked from all of them', async () => {
    all = [...all, ...alike]
    await service.store(alike)
    const range = { startDate: '2026-01-30', endDate: '2026-02-01', limit: 200 }
    await makeLists(range)
    expect(await queriesOf(range)).toContain('users_top')
  })

  test('a repair takes the lists away that rested on wrong rows', async () => {
    await makeLists(WHOLE)
    await service.admin.command({
      query: `INSERT INTO user_activity (tenant, level, start, user_no, events) SELECT tenant, level, start, user_no, 500
        FROM user_activity WHERE tenant = '${ACME}' AND level = 2 LIMIT 1`,
    })
    const token = { scope: 'analytics:operate' }
    const repaired = await service.request('POST', '/operations/reconcile?repair=true', token)
    expect(repaired.body.data.repaired).toBeGreaterThan(0)
    expect(await service.rows(`SELECT level, start FROM user_ranks WHERE tenant = '${ACME}'`)).toEqual([])
    expect(await queriesOf(WHOLE)).toEqual(ALL)
  })
})
