/**
 * A service on two shards says what a service on one server says, byte for byte; what a shard that is away, or comes back,
 * does to answers and to what is stored. The shards are embedded servers, without replicas and Keeper.
 */
import { createClient, type ClickHouseClient } from '@clickhouse/client'
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { tenantKey } from '../../src/domain/tenant.ts'
import { CUTS, splitLevel } from '../../src/rollups/granularities.ts'
import { someEvents } from '../ingest/events.ts'
import type { SentEvent } from '../reference.ts'
import { queryString, startService, type Params, type TestService } from '../support.ts'
import { excerpt } from '../traffic.ts'
import { startShards, type Shards } from './shards.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 })

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href

const BEGIN = '2025-12-01T00:20:00.000Z'
const NOW = '2026-03-01T12:00:00.000Z'
const DAY_MS = 86_400_000
const OPERATOR = { org: 'operator', scope: 'analytics:operate' }
const QUERY_TIMEOUT_SECONDS = 5

let shards: Shards
let single: TestService
let cluster: TestService
/** The admin's way to each shard. */
let servers: ClickHouseClient[]

const onShards = () => ({
  CLICKHOUSE_URL: shards.url,
  CLICKHOUSE_CLUSTER: shards.cluster.name,
  CLICKHOUSE_CLUSTER_URLS: shards.cluster.urls.join(','),
})
const startCluster = (options: { now?: string; from?: { database: string; dataDir: string } } = {}) =>
  startService({
    ...options,
    clickhouse: shards,
    config: { ...onShards(), QUERY_TIMEOUT_SECONDS: String(QUERY_TIMEOUT_SECONDS) },
  })

const real = excerpt()
/** Three months; a tenth of them come days late, when spans are sealed over them. */
const made = someEvents({ count: 6_000, from: '2025-12-01', to: NOW, seed: 1 })
const isLate = (_: unknown, index: number) => index % 10 === 0

/** Both services get the same, in the same order. */
async function store(events: readonly SentEvent[], org: string) {
  for (const service of [single, cluster]) await service.store(events, { org })
}

async function sealAll() {
  for (const service of [single, cluster]) {
    while (await service.writer.exclusive((guard) => service.seals.advance(guard))) continue
  }
}

beforeAll(async () => {
  shards = await startShards()
  single = await startService({ now: BEGIN })
  cluster = await startCluster({ now: BEGIN })
  servers = shards.cluster.urls.map((url) => createClient({ url, ...shards.admin, database: cluster.database }))
  await store(real, 'real')
  // Spans are sealed behind the events, and stragglers follow.
  for (let now = Date.parse(BEGIN); now < Date.parse(NOW);) {
    const next = Math.min(now + 30 * DAY_MS, Date.parse(NOW))
    const come = made.filter(
      ({ timestamp }) => Date.parse(timestamp) >= now - 1_200_000 && Date.parse(timestamp) < next - 1_200_000,
    )
    for (const service of [single, cluster]) service.setNow(next)
    await store(
      come.filter((event, index) => !isLate(event, index)),
      'made',
    )
    await sealAll()
    await store(come.filter(isLate), 'made')
    now = next
  }
  await store(
    made.filter(({ timestamp }) => Date.parse(timestamp) >= Date.parse(NOW) - 1_200_000),
    'made',
  )
})
afterAll(async () => {
  await Promise.all([...(servers ?? []).map((client) => client.close()), single?.close(), cluster?.stop()])
  await shards?.stop()
  if (cluster) await rm(cluster.dataDir, { recursive: true, force: true })
})

