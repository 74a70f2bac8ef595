/** The one lane to ClickHouse: grouping, bounds, and ids that are counted once whatever happens around them. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Reference, type SentEvent } from '../reference.ts'
import { startService, type Reply, type TestService } from '../support.ts'
import { someEvents } from './events.ts'

vi.setConfig({ testTimeout: 60_000 })

const NOW = '2026-03-01T12:00:00.000Z'
const ALL = { startDate: '2026-01-01', endDate: '2026-03-02' }
const RANGE = { from: '2026-01-05', to: '2026-03-01' }

let service: TestService
afterEach(() => service.close())

async function restart() {
  const { database, dataDir } = service
  await service.stop()
  service = await startService({ now: NOW, from: { database, dataDir } })
}

/** Inserts that reached a table: merged parts are kept for minutes. */
async function insertsInto(table: string): Promise<number> {
  const [row] = await service.rows<{ parts: number }>(
    `SELECT count() AS parts FROM system.parts WHERE database = currentDatabase() AND table = '${table}' AND level = 0`,
  )
  return row?.parts ?? 0
}

const ids = async () => (await service.rows<{ id: string }>('SELECT id FROM events ORDER BY id')).map(({ id }) => id)

/** What is listed and what is summed up, by three tables. */
async function expectCounted(events: readonly SentEvent[]) {
  const reference = new Reference(events, Date.parse(NOW))
  expect(await ids()).toEqual(events.map(({ id }) => id).sort())
  const asked = { ...ALL, period: 'month' as const }
  expect(await service.data('metrics', asked)).toEqual(reference.metrics(asked))
  expect(await service.data('users/top', { ...ALL, limit: 1000 })).toEqual(reference.usersTop({ ...ALL, limit: 1000 }))
}

const receipt = (accepted: number, duplicates: number) => ({ accepted, duplicates, rejected: [] })

describe('grouping', () => {
  test('a hundred callers with ten events each make a few parts, and each gets its own receipt', async () => {
    service = await startService({ now: NOW })
    const events = someEvents({ count: 1_000, ...RANGE, seed: 1 })
    await service.store(someEvents({ count: 50, ...RANGE, seed: 2, name: 'first' }))
    const before = await insertsInto('events')
    const replies = await Promise.all(Array.from({ length: 100 }, (_, n) => service.post(events.slice(n * 10, n * 10 + 10))))
    for (const { status, body } of replies) expect([status, body.data]).toEqual([200, receipt(10, 0)])
    const made = (await insertsInto('events')) - before
    expect(made).toBeGreaterThan(0)
    expect(made).toBeLessThanOrEqual(10)
    for (const table of ['activity', 'user_activity']) expect(await insertsInto(table)).toBeLessThanOrEqual(made + 1)
    await expectCounted([...events, ...someEvents({ count: 50, ...RANGE, seed: 2, name: 'first' })])
  })

  test('tenants share a group, and nothing else', async () => {
    service = await startService({ now: NOW })
    const events = someEvents({ count: 30, ...RANGE, seed: 3 })
    const orgs = Array.from({ length: 20 }, (_, n) => `company ${n}`)
    // The same ids in every company, and a company that reuses one.
    const replies = await Promise.all(orgs.map((org) => service.post(events, { org })))
    for (const { body } of replies) expect(body.data).toEqual(receipt(30, 0))
    expect(await insertsInto('events')).toBeLessThanOrEqual(5)
    const reused = await service.post([{ ...events[4], user: 'somebody else' }], { org: 'company 7' })
    expect(reused.body.data.rejected).toHaveLength(1)
    const reference = new Reference(events, Date.parse(NOW))
    for (const org of orgs) {
      const asked = { ...ALL, period: 'month' as const }
      expect(await service.data('metrics', asked, { org })).toEqual(reference.metrics(asked))
    }
  })

  test('a backfill of years is one insert', async () => {
    service = await startService({ now: NOW })
    const events = someEvents({ count: 5_000, from: '2018-01-01', to: '2026-03-01', seed: 4 })
    expect(await service.submit(events)).toEqual([receipt(5_000, 0)])
    for (const table of ['events', 'activity', 'user_activity']) expect(await insertsInto(table)).toBe(1)
    const asked = { period: 'month' as const, startDate: '2018-01-01', endDate: '2026-03-01' }
    expect(await service.data('metrics', asked)).toEqual(new Reference(events, Date.parse(NOW)).metrics(asked))
  })
})

