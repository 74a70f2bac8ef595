/**
 * A database that the first migrations made and filled, the raw log alone, taken over by this build: rollups are made
 * anew while events go on coming in, through the end of the service half way. Every answer is right at every moment.
 */
import { createClient, type ClickHouseClient } from '@clickhouse/client'
import { randomBytes } from 'node:crypto'
import { copyFile, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest'
import { tenantKey } from '../../src/domain/tenant.ts'
import { migrate } from '../../src/clickhouse/migrate.ts'
import { Store, type StoreOptions } from '../../src/clickhouse/store.ts'
import { compare, type Path } from '../compare.ts'
import { someEvents } from '../ingest/events.ts'
import { Reference, type Asked, type SentEvent } from '../reference.ts'
import { startService, type TestService } from '../support.ts'

vi.setConfig({ testTimeout: 90_000, hookTimeout: 60_000 })

const SQL = fileURLToPath(new URL('../../clickhouse', import.meta.url))
const NOW = '2026-03-01T12:00:00.000Z'
const OPERATOR = { scope: 'analytics:operate' }

const RANGE = { startDate: '2025-09-03T03:07:41.123Z', endDate: '2026-03-01T11:59:59.999Z' }
const QUESTIONS: Array<[Path, Asked]> = [
  ['overview', { period: 'month' }],
  ['metrics', { period: 'month', ...RANGE, timezone: 'Asia/Kathmandu' }],
  ['metrics', { period: 'week', ...RANGE, assistant: ['assistant 1', 'assistant 4'] }],
  ['rolling', { window: 90 }],
  ['events', { ...RANGE, limit: 3 }],
  ['assistants', { ...RANGE, startDate: '2025-12-01' }],
  ['users/top', { ...RANGE, limit: 50 }],
  ['users/top', { startDate: '2025-10-01', endDate: '2026-02-01', limit: 5 }],
  ['snapshots', { ...RANGE, period: 'month' }],
]

/** Of two companies, so many days that they take several steps. */
const old = {
  acme: someEvents({ count: 3_000, from: '2025-09-01', to: NOW, seed: 1 }),
  globex: someEvents({ count: 1_500, from: '2025-06-11', to: NOW, seed: 2 }),
}
type Company = keyof typeof old

/** Traffic during the upgrade, for days of any age. */
const fresh = someEvents({ count: 2_000, from: '2025-09-01', to: NOW, seed: 3, name: 'fresh' })

let directory: string
let database: string
let admin: ClickHouseClient
let services: TestService[]

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'analytics-upgrade-'))
  database = `analytics_test_${randomBytes(6).toString('hex')}`
  const { url, admin: user } = inject('clickhouse')
  admin = createClient({ url, ...user })
  services = []
})
afterEach(async () => {
  const last = services.pop()
  await last?.close()
  await admin.close()
  await rm(directory, { recursive: true })
})

async function filesUpTo(version: number) {
  for (const name of (await readdir(SQL))
    .filter((file) => /^\d{3}_.*\.sql$/.test(file) && !file.startsWith('000_'))
    .sort()
    .slice(0, version)) {
    await copyFile(join(SQL, name), join(directory, name))
  }
}