/** Every endpoint, over whole and ragged ranges, time zones, filters, pages and files. */
const QUESTIONS: Array<[org: string, path: string, params: Params]> = []
const RANGES: Record<string, Params[]> = {
  made: [
    { startDate: '2025-12-01', endDate: '2026-03-01' },
    { startDate: '2025-12-03T05:17:23.456Z', endDate: '2026-02-27T21:44:59.999Z' },
    { startDate: '2026-01-10', endDate: '2026-02-20', timezone: 'Asia/Kathmandu' },
    { startDate: '2026-02-28T00:15', endDate: '2026-02-28T04:45' },
  ],
  real: [
    { startDate: '2004-12-01', endDate: '2018-04-01' },
    { startDate: '2007-06-30T22:15', endDate: '2008-05-01T00:00:00.001', timezone: 'Australia/Lord_Howe' },
  ],
}
const FILTERS: Record<string, Params[]> = {
  made: [
    {},
    { assistant: 'assistant 1' },
    { user: 'user 7' },
    { user: ['user 3', 'user 4', 'user 5'], assistant: ['assistant 0', 'nobody by this name'] },
    { user: 'nobody by this name' },
  ],
  real: [{}, { assistant: ['ubotu', 'channel_ubuntu'] }, { user: [real[0]?.user ?? '', real[99]?.user ?? ''] }],
}
for (const org of ['made', 'real']) {
  for (const filter of FILTERS[org] ?? []) {
    const ask = (path: string, params: Params) => QUESTIONS.push([org, path, { ...params, ...filter }])
    for (const range of RANGES[org] ?? []) {
      ask('metrics', { ...range, period: org === 'made' ? 'day' : 'month' })
      ask('metrics', { ...range, period: 'week' })
      ask('events', { ...range, limit: 200 })
      ask('events', { ...range, limit: 7, skip: 40, eventType: 'tasksInitiated' })
      ask('assistants', range)
      ask('users/top', { ...range, limit: 25 })
      ask('snapshots', { ...range, period: 'week' })
      for (const format of ['ndjson', 'csv']) {
        ask('events', { ...range, format })
        ask('snapshots', { ...range, format, period: 'month' })
      }
    }
    for (const period of ['day', 'week', 'month']) ask('overview', { period })
    ask('overview', { period: 'month', endDate: org === 'made' ? '2026-02-10' : '2008-01-04T03:00' })
    for (const window of [1, 30, 90]) ask('rolling', { window })
    ask('rolling', { window: 90, endDate: org === 'made' ? '2026-02-14T07:08:09.010Z' : '2005-12-27T13:14:15.167Z' })
    ask('regressions', { hours: 168, minVolume: 1, weeks: 6 })
    ask('regressions', { hours: 6, minVolume: 1, weeks: 3, timezone: 'America/St_Johns' })
  }
}

/** Some of every endpoint and shape, for checks that are made often. */
const FEW = QUESTIONS.filter((_, at) => at % 12 === 0)

/** All of it takes four minutes. */
const FULL = process.env['CLUSTER_TEST'] === 'full'
const ASKED = FULL ? QUESTIONS : FEW
/** Left out of the short form. */
const longTest = FULL ? test : test.skip
console.info(
  FULL
    ? `two shards: all ${QUESTIONS.length} questions`
    : `two shards, short for time: ${FEW.length} of ${QUESTIONS.length} questions, one shard killed; all of it: npm run test:cluster`,
)

const url = (path: string, params: Params) => `/analytics/${path}?${queryString(params)}`

/** What a service answers; text, so that nothing is lost in a comparison. */
async function answer(service: TestService, [org, path, params]: (typeof QUESTIONS)[number]) {
  const { status, body } = await service.request('GET', url(path, params), { org })
  return { status, body: typeof body === 'string' ? body : JSON.stringify(body) }
}

/** The questions that two shards answer otherwise than one server. */
async function differences(questions = ASKED): Promise<string[]> {
  const found: string[] = []
  for (const question of questions) {
    const [expected, actual] = [await answer(single, question), await answer(cluster, question)]
    if (expected.status !== 200) throw new Error(`${question.join(' ')}: ${JSON.stringify(expected)}`)
    if (actual.status !== 200 || actual.body !== expected.body) {
      const why = actual.status === 200 ? '' : (cluster.complaints.at(-1) ?? '')
      found.push(`${JSON.stringify(question)}: ${actual.body.slice(0, 300)} instead of ${expected.body.slice(0, 300)} ${why}`)
    }
  }
  return found
}

async function onShard<Row>(shard: number, query: string): Promise<Row[]> {
  const result = await (servers[shard] as ClickHouseClient).query({
    query,
    format: 'JSONEachRow',
    clickhouse_settings: { output_format_json_quote_64bit_integers: 0 },
  })
  return result.json<Row>()
}