describe('bounds', () => {
  test('more bodies at once than INGEST_QUEUE_MB holds are 503 with Retry-After; what was accepted is kept', async () => {
    service = await startService({ now: NOW, config: { INGEST_QUEUE_MB: '1' } })
    const batches = Array.from({ length: 12 }, (_, n) => someEvents({ count: 400, ...RANGE, seed: n, name: `batch ${n}` }))
    const send = (batch: SentEvent[]) => {
      const body = JSON.stringify(batch)
      return service.post(body, { headers: { 'Content-Length': String(Buffer.byteLength(body)) } })
    }
    const replies = await Promise.all(batches.map(send))
    const accepted = batches.filter((_, n) => replies[n]?.status === 200)
    const refused = batches.filter((_, n) => replies[n]?.status === 503)
    expect(accepted.length + refused.length).toBe(batches.length)
    expect(accepted.length).toBeGreaterThan(0)
    expect(refused.length).toBeGreaterThan(0)
    for (const { status, headers, body } of replies) {
      if (status === 200) continue
      expect(Number(headers.get('Retry-After'))).toBeGreaterThan(0)
      expect(body).toMatchObject({ success: false, error: { code: 'unavailable' } })
    }
    await expectCounted(accepted.flat())
    // One after the other there is room for them.
    for (const batch of refused) expect((await send(batch)).body.data).toEqual(receipt(400, 0))
    await expectCounted(batches.flat())
    expect(service.writer.queued).toBe(0)
  })
})

describe('ids', () => {
  test('sent over many connections at once are counted once', async () => {
    service = await startService({ now: NOW })
    const events = someEvents({ count: 60, ...RANGE, seed: 5 })
    const shuffled = (n: number) => events.map((_, at) => events[(at * 7 + n) % 60] as SentEvent)
    const replies = await Promise.all(Array.from({ length: 12 }, (_, n) => service.post(shuffled(n))))
    const add = (name: 'accepted' | 'duplicates') => replies.reduce((sum, { body }: Reply) => sum + body.data[name], 0)
    expect([add('accepted'), add('duplicates')]).toEqual([60, 11 * 60])
    await expectCounted(events)
  })

  test('of different content at once: one is kept, the others are refused', async () => {
    service = await startService({ now: NOW })
    const [event] = someEvents({ count: 1, ...RANGE, seed: 6 })
    const replies = await Promise.all(Array.from({ length: 8 }, (_, n) => service.post([{ ...event, user: `user ${n}` }])))
    const receipts = replies.map(({ body }) => body.data)
    expect(receipts.filter(({ accepted }) => accepted === 1)).toHaveLength(1)
    expect(receipts.filter(({ rejected }) => rejected.length === 1)).toHaveLength(7)
    expect(await ids()).toEqual([event?.id])
  })

  test('are known after a restart, before and after the filter is filled', async () => {
    service = await startService({ now: NOW })
    const events = someEvents({ count: 3_000, ...RANGE, seed: 7 })
    await service.store(events)
    await restart()
    // At once: the filter knows nothing yet, and everything is looked up.
    expect(await service.submit(events.slice(0, 500))).toEqual([receipt(0, 500)])
    await new Promise((done) => setTimeout(done, 500))
    const more = someEvents({ count: 200, ...RANGE, seed: 8, name: 'more' })
    expect(await service.submit([...events, ...more])).toEqual([receipt(200, 3_000)])
    await restart()
    expect(await service.submit([...more, ...events])).toEqual([receipt(0, 3_200)])
    await expectCounted([...events, ...more])
  })

  test('with other content are refused with a reason, also after a restart and with another timestamp', async () => {
    service = await startService({ now: NOW })
    const events = someEvents({ count: 10, ...RANGE, seed: 9 })
    await service.store(events)
    const changed = [
      { ...events[0], timestamp: '2026-01-02T00:00:00.000Z' },
      { ...events[1], user: 'somebody else' },
      { ...events[2], cost: 7 },
      { ...events[3], metadata: { other: true } },
      { ...events[4], eventType: events[4]?.eventType === 'incomingMessages' ? 'tasksInitiated' : 'incomingMessages' },
    ]
    for (const when of ['before', 'after']) {
      const [{ accepted, duplicates, rejected }] = (await service.submit([...changed, ...events])) as [never]
      expect({ when, accepted, duplicates }).toEqual({ when, accepted: 0, duplicates: 10 })
      const message = 'id was used before for an event with other content'
      expect(rejected).toEqual(changed.map((_, index) => ({ index, message })))
      if (when === 'before') await restart()
    }
    await expectCounted(events)
  })

  test('of a tenant are no other tenant’s', async () => {
    service = await startService({ now: NOW })
    const [event] = someEvents({ count: 1, ...RANGE, seed: 10 })
    await service.store([event as SentEvent])
    await restart()
    expect(await service.submit([{ ...event, user: 'another' }], { org: 'globex' })).toEqual([receipt(1, 0)])
  })
})

test('a service with nothing to do ends at once', async () => {
  service = await startService({ now: NOW })
  await service.store(someEvents({ count: 10, from: '2026-02-01', to: '2026-02-02', seed: 3 }))
  await sleep(200)
  const started = performance.now()
  await service.writer.close()
  // Its next look for what is to be sealed would be in five seconds.
  expect(performance.now() - started).toBeLessThan(1_000)
})
