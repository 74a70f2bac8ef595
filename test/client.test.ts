/** The typed client against the service itself, with `app.request` for fetch. */
import { build } from 'esbuild'
import { readFileSync } from 'node:fs'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, expectTypeOf, test } from 'vitest'
import { AnalyticsError, createAnalyticsClient, type AnalyticsClient, type Event, type Snapshot } from '../src/client.ts'
import { ENDPOINTS } from '../src/analytics/endpoints/index.ts'
import { startService, type Caller, type TestService } from './support.ts'
import { authorization } from './tokens.ts'

const excerpt = gunzipSync(readFileSync(new URL('data/ubuntu-irc-excerpt.ndjson.gz', import.meta.url)))
const RANGE = { startDate: '2011-02-18', endDate: new Date('2011-02-25') }

let service: TestService
let client: AnalyticsClient
/** The last request that was sent. */
let sent: { url: URL; init: RequestInit }

beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
  client = await clientOf()
  await service.store(
    excerpt
      .toString()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object),
  )
})
afterAll(() => service.close())

async function clientOf(caller: Caller = {}) {
  const token = (await authorization(service, caller)).slice('Bearer '.length)
  return createAnalyticsClient({
    url: 'http://localhost',
    token,
    fetch: (url, init) => {
      sent = { url, init }
      return service.app.request(url, init)
    },
  })
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable('it was refused nothing'),
    (error: unknown) => error as AnalyticsError,
  )

test('every endpoint has a method that answers what the endpoint answers', async () => {
  const range = { startDate: '2011-02-18', endDate: '2011-02-25T00:00:00.000Z' }
  const pairs: Array<[keyof typeof ENDPOINTS, unknown, unknown]> = [
    [
      '/analytics/overview',
      await client.overview({ endDate: '2011-02-25', period: 'day' }),
      await service.data('overview', { endDate: '2011-02-25', period: 'day' }),
    ],
    [
      '/analytics/metrics',
      await client.metrics({ ...RANGE, period: 'week' }),
      await service.data('metrics', { ...range, period: 'week' }),
    ],
    [
      '/analytics/rolling',
      await client.rolling({ endDate: '2011-02-25', window: 3 }),
      await service.data('rolling', { endDate: '2011-02-25', window: 3 }),
    ],
    [
      '/analytics/events',
      (await client.events({ ...RANGE, limit: 3 })).data,
      await service.data('events', { ...range, limit: 3 }),
    ],
    [
      '/analytics/assistants',
      await client.assistants({ ...RANGE, timezone: 'Europe/Berlin' }),
      await service.data('assistants', { ...range, timezone: 'Europe/Berlin' }),
    ],
    [
      '/analytics/users/top',
      await client.usersTop({ ...RANGE, limit: 3 }),
      await service.data('users/top', { ...range, limit: 3 }),
    ],
    [
      '/analytics/snapshots',
      await client.snapshots({ ...RANGE, user: ['user_47c5944d63b3', 'nobody'] }),
      await service.data('snapshots', { ...range, user: ['user_47c5944d63b3', 'nobody'] }),
    ],
    [
      '/analytics/regressions',
      await client.regressions({ endDate: new Date('2011-02-25'), weeks: 3 }),
      await service.data('regressions', { endDate: '2011-02-25', weeks: 3 }),
    ],
  ]
  for (const [path, found, expected] of pairs) {
    expect(expected).toSatisfy((data: unknown) => !Array.isArray(data) || data.length > 0)
    expect([path, found]).toEqual([path, expected])
  }
  expect(pairs.map(([path]) => path)).toEqual(Object.keys(ENDPOINTS))
  expect((await client.overview()).period).toBe('week')
  expect((await client.regressions()).hours).toBe(24)
})

test('types: what must be given, what may be, and what comes back', () => {
  expectTypeOf(client.metrics).parameter(0).toMatchTypeOf<{ period: 'day' | 'week' | 'month'; startDate: string | Date }>()
  expectTypeOf<Snapshot['final']>().toEqualTypeOf<boolean>()
  expectTypeOf<Event['metadata']>().toEqualTypeOf<Record<string, unknown> | null>()
  expectTypeOf<Event['eventType']>().toEqualTypeOf<
    'incomingMessages' | 'outgoingMessages' | 'tasksInitiated' | 'tasksCompleted'
  >()
  expectTypeOf<Awaited<ReturnType<AnalyticsClient['rolling']>>['completionRate']>().toEqualTypeOf<number | null>()
  // Never called: the compiler reads it.
  const _refused = () => [
    // @ts-expect-error period is missing
    client.metrics(RANGE),
    // @ts-expect-error no such period
    client.metrics({ ...RANGE, period: 'year' }),
    // @ts-expect-error no such parameter
    client.assistants({ ...RANGE, limit: 3 }),
    // @ts-expect-error a whole number
    client.usersTop({ ...RANGE, limit: '3' }),
    // @ts-expect-error files have a method of their own
    client.events({ ...RANGE, format: 'csv' }),
  ]
  expect(_refused).toBeTypeOf('function')
})

