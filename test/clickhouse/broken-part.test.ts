/** Parts that a full disk has cut off: the service goes back to what it has, or stores it again, without being told. */
import { createClient, type ClickHouseClient } from '@clickhouse/client'
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { startEmbedded, type EmbeddedServer } from '../../src/clickhouse/embedded/index.ts'
import { DiskFullError } from '../../src/clickhouse/embedded/disk-watch.ts'
import { readConfig } from '../../src/config.ts'
import { signLocalToken } from '../../src/auth/local-key.ts'
import { Store } from '../../src/clickhouse/store.ts'
import { createService } from '../../src/service.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const START = Date.parse('2026-02-20T10:00:00Z')

let dataDir: string
let server: EmbeddedServer
let service: Awaited<ReturnType<typeof createService>>
let admin: ClickHouseClient
let headers: Record<string, string>
let logged: string[]
/** What a test makes of the look at the disk that follows each write. */
let assertWritten: () => void

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'analytics-broken-'))
  server = await startEmbedded({ dataDir, log: () => {} })
  logged = []
  assertWritten = () => {}
  const config = readConfig({ DATA_DIR: dataDir, CACHE_MB: '0', SELF_CHECK_MINUTES: '0', QUERY_TIMEOUT_SECONDS: '5' })
  service = await createService({
    config,
    clickhouse: {
      ...server,
      restart: () => server.restart(),
      assertWritten: () => assertWritten(),
      stop: () => Promise.resolve(),
    },
    database: 'analytics',
    log: (_level, message) => void logged.push(message),
  })
  admin = createClient({ url: server.url, ...server.admin, database: 'analytics' })
  const token = await signLocalToken(
    service.localKey!,
    { org: 'acme', scope: 'analytics:read analytics:write analytics:operate' },
    config,
  )
  headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' }
})
afterEach(async () => {
  await admin.close()
  await service.close()
  await server.stop()
  await rm(dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
})

const send = async (batch: number) => {
  const events = Array.from({ length: 100 }, (_, n) => ({
    id: `${batch}-${n}`,
    eventType: 'incomingMessages',
    timestamp: new Date(START + 1000 * (100 * batch + n)).toISOString(),
    assistant: 'Rex',
    user: 'ann',
  }))
  const response = await service.app.request('/analytics/events', { method: 'POST', headers, body: JSON.stringify(events) })
  return response.status
}

const answer = async (path: string, method = 'GET') => {
  const response = await service.app.request(path, { method, headers })
  return response.status === 200 ? ((await response.json()) as { data: any }).data : response.status
}

// By user: that is read from the log.
const LISTED = '/analytics/events?startDate=2026-02-20&endDate=2026-02-21&user=ann&limit=1000'
const listed = async () => {
  const data = await answer(LISTED)
  return Array.isArray(data) ? data.length : data
}

const partsOf = async (table: string) => {
  const result = await admin.query({
    query: `SELECT path FROM system.parts WHERE database = 'analytics' AND table = {table:String} AND active`,
    query_params: { table },
    format: 'JSONEachRow',
  })
  return (await result.json<{ path: string }>()).map(({ path }) => path)
}

/** The parts of a table, by their names, that no merge has made. */
const inserted = (directory: string) => readdirSync(directory).filter((name) => /^all_\d+_\d+_0$/.test(name))

test('marks that are gone from a merged part cost a start of ClickHouse, and no event', async () => {
  for (const batch of [0, 1, 2]) expect(await send(batch)).toBe(200)
  await admin.command({ query: 'OPTIMIZE TABLE events FINAL' })
  const paths = await partsOf('events')
  expect(paths).toHaveLength(1)
  const path = paths[0] as string
  const marks = (await readdir(path)).filter((name) => /^data\.c?mrk/.test(name))
  expect(marks).toHaveLength(1)
  await truncate(join(path, marks[0]!), 0)

  expect(await listed()).toBe(503)
  expect(logged.filter((message) => message.includes('cannot be read'))).toHaveLength(1)
  const deadline = Date.now() + 30_000
  let found = await listed()
  for (; found !== 300 && Date.now() < deadline; found = await listed()) await sleep(200)
  expect(found).toBe(300)
  expect(await send(3)).toBe(200)
  expect(await listed()).toBe(400)
})

// Where the parts of one insert are spoilt: those of some tables, or of all.
test.each([[['activity']], [['events']], [['events', 'activity', 'user_activity']]])(
  'an insert that left empty files in %s is not acknowledged before it is stored',
  async (tables) => {
    expect(await send(0)).toBe(200)
    await admin.command({ query: 'SYSTEM STOP MERGES' })
    const directories = await Promise.all(tables.map(async (table) => join((await partsOf(table))[0] as string, '..')))
    const before = directories.map((directory) => inserted(directory))
    const { pid } = server
    let spoilt = 0
    assertWritten = () => {
      if (spoilt === 0) {
        const fresh = directories.flatMap((directory, at) =>
          inserted(directory)
            .filter((name) => !before[at]?.includes(name))
            .map((name) => join(directory, name)),
        )
        if (fresh.length < tables.length) return
        for (const path of fresh) {
          for (const file of readdirSync(path, { withFileTypes: true })) if (file.isFile()) truncateSync(join(path, file.name), 0)
        }
        spoilt = fresh.length
        server.restart()
      }
      // The old process is there for a moment still.
      if (server.pid === pid) throw new DiskFullError('as on a full disk')
    }
    expect(await send(1)).toBe(200)
    expect(spoilt).toBe(tables.length)
    expect(await listed()).toBe(200)
    const range = 'startDate=2026-02-20&endDate=2026-02-21'
    expect(await answer(`/analytics/metrics?period=day&${range}`)).toMatchObject([{ incomingMessages: 200, activeUsers: 1 }])
    expect((await answer('/operations/reconcile', 'POST')).drift).toEqual([])
    expect(logged.filter((message) => message.includes('had to be put right'))).toHaveLength(1)
  },
)

const RANGE = 'startDate=2026-02-20&endDate=2026-02-21'
const QUESTIONS = [
  `/analytics/metrics?period=day&${RANGE}`,
  `/analytics/assistants?${RANGE}`,
  `/analytics/users/top?${RANGE}&limit=5`,
]
const answers = () => Promise.all(QUESTIONS.map((path) => answer(path)))

/** Other bytes in the middle of the data of a rollup's only part. */
async function spoil(table: string) {
  await admin.command({ query: `OPTIMIZE TABLE ${table} FINAL` })
  const [path] = (await partsOf(table)) as [string]
  const data = join(path, 'data.bin')
  const file = (await readdir(path)).includes('data.bin') ? data : join(path, 'events.bin')
  const bytes = readFileSync(file)
  bytes.fill(0x5a, bytes.length >> 2, (3 * bytes.length) >> 2)
  writeFileSync(file, bytes)
}

const detached = async () => {
  const result = await admin.query({
    query: `SELECT table, name FROM system.detached_parts WHERE database = 'analytics'`,
    format: 'JSONEachRow',
  })
  return result.json()
}

const rebuilding = async () =>
  ((await (await service.app.request('/health/ready')).json()) as { rebuilding: unknown[] }).rebuilding

describe('a part of a rollup with other bytes in it', () => {
  test.each([[['activity']], [['user_activity']], [['activity', 'user_activity']]])(
    'in %s: no answer is wrong, the part is set aside and the rollup is repaired',
    async (tables) => {
      for (const batch of [0, 1, 2]) expect(await send(batch)).toBe(200)
      const before = await answers()
      for (const table of tables) await spoil(table)
      const seen = new Set<string>()
      const deadline = Date.now() + 45_000
      for (let right = 0; right < 5 && Date.now() < deadline; await sleep(50)) {
        const now = await answers()
        seen.add(
          JSON.stringify(
            now.map((data, at) =>
              data === 503 ? 'unavailable' : JSON.stringify(data) === JSON.stringify(before[at]) ? 'right' : data,
            ),
          ),
        )
        const repaired = logged.filter((message) => message.includes('was repaired from the log')).length
        if (repaired >= tables.length && JSON.stringify(now) === JSON.stringify(before)) right++
      }
      expect([...seen].filter((outcome) => !/^\["(right|unavailable)"(,"(right|unavailable)")*\]$/.test(outcome))).toEqual([])
      expect(logged.filter((message) => message.includes('it was set aside'))).toHaveLength(tables.length)
      expect(logged.filter((message) => message.includes('was repaired from the log'))).toHaveLength(tables.length)
      // What is asked now is answered from the rollup.
      expect(await rebuilding()).toEqual([])
      expect(await answers()).toEqual(before)
      expect((await answer('/operations/reconcile', 'POST')).drift).toEqual([])
      await vi.waitFor(async () => expect(await detached()).toEqual([]), { timeout: 10_000 })
      expect(await send(3)).toBe(200)
      expect(await answer(QUESTIONS[0] as string)).toMatchObject([{ incomingMessages: 400 }])
      expect(logged.filter((message) => message.includes('started again'))).toEqual([])
    },
  )

  test('reconcile with repair works', async () => {
    for (const batch of [0, 1]) expect(await send(batch)).toBe(200)
    const before = await answers()
    await spoil('activity')
    const result = await answer('/operations/reconcile?repair=true', 'POST')
    expect(result).toMatchObject({ days: expect.any(Number), drift: expect.any(Array) })
    expect(result.repaired).toBe(result.drift.length)
    expect(await answers()).toEqual(before)
    await vi.waitFor(async () => expect(await rebuilding()).toEqual([]), { timeout: 30_000, interval: 100 })
    expect(await answers()).toEqual(before)
    expect((await answer('/operations/reconcile', 'POST')).drift).toEqual([])
  })

  test('one that ClickHouse cannot load when it is started again is missed by no answer', async () => {
    for (const batch of [0, 1, 2]) expect(await send(batch)).toBe(200)
    const before = await answers()
    await admin.command({ query: 'OPTIMIZE TABLE activity FINAL' })
    const [path] = (await partsOf('activity')) as [string]
    // Also what it was merged from, as after 8 minutes.
    const directory = join(path, '..')
    for (const name of readdirSync(directory).filter((entry) => entry.startsWith('all_')))
      truncateSync(join(directory, name, 'data.bin'), 10)
    const { pid } = server
    server.restart()
    const seen: unknown[] = []
    await vi.waitFor(
      async () => {
        const now = await answer(QUESTIONS[0] as string)
        if (now !== 503) seen.push(now)
        expect(server.pid).not.toBe(pid)
        expect(logged.filter((message) => message.includes('was repaired from the log'))).toHaveLength(1)
      },
      { timeout: 30_000, interval: 20 },
    )
    expect(seen.filter((data) => JSON.stringify(data) !== JSON.stringify(before[0]))).toEqual([])
    expect(await answers()).toEqual(before)
    expect(logged.filter((message) => message.includes('could not load a part'))).not.toEqual([])
    await vi.waitFor(async () => expect(await detached()).toEqual([]), { timeout: 10_000 })
  })
})

test('a name whose row is gone after a start of ClickHouse gets a number of its own again', async () => {
  expect(await send(0)).toBe(200)
  // As after a full disk: the row was read, and is not there any more.
  await admin.command({ query: `ALTER TABLE names DELETE WHERE name = 'ann' SETTINGS mutations_sync = 1` })
  const exited = new Promise<void>((done) => server.onExit(done))
  server.restart()
  await exited
  await vi.waitFor(async () => expect(await send(1)).toBe(200), { timeout: 20_000, interval: 200 })
  const result = await admin.query({ query: `SELECT number FROM names WHERE name = 'ann'`, format: 'JSONEachRow' })
  expect(await result.json()).toHaveLength(1)
})

test('rows are changed only where there is space to write them anew', async () => {
  expect(await send(0)).toBe(200)
  const store = new Store({ ...server, database: 'analytics', queryTimeoutSeconds: 20, queryMemoryMb: 1_000 })
  const asked: string[] = []
  const query = store.admin.query.bind(store.admin)
  // A disk that has less than the part takes.
  store.admin.query = ((params: Parameters<typeof query>[0]) => {
    asked.push(params.query)
    return query({ ...params, query: params.query.replace('disks.unreserved_space', 'toUInt64(1)') })
  }) as typeof query
  try {
    await expect(store.deleteRows('events', `id = '0-0'`)).rejects.toMatchObject({ status: 503 })
    expect(asked.filter((text) => text.includes('unreserved_space'))).toHaveLength(1)
    store.admin.query = query
    await store.deleteRows('events', `id = '0-0'`)
    expect(await listed()).toBe(99)
  } finally {
    await store.close()
  }
})
