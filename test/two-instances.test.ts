/** Two services on one ClickHouse: an event counts once whoever gets it, they agree within a stated time, one migrates. */
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest'
import { tenantKey } from '../src/domain/tenant.ts'
import { SHARED_MAX_AGE_MS } from '../src/service.ts'
import { compare, PATHS, same, type Path } from './compare.ts'
import { random, someEvents } from './ingest/events.ts'
import { Reference, type Asked, type SentEvent } from './reference.ts'
import { startService, type TestService } from './support.ts'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 })

const NOW = '2026-03-01T12:00:00.000Z'
const RANGE = { from: '2025-12-20', to: '2026-03-01' }
const ALL = { startDate: '2025-12-01', endDate: '2026-03-02' }
const OPERATOR = { org: 'operator', scope: 'analytics:operate' }

const ASKED: Record<Path, Asked> = {
  overview: { period: 'month' },
  metrics: { ...ALL, period: 'day' },
  rolling: { window: 30 },
  events: { ...ALL, limit: 1_000 },
  assistants: ALL,
  'users/top': { ...ALL, limit: 100 },
  snapshots: ALL,
}

let instances: TestService[]
const dataDirs: string[] = []
const reference = new Reference([], NOW)

/** An instance as in production: it knows that others may write. */
async function start(database: string): Promise<TestService> {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-instance-'))
  dataDirs.push(dataDir)
  const config = { CLICKHOUSE_URL: inject('clickhouse').url, CACHE_MB: '8' }
  return startService({ now: NOW, config, from: { database, dataDir } })
}

beforeAll(async () => {
  const database = `analytics_test_${randomBytes(6).toString('hex')}`
  instances = await Promise.all([start(database), start(database)])
})
afterAll(async () => {
  const [first, ...others] = instances ?? []
  for (const instance of others) await instance.stop()
  await first?.close()
  for (const dataDir of dataDirs) await rm(dataDir, { recursive: true, force: true })
})

const [a, b] = [() => instances[0] as TestService, () => instances[1] as TestService]

/** What both answer now, later than anything either of them may have kept. */
async function expectBothRight() {
  reference.now += SHARED_MAX_AGE_MS
  for (const instance of instances) {
    instance.setNow(reference.now)
    for (const path of PATHS) {
      await compare(instance, reference, path, ASKED[path])
    }
  }
}

async function reconcile(instance: TestService, repair = false) {
  const { status, body } = await instance.request('POST', `/operations/reconcile?repair=${repair}`, OPERATOR)
  expect(status).toBe(200)
  return body.data as { drift: unknown[]; repaired: number }
}

test('started at the same moment, they apply every file once between them', async () => {
  const files = (await readdir('clickhouse')).filter((name) => /^(?!000)\d{3}_\w+\.sql$/.test(name)).sort()
  const rows = await a().rows<{ name: string; attempt: number; state: string }>(
    'SELECT name, attempt, state FROM migrations ORDER BY name, state',
  )
  expect(rows).toEqual(files.flatMap((name) => ['started', 'done'].map((state) => ({ name, attempt: 1, state }))))
})

/** Cuts a list at random places. */
function pieces<T>(list: readonly T[], next: () => number): T[][] {
  const cut: T[][] = []
  for (let at = 0; at < list.length;) {
    const size = 1 + Math.floor(next() * 40)
    cut.push(list.slice(at, at + size))
    at += size
  }
  return cut
}

const shuffled = <T>(list: readonly T[], next: () => number): T[] =>
  list
    .map((item) => ({ item, key: next() }))
    .sort((x, y) => x.key - y.key)
    .map(({ item }) => item)

test('the same ids sent to both at once, in other batches, over many rounds: each counts once', async () => {
  const next = random(7)
  for (let round = 0; round < 12; round++) {
    const events = someEvents({ count: 150, ...RANGE, seed: 100 + round, name: `round ${round}` })
    const sent = await Promise.all(
      instances.flatMap((instance) => pieces(shuffled(events, next), next).map((batch) => instance.submit(batch))),
    )
    const receipts = sent.flat()
    const sum = (name: 'accepted' | 'duplicates') => receipts.reduce((all, receipt) => all + receipt[name], 0)
    expect([round, sum('accepted'), sum('duplicates')]).toEqual([round, events.length, events.length])
    expect(receipts.flatMap(({ rejected }) => rejected)).toEqual([])
    reference.add(events)
  }
  const [row] = await a().rows<{ events: number; ids: number }>('SELECT count() AS events, uniqExact(id) AS ids FROM events')
  expect(row).toEqual({ events: 12 * 150, ids: 12 * 150 })
  const names = await a().rows(`SELECT kind, name FROM names GROUP BY tenant, kind, name HAVING uniqExact(number) > 1`)
  expect(names, 'names with two numbers').toEqual([])
  const numbers = await a().rows(`SELECT kind, number FROM names GROUP BY tenant, kind, number HAVING uniqExact(name) > 1`)
  expect(numbers, 'numbers with two names').toEqual([])
  await expectBothRight()
  expect((await reconcile(b())).drift).toEqual([])
})

test('what is written through one is in the answers of the other within SHARED_MAX_AGE_MS', async () => {
  const ask = (instance: TestService) => instance.data('metrics', { ...ALL, period: 'month' })
  const before = await ask(b())
  const events = someEvents({ count: 50, ...RANGE, seed: 300, name: 'elsewhere' })
  await a().store(events)
  reference.add(events)
  const right = reference.metrics({ ...ALL, period: 'month' })
  // Whoever has written sees it at once.
  same(await ask(a()), right, 'the instance that wrote')
  // The other keeps what it has answered, for so long and no longer.
  same(await ask(b()), before, 'the other one, at the same moment')
  b().setNow(reference.now + SHARED_MAX_AGE_MS)
  same(await ask(b()), right, 'the other one, after the stated time')
  await expectBothRight()
})

test('one seals and repairs while the other writes', async () => {
  const written: SentEvent[] = []
  const traffic = { ends: false }
  const writer = (async () => {
    for (let batch = 0; !traffic.ends && batch < 200; batch++) {
      const events = someEvents({ count: 20, ...RANGE, seed: 1_000 + batch, name: `beside ${batch}` })
      await b().store(events)
      written.push(...events)
    }
  })()
  const later = reference.now + 9 * 86_400_000
  try {
    await a().deleteRows('activity', `tenant = '${tenantKey('acme')}' AND level = 2 AND toDate(start) = '2026-02-20'`)
    expect((await reconcile(a(), true)).repaired).toBeGreaterThan(0)
    // Two spans of four days end. The other one learns of it with its next turn.
    a().setNow(later)
    let sealed = 0
    while (await a().writer.exclusive((guard) => a().seals.advance(guard))) sealed++
    expect(sealed).toBeGreaterThan(0)
  } finally {
    traffic.ends = true
    await writer
  }
  expect(written.length).toBeGreaterThan(0)
  reference.add(written)
  reference.now = later
  // Late for spans that the other instance has sealed.
  const late = someEvents({ count: 100, from: '2026-02-20', to: '2026-03-01', seed: 400, name: 'late' })
  await b().store(late)
  reference.add(late)
  await expectBothRight()
  expect((await reconcile(b())).drift).toEqual([])
})