/** Takes rows of the company `made` away on one shard, behind the service's back. */
async function lose(shard: number, table: string, where: string) {
  await servers[shard]?.command({
    query: `ALTER TABLE ${table} DELETE WHERE tenant = '${tenantKey('made')}' AND ${where}`,
    clickhouse_settings: { mutations_sync: '1' },
  })
}

async function reconcile(repair = false) {
  const reply = await cluster.request('POST', `/operations/reconcile?repair=${repair}&startDate=2025-11-01`, OPERATOR)
  expect(reply.status, `${JSON.stringify(reply.body)} ${cluster.complaints.at(-1)}`).toBe(200)
  return reply.body.data as { drift: Array<{ tenant: string; start: string; rollup: string }>; repaired: number }
}

async function ready() {
  const response = await cluster.app.request('/health/ready')
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

/** Keeps a shard from coming back, until the returned function is called. */
function kill(shard: number): () => Promise<void> {
  const server = shards.servers[shard]
  server?.restart()
  const again = setInterval(() => server?.restart(), 20)
  return async () => {
    clearInterval(again)
    for (;;) {
      if ((await ready()).status === 200) return
      await sleep(50)
    }
  }
}

describe('two shards', () => {
  test('have a part of the events each, and no user in common', async () => {
    const parts = await Promise.all(
      [0, 1].map((shard) =>
        onShard<{ events: number; users: string[] }>(
          shard,
          `SELECT count() AS events, groupUniqArray((tenant, user_no))::Array(String) AS users FROM events_local`,
        ),
      ),
    )
    const [first, second] = parts.map(([row]) => row as { events: number; users: string[] })
    expect((first?.events ?? 0) + (second?.events ?? 0)).toBe(real.length + made.length)
    for (const part of [first, second]) expect(part?.events).toBeGreaterThan((real.length + made.length) / 5)
    expect(new Set([...(first?.users ?? []), ...(second?.users ?? [])]).size).toBe(
      (first?.users.length ?? 0) + (second?.users.length ?? 0),
    )
  })

  test('sealed the same spans, each its own rows of them', async () => {
    expect(cluster.seals.sealedUntil).toEqual(single.seals.sealedUntil)
    for (const shard of [0, 1]) {
      const levels = await onShard<{ level: number }>(shard, 'SELECT DISTINCT level FROM activity_local ORDER BY level')
      expect(levels.map(({ level }) => level)).toEqual([0, 1, 2, 3, 4, 5, 6, ...CUTS.map(splitLevel)])
    }
  })

  test(`answer ${ASKED.length} questions as one server does`, { timeout: 240_000 }, async () => {
    expect(await differences()).toEqual([])
  })

  test('the same events again, in other batches, are duplicates', async () => {
    const shuffled = made.map((_, at) => made[(at * 7_919) % made.length] as SentEvent)
    const receipts = await cluster.submit(shuffled.slice(0, 4_000), { org: 'made' })
    expect(receipts).toEqual([{ accepted: 0, duplicates: 4_000, rejected: [] }])
  })

  longTest('drift on one of them is found and repaired', async () => {
    expect((await reconcile()).drift).toEqual([])
    await lose(1, 'activity_local', `level IN (0, 2) AND assistant_no = 0 AND toDate(start) = '2026-02-10'`)
    await lose(0, 'user_activity_local', `level = 2 AND toDate(start) = '2026-02-11'`)
    await lose(1, 'activity_local', `level = 3 AND assistant_no = 2 AND toDate(start) = '2025-12-14'`)
    expect((await differences(FEW)).length).toBeGreaterThan(0)
    const { drift } = await reconcile(true)
    // And the coarse spans over the days.
    expect(drift.map(({ start, rollup }) => `${start.slice(0, 10)} ${rollup}`)).toEqual(
      expect.arrayContaining([
        '2025-12-14 activity level 3 by assistant',
        '2026-02-10 activity level 0 of the fleet',
        '2026-02-10 activity level 2 of the fleet',
        '2026-02-11 user_activity level 2',
      ]),
    )
    expect((await reconcile()).drift).toEqual([])
    expect(await differences()).toEqual([])
  })
})

/** Questions that are about the whole fleet, one of each endpoint and a file: they need every shard. */
const WHOLE: typeof QUESTIONS = [
  ['made', 'overview', {}],
  ['made', 'metrics', { period: 'week', startDate: '2025-12-01', endDate: '2026-03-01' }],
  ['made', 'rolling', { window: 30 }],
  ['made', 'events', { startDate: '2025-12-01', endDate: '2026-03-01' }],
  ['made', 'assistants', { startDate: '2025-12-03T05:17:23.456Z', endDate: '2026-03-01' }],
  ['made', 'users/top', { startDate: '2025-12-01', endDate: '2026-03-01' }],
  ['made', 'snapshots', { startDate: '2025-12-01', endDate: '2026-03-01' }],
  ['made', 'snapshots', { startDate: '2025-12-01', endDate: '2026-03-01', format: 'csv' }],
  ['made', 'events', { startDate: '2025-12-01', endDate: '2026-03-01', format: 'ndjson' }],
  ['made', 'regressions', { hours: 24, minVolume: 1 }],
]

/** Asks all at once; each must be refused in time, in the usual words. */
async function expectRefusals() {
  const began = performance.now()
  const replies = await Promise.all(
    WHOLE.map(async ([org, path, params]) => ({ path, reply: await cluster.request('GET', url(path, params), { org }) })),
  )
  expect(performance.now() - began).toBeLessThan((QUERY_TIMEOUT_SECONDS + 6) * 1_000)
  for (const { path, reply } of replies) {
    expect({ path, status: reply.status, body: reply.body }).toEqual({
      path,
      status: 503,
      body: {
        success: false,
        error: { code: 'unavailable', message: expect.stringMatching(/^The analytics store [a-z ]+\.$/), details: [] },
        requestId: expect.any(String),
      },
    })
    expect(Number(reply.headers.get('Retry-After'))).toBeGreaterThan(0)
  }
}

/** What is about a few users lies on some shards: it is answered in full, or not at all. */
async function expectNothingSmaller() {
  for (const question of QUESTIONS.filter(([org, , { user }], at) => org === 'made' && user !== undefined && at % 5 === 0)) {
    const actual = await answer(cluster, question)
    if (actual.status !== 503) expect(actual, JSON.stringify(question)).toEqual(await answer(single, question))
  }
}

const more = (name: string, count = 200) => someEvents({ count, from: '2026-01-20', to: '2026-02-28', seed: name.length, name })

describe.each([
  ['the second', 1, test],
  ['the first, which the service asks,', 0, longTest],
] as const)('%s shard is killed', (_, shard, run) => {
  run('every endpoint refuses, nothing is stored, and all of it comes back by itself', async () => {
    const events = more(`killed ${shard}`)
    const up = kill(shard)
    try {
      await expectRefusals()
      await expectNothingSmaller()
      expect((await cluster.post(events, { org: 'made' })).status).toBe(503)
      const { status, body } = await ready()
      expect([status, body['status']]).toEqual([503, 'unavailable'])
      if (shard === 1) expect(body).toMatchObject({ clickhouse: 'ok', missingShards: ['2 (127.0.0.1)'] })
      else expect(body).toMatchObject({ clickhouse: 'out of reach' })
    } finally {
      await up()
    }
    // What was refused may have been stored all the same: the sum is right.
    const [receipt] = await cluster.submit(events, { org: 'made' })
    expect((receipt?.accepted ?? 0) + (receipt?.duplicates ?? 0)).toBe(events.length)
    await single.store(events, { org: 'made' })
    expect(await differences(FEW)).toEqual([])
    expect((await reconcile()).drift).toEqual([])
  })
})

longTest('a shard that takes connections and says nothing is a refusal in time, and is told of', async () => {
  const { pid } = shards.servers[1] as { pid: number }
  process.kill(pid, 'SIGSTOP')
  try {
    await expectRefusals()
    expect((await ready()).body['missingShards']).toEqual(['one of 1 (127.0.0.1), 2 (127.0.0.1)'])
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  await vi.waitFor(async () => expect((await ready()).status).toBe(200), 20_000)
  // Seen once (26.7): the shard, back, falls over the queries that were given up meanwhile, and is started again. Until
  // then it is refusals, and nothing else.
  await vi.waitFor(
    async () => {
      const differing = await differences(FEW)
      expect(differing.filter((line) => !line.includes('"code":"unavailable"'))).toEqual([])
      expect(differing).toEqual([])
    },
    { timeout: 30_000, interval: 500 },
  )
})

longTest('a shard that dies again and again while events come in: nothing is lost, nothing is doubled', async () => {
  const events = more('restless', 1_500)
  const reply = { accepted: 0, duplicates: 0 }
  for (let at = 0, batch = 0; at < events.length; at += 100, batch++) {
    if (batch % 3 === 1) shards.servers[1]?.restart()
    for (;;) {
      const { status, body } = await cluster.post(events.slice(at, at + 100), { org: 'made' })
      if (status === 200) {
        reply.accepted += body.data.accepted
        reply.duplicates += body.data.duplicates
        break
      }
      expect(status).toBe(503)
      await sleep(200)
    }
  }
  expect(reply.accepted + reply.duplicates).toBe(events.length)
  await single.store(events, { org: 'made' })
  expect(await differences(FEW)).toEqual([])
  expect((await reconcile()).drift).toEqual([])
})

/** The service as a process of its own, on the same shards and database, with a token of the organization `demo`. */
async function startProcess(dataDir: string): Promise<{ child: ChildProcess; base: string; token: string }> {
  const child = spawn(process.execPath, ['--import', TSX, 'src/main.ts'], {
    cwd: ROOT,
    env: {
      PATH: process.env['PATH'],
      ...onShards(),
      CLICKHOUSE_DATABASE: cluster.database,
      CLICKHOUSE_USER: shards.admin.username,
      CLICKHOUSE_PASSWORD: shards.admin.password,
      DATA_DIR: dataDir,
      PORT: '0',
      LOG_LEVEL: 'silent',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
  while (child.exitCode === null && child.signalCode === null) {
    const [, base, token] = /ready at (\S+)[^]*export TOKEN=(\S+)/.exec(said) ?? []
    if (base && token) return { child, base, token }
    await sleep(20)
  }
  throw new Error(`the service did not start: ${said}`)
}

async function storedOn(shard: number, name: string): Promise<number> {
  const [row] = await onShard<{ n: number }>(shard, `SELECT count() AS n FROM events_local WHERE startsWith(id, '${name}')`)
  return row?.n ?? 0
}

longTest('an insert that reached one shard, and the service killed: the journal completes it', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-shards-service-'))
  const events = more('cut off', 300)
  const { child, base, token } = await startProcess(dataDir)
  try {
    // The second shard can be read, and does not take what it is sent.
    await servers[1]?.command({ query: `ALTER TABLE events_local ADD CONSTRAINT away CHECK NOT startsWith(id, 'cut off')` })
    const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' }
    const sent = fetch(`${base}/analytics/events`, { method: 'POST', headers, body: JSON.stringify(events) }).then(
      ({ status }) => status,
      () => 'cut off',
    )
    await vi.waitFor(async () => expect(await storedOn(0, 'cut off')).toBeGreaterThan(0), 15_000)
    expect(await storedOn(0, 'cut off')).toBeLessThan(events.length)
    child.kill('SIGKILL')
    expect(await sent).toBe('cut off')
    expect(await readdir(join(dataDir, 'journal'))).toHaveLength(1)
  } finally {
    child.kill('SIGKILL')
    await servers[1]?.command({ query: 'ALTER TABLE events_local DROP CONSTRAINT away' })
  }
  const again = await startCluster({ now: NOW, from: { database: cluster.database, dataDir } })
  try {
    expect(await readdir(join(dataDir, 'journal'))).toEqual([])
    expect((await storedOn(0, 'cut off')) + (await storedOn(1, 'cut off'))).toBe(events.length)
    expect(await again.submit(events, { org: 'demo' })).toEqual([{ accepted: 0, duplicates: events.length, rejected: [] }])
  } finally {
    await again.stop()
    await rm(dataDir, { recursive: true, force: true })
  }
  await single.store(events, { org: 'demo' })
  expect(await differences(WHOLE.map(([, path, params]) => ['demo', path, params]))).toEqual([])
  expect((await reconcile()).drift).toEqual([])
})