/** Writes events as they would have been: names first, then rows of the log. */
async function fill() {
  const http_headers = { 'X-ClickHouse-Database': database }
  const numbers = new Map<string, number>()
  const names: unknown[] = []
  const numberOf = (tenant: string, kind: string, name: string) => {
    const key = `${tenant} ${kind} ${name}`
    const last = `${tenant} ${kind}`
    if (!numbers.has(key)) {
      numbers.set(last, (numbers.get(last) ?? 0) + 1)
      numbers.set(key, numbers.get(last) as number)
      names.push({ tenant, kind, name, number: numbers.get(key) })
    }
    return numbers.get(key) as number
  }
  const rows = (Object.keys(old) as Company[]).flatMap((company) => {
    const tenant = tenantKey(company)
    return old[company].map((event) => ({
      tenant,
      timestamp: event.timestamp.slice(0, 23).replace('T', ' '),
      id: event.id,
      event_type: event.eventType,
      assistant: event.assistant,
      user: event.user,
      assistant_no: numberOf(tenant, 'assistant', event.assistant),
      user_no: numberOf(tenant, 'user', event.user),
      cost_nanos: Math.round((event.cost ?? 0) * 1e9),
      input_tokens: event.inputTokens ?? 0,
      output_tokens: event.outputTokens ?? 0,
      model: event.model ?? '',
      trace_id: event.traceId ?? '',
      metadata: event.metadata ? JSON.stringify(event.metadata) : '',
    }))
  })
  await admin.insert({ table: 'names', values: names, format: 'JSONEachRow', http_headers })
  await admin.insert({ table: 'events', values: rows, format: 'JSONEachRow', http_headers })
}

/** Counts rows that questions take from rollups. */
class Watching extends Store {
  static rollups = 0
  override read: Store['read'] = (asker, query) => {
    if (/FROM (activity|user_activity)\b/.test(query.sql)) Watching.rollups++
    return super.read(asker, query)
  }
}

const makeStore = (options: StoreOptions) => new Watching(options)

async function start(dataDir?: string, config: Record<string, string> = {}): Promise<TestService> {
  const from = { database, dataDir: dataDir ?? (await mkdtemp(join(directory, 'data-'))) }
  const service = await startService({ now: NOW, from, makeStore, config })
  services = [service]
  return service
}

const reconciled = async (service: TestService) =>
  (await service.request('POST', '/operations/reconcile', OPERATOR)).body.data as { days: number; drift: unknown[] }

const rebuilding = async (service: TestService) =>
  (await service.request('GET', '/health/ready', {})).body.rebuilding as Array<{ rollup: string; done: number }>