test('every page of the log, newest first, from where it is told to start', async () => {
  const all: string[] = []
  for await (const { id } of client.allEvents({ ...RANGE, limit: 200 })) all.push(id)
  expect(all).toHaveLength(881)
  expect(all).toEqual(
    (await service.data('events', { startDate: '2011-02-18', endDate: '2011-02-25', limit: 1000 })).map(({ id }: Event) => id),
  )
  const rest: string[] = []
  for await (const { id } of client.allEvents({ ...RANGE, limit: 400, skip: 7 })) rest.push(id)
  expect(rest).toEqual(all.slice(7))
})

test('files are streams of their own', async () => {
  const csv = await client.eventsFile({ ...RANGE, format: 'csv' })
  expect(csv.headers.get('Content-Disposition')).toContain('.csv')
  expect((await csv.text()).trimEnd().split('\r\n')).toHaveLength(1 + 881)
  const parquet = await client.snapshotsFile({ ...RANGE, format: 'parquet' })
  expect(
    Buffer.from(await parquet.arrayBuffer())
      .subarray(0, 4)
      .toString(),
  ).toBe('PAR1')
})

describe('postEvents', () => {
  const event = { eventType: 'incomingMessages', timestamp: '2026-01-01T00:00:00Z', assistant: 'a', user: 'u' } as const

  test('a list, text, gzip, and a key that makes a repetition harmless', async () => {
    const writer = await clientOf({ org: 'writer' })
    expect(await writer.postEvents([{ ...event, id: '1' }])).toEqual({ accepted: 1, duplicates: 0, rejected: [] })
    expect(
      await writer.postEvents(`${JSON.stringify({ ...event, id: '1' })}\n{}`, { contentType: 'application/x-ndjson' }),
    ).toEqual({
      accepted: 0,
      duplicates: 1,
      rejected: [{ index: 1, message: expect.any(String) }],
    })
    const body = new Uint8Array(gzipSync(JSON.stringify([event])))
    const options = { contentEncoding: 'gzip', idempotencyKey: 'once' } as const
    expect(await writer.postEvents(body, options)).toEqual({ accepted: 1, duplicates: 0, rejected: [] })
    expect(await writer.postEvents(body, options)).toEqual({ accepted: 1, duplicates: 0, rejected: [] })
    const { pagination } = await writer.events({ startDate: '2026-01-01', endDate: '2026-01-02' })
    expect(pagination.total).toBe(2)
  })
})

const answering = (body: string, init: ResponseInit) =>
  createAnalyticsClient({ url: 'http://localhost', token: 't', fetch: () => new Response(body, init) })

describe('refusals', () => {
  test('say what is wrong with which parameter', async () => {
    const error = await failure(client.assistants({ startDate: '2026-02-30', endDate: 'soon' }))
    expect(error).toBeInstanceOf(AnalyticsError)
    expect(error).toMatchObject({ name: 'AnalyticsError', status: 400, code: 'bad_request', retryAfterSeconds: undefined })
    expect(error.details.map(({ parameter }) => parameter)).toEqual(['startDate', 'endDate'])
    expect(error.requestId).toMatch(/^[\w-]{36}$/)
  })

  test('403 and 401', async () => {
    expect(await failure((await clientOf({ scope: 'analytics:write' })).overview())).toMatchObject({
      status: 403,
      code: 'forbidden',
    })
    const stranger = createAnalyticsClient({
      url: 'http://localhost/',
      token: () => Promise.resolve('nonsense'),
      fetch: (url, init) => service.app.request(url, init),
    })
    expect(await failure(stranger.overview())).toMatchObject({ status: 401, code: 'unauthorized' })
  })

  test('429 and 503 say when to come back, in seconds or by a date', async () => {
    const body = JSON.stringify({ success: false, error: { code: 'unavailable', message: 'busy', details: [] }, requestId: 'r' })
    expect(await failure(answering(body, { status: 503, headers: { 'Retry-After': '7' } }).overview())).toMatchObject({
      status: 503,
      code: 'unavailable',
      message: 'busy',
      requestId: 'r',
      retryAfterSeconds: 7,
    })
    const date = new Date(Date.now() + 30_000).toUTCString()
    const { retryAfterSeconds } = await failure(answering(body, { status: 429, headers: { 'Retry-After': date } }).overview())
    expect(retryAfterSeconds).toBeGreaterThan(27)
    expect(retryAfterSeconds).toBeLessThanOrEqual(30)
  })

  test.each([
    ['<h1>Bad gateway</h1>', 502],
    ['{}', 500],
    ['<h1>Hello</h1>', 200],
    ['{"ok":true}', 200],
    ['null', 200],
    ['{"error":"x"}', 404],
  ])('what was never said by this service: %s, %i', async (body, status) => {
    expect(await failure(answering(body, { status }).overview())).toMatchObject({
      name: 'AnalyticsError',
      status,
      code: 'unknown',
      details: [],
      message: expect.stringContaining(`${status} without a reason`),
    })
  })
})