describe('a database of the raw log alone', () => {
  beforeEach(async () => {
    await filesUpTo(2)
    await migrate({ client: admin, database, directory })
    await fill()
  })

  test('is answered exactly while its rollups are made, through a restart half way, and then from them', async () => {
    const reference = new Reference(old.acme, NOW)
    const theirs = new Reference(old.globex, NOW)
    const ask = async (service: TestService, hint: string) => {
      for (const [path, asked] of QUESTIONS) await compare(service, reference, path, asked, hint)
      expect(await service.whole('users/top', { ...RANGE, limit: 40 }, { org: 'globex' })).toEqual({
        success: true,
        data: theirs.usersTop({ ...RANGE, limit: 40 }),
      })
    }
    const send = async (service: TestService) => {
      const some = fresh.splice(0, 60)
      await service.store(some)
      reference.add(some)
    }

    let service = await start()
    // Half way is where some steps of a rollup are made, and others not.
    const steps = async () =>
      (await service.rows<{ n: number }>(`SELECT count() AS n FROM rebuilds WHERE phase = 0 AND tenant != ''`))[0]?.n ?? 0
    Watching.rollups = 0
    while ((await steps()) < 2) {
      expect(service.complaints).toEqual([])
      await send(service)
    }
    // Steps are made in the lane: whoever has it can look for as long as it takes.
    await service.writer.exclusive(async () => {
      await ask(service, 'at first')
      expect([await rebuilding(service), Watching.rollups]).toEqual([
        [
          { rollup: 'activity', done: expect.any(Number) },
          { rollup: 'user_activity', done: 0 },
        ],
        0,
      ])
    })
    await service.stop()
    expect(await service.seals.due).toBe(false)

    service = await start(service.dataDir)
    const before = await steps()
    expect(before).toBeLessThan(8)
    let asked = 0
    while ((await rebuilding(service)).length > 0) {
      expect(service.complaints).toEqual([])
      await send(service)
      const look = async () => ask(service, `after ${await steps()} steps`)
      // With a step standing still, and in the middle of steps.
      await (asked % 2 === 0 ? service.writer.exclusive(look) : look())
      asked++
    }
    expect(asked).toBeGreaterThan(1)
    await ask(service, 'at last')
    expect(Watching.rollups).toBeGreaterThan(0)
    const { days, drift } = await reconciled(service)
    expect([days > 400, drift]).toEqual([true, []])
    // No step was made twice.
    const made = await service.rows(
      'SELECT name, phase, tenant, level, start, count() AS n FROM rebuilds GROUP BY ALL HAVING n > 1',
    )
    expect(made).toEqual([])

    // Spans are sealed from the first event on, not from 1970.
    await vi.waitFor(() => expect(service.seals.due).toBe(false), { timeout: 60_000, interval: 200 })
    await service.writer.exclusive(() => Promise.resolve())
    const [seals] = await service.rows<{ n: number }>('SELECT count() AS n FROM seals')
    expect(Number(seals?.n)).toBeLessThan(3 + 70 + 20 + 6)
    await send(service)
    await ask(service, 'sealed')
    expect((await reconciled(service)).drift).toEqual([])
    expect((await service.submit(old.acme))[0]).toEqual({ accepted: 0, duplicates: 3_000, rejected: [] })
  })

  test('two services share the work, and both know when it is done', async () => {
    const config = { CLICKHOUSE_URL: 'http://shared' }
    const [one, other] = await Promise.all([start(undefined, config), start(undefined, config)])
    await vi.waitFor(async () => expect([...(await rebuilding(one)), ...(await rebuilding(other))]).toEqual([]), {
      timeout: 60_000,
      interval: 200,
    })
    expect(
      await one.rows('SELECT name, phase, tenant, level, start, count() AS n FROM rebuilds GROUP BY ALL HAVING n > 1'),
    ).toEqual([])
    const reference = new Reference(old.acme, NOW)
    for (const service of [one, other]) for (const [path, asked] of QUESTIONS) await compare(service, reference, path, asked)
    expect((await reconciled(other)).drift).toEqual([])
    await other.stop()
    services = [one]
  })
})

test('a rollup that a later file asks for is made anew with its sealed spans, and what was wrong in it is gone', async () => {
  let service = await start()
  const events: SentEvent[] = [...old.acme]
  await service.store(events)
  service.setNow('2026-07-01T00:00:00Z')
  while (await service.writer.exclusive((guard) => service.seals.advance(guard)));
  const sealed = service.seals.sealedUntil
  for (const command of [
    'ALTER TABLE user_activity DELETE WHERE user_no % 3 = 0',
    'INSERT INTO user_activity SELECT * FROM user_activity WHERE user_no % 3 = 1',
  ])
    await service.admin.command({ query: command, clickhouse_settings: { mutations_sync: '1' } })
  expect((await reconciled(service)).drift.length).toBeGreaterThan(100)
  await service.admin.command({
    query: `INSERT INTO rebuilds (name, version, phase, tenant, level, start) VALUES ('user_activity', 99, 0, '', 0, 0)`,
  })
  await service.stop()
  service = await start(service.dataDir)
  expect(service.seals.due).toBe(false)
  await vi.waitFor(async () => expect(await rebuilding(service)).toEqual([]), { timeout: 60_000, interval: 200 })
  expect(service.seals.sealedUntil).toEqual(sealed)
  expect((await reconciled(service)).drift).toEqual([])
  const reference = new Reference(events, NOW)
  for (const [path, asked] of QUESTIONS) await compare(service, reference, path, asked)
})

test('a new database has nothing to make anew', async () => {
  const service = await start()
  expect(await service.rows('SELECT * FROM rebuilds')).toEqual([])
  await service.store(old.acme.slice(0, 10))
  await service.stop()
  const again = await start(service.dataDir)
  expect(await rebuilding(again)).toEqual([])
})