test('a signal reaches the request, and stops the pages', async () => {
  const controller = new AbortController()
  await client.overview({}, { signal: controller.signal })
  expect(sent.init.signal).toBe(controller.signal)
  controller.abort(new Error('enough'))
  const pages = client.allEvents({ ...RANGE, limit: 10 }, { signal: controller.signal })
  await expect(pages.next()).rejects.toThrow('enough')
})

test('an address with a path in front of it', async () => {
  let asked = ''
  const behind = createAnalyticsClient({
    url: 'https://example.com/api/v1',
    token: 't',
    fetch: (url) => {
      asked = String(url)
      return Response.json({ success: true, data: {} })
    },
  })
  await behind.overview({ assistant: ['a b', 'ü&'], user: 'one', timezone: undefined as unknown as string })
  expect(asked).toBe('https://example.com/api/v1/analytics/overview?assistant=a+b&assistant=%C3%BC%26&user=one')
})

test('ready and reconcile', async () => {
  expect(await client.ready()).toMatchObject({ status: 'ok', clickhouse: 'ok' })
  const operator = await clientOf({ scope: 'analytics:operate' })
  expect(await operator.reconcile({ ...RANGE, repair: 'false' })).toEqual({
    status: 'complete',
    days: expect.any(Number),
    drift: [],
    repaired: 0,
    identitiesRepaired: 0,
    duplicateIds: [],
    sharedNumbers: [],
    splitNames: [],
  })
})

test('removeUser', async () => {
  const org = 'one that somebody leaves'
  const company = await clientOf({ org, scope: 'analytics:read analytics:write analytics:admin' })
  const user = 'a/b ä'
  const timestamp = '2026-02-22T10:00:00.000Z'
  await company.postEvents([{ id: '1', eventType: 'incomingMessages', timestamp, assistant: 'Rex', user }])
  expect(await company.removeUser(user)).toEqual({
    receiptId: expect.any(String),
    events: 1,
    firstEventAt: timestamp,
    lastEventAt: timestamp,
    removedAt: expect.any(String),
  })
  await expect(company.removeUser(user)).rejects.toMatchObject({ status: 404, code: 'not_found' })
  expect((await company.events({ startDate: '2026-02-22', endDate: '2026-02-23' })).data).toMatchObject([{ id: '1', user: null }])
})

test('it is small, and brings nothing of a server or of valibot into a page', async () => {
  const { outputFiles, metafile } = await build({
    entryPoints: [new URL('../src/client.ts', import.meta.url).pathname],
    bundle: true,
    minify: true,
    write: false,
    platform: 'browser',
    format: 'esm',
    metafile: true,
  })
  expect(Object.keys(metafile.inputs).map((path) => path.split('/').pop())).toEqual(['client.ts'])
  const { length } = outputFiles[0]?.contents ?? []
  console.log(`the client is ${length} bytes, ${gzipSync(outputFiles[0]?.contents ?? '').length} compressed`)
  expect(length).toBeLessThan(4_096)
})

test('the package exports it', async () => {
  const { exports } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  expect(exports['./client']).toBe('./src/client.ts')
  // @ts-ignore: whether the compiler follows a package into itself is not what this is about
  const found = (await import('agnt-analytics/client')) as { createAnalyticsClient: unknown }
  expect(found.createAnalyticsClient).toBeTypeOf('function')
})
