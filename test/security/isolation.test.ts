/**
 * Nothing of one company reaches another, and nothing of a company's other assistants reaches a narrowed token.
 *
 * One property says it all: a caller is told exactly what it would be told if nothing else existed. So each caller's
 * answers are taken down in a world that holds its own events alone, and compared, byte for byte, with what it gets
 * where both companies live. The same checks are then run against broken builds, which they must catch.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Store } from '../../src/clickhouse/store.ts'
import { AnswerCache } from '../../src/analytics/result-cache.ts'
import { queryString, type Caller, type Params } from '../support.ts'
import { FILTER, WithoutPredicate, WithoutTableFilters, WithoutTenant } from './broken-stores.ts'
import { CROWD_DAY, eventsOf, startWorld, type Company, type Question, type Seen, type World } from './companies.ts'
import { tenantSql } from '../../src/clickhouse/tenant-filter.ts'

const PATHS = ['overview', 'metrics', 'rolling', 'events', 'assistants', 'users/top', 'snapshots', 'regressions'] as const

/** Who asks, and whose events are all that exist in the world where its answers are taken down. */
interface Who {
  readonly caller: Caller
  readonly sees: readonly Company[]
  readonly assistants?: readonly string[]
}

const NARROW = ['assistant 1', 'assistant that never was']

const NARROWED = 'acme for one assistant'

const CALLERS: Record<string, Who> = {
  acme: { caller: { org: 'acme' }, sees: ['acme'] },
  globex: { caller: { org: 'globex' }, sees: ['globex'] },
  [NARROWED]: { caller: { org: 'acme', assistants: NARROW }, sees: ['acme'], assistants: NARROW },
  "acme for globex's assistant": { caller: { org: 'acme', assistants: ['only globex'] }, sees: [] },
  'a company without events': { caller: { org: 'newcomer' }, sees: [] },
}

const { acme, globex } = CALLERS as Record<Company, Who>
const BOTH: Record<string, Who> = { acme, globex }

const RANGE = { startDate: '2026-01-15', endDate: '2026-03-02' }
const RAGGED = { startDate: '2026-01-20T03:07:41.123', endDate: '2026-02-27T22:10:59.001', timezone: 'Asia/Kathmandu' }

const get = (path: string, params: Params = {}, more: Partial<Question> = {}): Question => ({
  url: `/analytics/${path}?${queryString(params)}`,
  ...more,
})

/** What an endpoint wants at least. */
const NEEDED: Record<(typeof PATHS)[number], Params> = {
  overview: {},
  metrics: { period: 'week', ...RANGE },
  rolling: { window: 30 },
  events: RANGE,
  assistants: RANGE,
  'users/top': RANGE,
  snapshots: RANGE,
  regressions: { hours: 168, minVolume: 1 },
}

/** Every endpoint with every parameter, alone and together, what is wrong as well as what is right. */
function reads(cursors: readonly string[]): Question[] {
  const questions: Question[] = []
  for (const path of PATHS) {
    const base = NEEDED[path]
    questions.push(
      get(path, base),
      get(path, { ...base, assistant: 'assistant 1' }),
      get(path, { ...base, assistant: 'only globex' }),
      get(path, { ...base, user: 'user 1' }),
      get(path, { ...base, user: ['only globex', 'user 2'], assistant: ['assistant 0', 'only globex', 'only acme'] }),
      get(path, { ...base, timezone: 'Pacific/Auckland' }),
      get(path, base, { method: 'HEAD' }),
      get(path, { ...base, tenant: 'globex', org: 'globex' }),
      get(path, { ...base, user: '', timezone: 'globex', limit: 'globex', startDate: 'globex' }),
      get(path, base, { method: 'DELETE' }),
      get(path, base, { headers: { 'X-Org': 'globex', 'X-Tenant': 'globex', Accept: 'text/html' } }),
    )
    if ('startDate' in base) questions.push(get(path, { ...base, ...RAGGED }))
  }
  for (const period of ['day', 'week', 'month']) {
    questions.push(get('overview', { period }), get('metrics', { period, ...RAGGED }), get('snapshots', { period, ...RANGE }))
    for (const format of ['json', 'ndjson', 'csv', 'parquet']) questions.push(get('snapshots', { period, format, ...RAGGED }))
  }
  for (const window of [1, 7, 90])
    questions.push(get('rolling', { window }), get('rolling', { window, endDate: '2026-02-14T07:08' }))
  questions.push(
    get('overview', { endDate: '2026-02-10' }),
    get('snapshots', { ...RANGE, startDate: '2025-10-01' }),
    get('assistants', { ...RANGE, startDate: '1970-01-01' }),
    get('snapshots', RANGE, { headers: { Accept: 'text/csv' } }),
    get('users/top', { startDate: CROWD_DAY, endDate: '2025-12-02', limit: 1 }),
    get('users/top', { startDate: CROWD_DAY, endDate: '2025-12-02', limit: 3, assistant: 'assistant 0' }),
    get('users/top', { ...RANGE, startDate: CROWD_DAY, limit: 1_000 }),
    get('events', { ...RANGE, limit: 1_000 }),
    ...['ndjson', 'csv', 'parquet'].map((format) => get('events', { ...RANGE, format })),
    get('events', { ...RAGGED, format: 'csv', user: ['only globex', 'user 2'] }),
    get('events', { ...RANGE, skip: 230, limit: 20 }),
    get('events', { ...RANGE, eventType: 'tasksCompleted' }),
    get('events', { ...RANGE, eventType: 'incomingMessages', limit: 1, user: 'user 3' }),
    get('nothing', {}),
    { url: '/operations/reconcile', method: 'POST' },
    { url: '/operations/reconcile?repair=true', method: 'POST' },
  )
  for (const cursor of cursors) {
    questions.push(get('events', { ...RANGE, cursor }), get('events', { ...RANGE, cursor, assistant: 'assistant 1', limit: 7 }))
    questions.push(get('events', { ...RANGE, cursor, skip: 1 }))
  }
  return questions
}

const event = (id: string | undefined, company: Company, fields: object = {}) => ({
  ...(id === undefined ? {} : { id }),
  eventType: 'tasksCompleted',
  timestamp: company === 'acme' ? '2026-02-20T01:02:03.004Z' : '2026-02-21T10:20:30.400Z',
  assistant: 'assistant 1',
  user: `user ${company.length}`,
  cost: company.length,
  ...fields,
})

const post = (events: unknown, key?: string): Question => ({
  method: 'POST',
  url: '/analytics/events',
  headers: { 'Content-Type': 'application/json', ...(key ? { 'Idempotency-Key': key } : {}) },
  body: typeof events === 'string' ? events : JSON.stringify(events),
})

/** What a company sends, one after the other, while the other company does the same. */
function writes(company: Company): Question[] {
  const other = company === 'acme' ? 'globex' : 'acme'
  const first = post([event('new 1', company), event('new 2', company), event(undefined, company)], 'key-1')
  return [
    // Ids that the other company has, that both have, and that both send just now.
    post([event('event 399', company), event('event 3', company), event('crowd 7', company), event('at once', company)]),
    post([event('event 399', company), event('at once', company)]),
    first,
    first,
    post([event('new 1', other)], 'key-1'),
    // A key that the other company has used before, with the other's body and with an own one.
    ...(company === 'acme' ? [post([event('early', 'acme')], 'key-2')] : [post([event('early', 'globex')])]),
    ...(company === 'acme' ? [post([event('early', 'acme')])] : [post([event('late', 'globex')], 'key-2')]),
    post('{"broken', 'key-3'),
    post([{ ...event('bad', company), eventType: other }, event('good', company)], 'key-3'),
    post([event('good', other)]),
    { ...post([event('x', company)]), headers: { 'Content-Type': 'text/plain' } },
  ]
}

/** Asked once more when both have written. */
const READS_AFTER = PATHS.map((path) => get(path, NEEDED[path]))

/** What each caller is told where nothing else exists. */
interface Expected {
  questions: Question[]
  reads: Map<string, Seen[]>
  writes: Map<string, Seen[]>
  readsAfter: Map<string, Seen[]>
}

const writers = Object.entries(BOTH) as Array<[Company, Who]>

async function inTurn(world: World, questions: readonly Question[], caller: Caller): Promise<Seen[]> {
  const replies: Seen[] = []
  for (const question of questions) replies.push(await world.ask(question, caller))
  return replies
}

async function takeDown(): Promise<Expected> {
  const told: Expected = { questions: [], reads: new Map(), writes: new Map(), readsAfter: new Map() }
  const worlds = new Map<string, World>()
  try {
    for (const [name, { caller, sees, assistants }] of Object.entries(CALLERS)) {
      const world = await startWorld({ config: { CACHE_MB: '0' } })
      worlds.set(name, world)
      for (const company of sees) {
        const events = eventsOf(company).filter(({ assistant }) => !assistants || assistants.includes(assistant))
        await world.store(events, { org: caller.org ?? '' })
      }
    }
    const cursors: string[] = []
    for (const [name, { caller }] of writers) {
      const reply = await worlds.get(name)?.ask(get('events', { ...RANGE, limit: 100 }), caller)
      cursors.push(JSON.parse(reply?.body ?? '').pagination.nextCursor as string)
    }
    told.questions = reads(cursors)
    for (const [name, { caller }] of Object.entries(CALLERS)) {
      // A full token: in this world there is nothing that a narrowed one would have to hide.
      told.reads.set(name, await inTurn(worlds.get(name) as World, told.questions, { org: caller.org ?? '' }))
    }
    for (const [name, { caller }] of writers) {
      told.writes.set(name, await inTurn(worlds.get(name) as World, writes(name), caller))
      told.readsAfter.set(name, await inTurn(worlds.get(name) as World, READS_AFTER, caller))
    }
    return told
  } finally {
    for (const world of worlds.values()) await world.close()
  }
}

const title = (name: string, { method = 'GET', url }: Question) => `${name}: ${method} ${decodeURIComponent(url)}`
const differ = (a: Seen | undefined, b: Seen | undefined) => JSON.stringify(a) !== JSON.stringify(b)

/**
 * Everything that a caller was told and would not have been told where nothing else exists.
 * @param again asks each question a second time, which matters where answers are kept
 */
async function leaks(world: World, told: Expected, { again = false, callers = CALLERS } = {}): Promise<string[]> {
  const found = new Set<string>()
  for (const [company] of writers) {
    const refused = await world.store(eventsOf(company), { org: company }).then(
      () => false,
      () => true,
    )
    if (refused) return [`${company}: POST /analytics/events, its own events`]
  }

  for (const [at, question] of told.questions.entries()) {
    // All at once, so that whatever is shared between questions under way would be shared here.
    const names = Object.keys(callers)
    const seen = await Promise.all(names.map((name) => world.ask(question, (callers[name] as Who).caller)))
    names.forEach((name, i) => {
      if (differ(seen[i], told.reads.get(name)?.[at])) found.add(title(name, question))
    })
    // Now perhaps from the cache, with the tag of what the next caller was given.
    for (const [i, name] of again ? names.entries() : []) {
      const own = told.reads.get(name)?.[at] as Seen
      if (!own.headers['ETag']) continue
      const tag = seen[(i + 1) % names.length]?.headers['ETag'] ?? '"none"'
      const reply = await world.ask(
        { ...question, headers: { ...question.headers, 'If-None-Match': tag } },
        (callers[name] as Who).caller,
      )
      const known = own.headers['ETag'] === tag
      if (known ? reply.status !== 304 || reply.body !== '' : differ(reply, own)) {
        found.add(`${title(name, question)} with the tag of another caller`)
      }
    }
  }

  const scripts = writers.map(([name]) => writes(name))
  for (const step of scripts[0]?.keys() ?? []) {
    await Promise.all(
      writers.map(async ([name, { caller }], i) => {
        const question = scripts[i]?.[step] as Question
        const seen = await world.ask(question, caller)
        if (differ(seen, told.writes.get(name)?.[step])) found.add(`${title(name, question)}, step ${step}`)
      }),
    )
  }
  for (const [name, { caller }] of writers) {
    for (const [at, question] of READS_AFTER.entries()) {
      const seen = await world.ask(question, caller)
      if (differ(seen, told.readsAfter.get(name)?.[at])) found.add(`${title(name, question)} after all was written`)
    }
  }
  return [...found]
}

/** Looks ids up among everybody's events before it stores some. */
class WithoutTenantOfIds extends Store {
  override readInternal<Row>(name: string, sql: string, params = {}): Promise<Row[]> {
    return super.readInternal(name, name === 'events_by_id' ? sql.replaceAll(FILTER, '1') : sql, params)
  }

  /** Never done: while the filter of ids is not filled it rules nothing out, so every id is looked up. */
  override hashesOfIds(): Promise<void> {
    return new Promise(() => {})
  }
}

/** Knows an answer by the question alone, whoever asked. */
class WithoutTenantInKeys extends AnswerCache {
  override get(key: string, now: number) {
    return super.get(anonymous(key), now)
  }

  override find(key: string, ...rest: Parameters<AnswerCache['find']> extends [string, ...infer R] ? R : never) {
    return super.find(anonymous(key), ...rest)
  }
}

/** The cache's keys begin with the tenant, and what of it the token may see. */
const anonymous = (key: string) => JSON.stringify((JSON.parse(key) as unknown[]).slice(2))

const blindCache = (...limits: ConstructorParameters<typeof AnswerCache>) => new WithoutTenantInKeys(...limits)

let expected: Expected

beforeAll(async () => {
  expected = await takeDown()
}, 180_000)

const opened: World[] = []
afterAll(async () => {
  for (const world of opened) await world.close()
})

async function open(broken: Parameters<typeof startWorld>[0] = {}): Promise<World> {
  const started = await startWorld(broken)
  opened.push(started)
  return started
}

const SLOW = { timeout: 180_000 }

describe('two companies with the same names for everything', SLOW, () => {
  test('what is compared is not empty: every endpoint shows each of them something, and not the same', () => {
    for (const path of PATHS) {
      const at = expected.questions.findIndex(({ url }) => url.startsWith(`/analytics/${path}?`))
      const [first, second, narrow, foreign, newcomer] = [...expected.reads.values()].map((replies) => replies[at]?.body ?? '')
      expect(first, path).toContain('"success":true')
      expect(new Set([first, second, narrow, foreign]), path).toHaveProperty('size', 4)
      expect(foreign, path).toBe(newcomer)
    }
  })

  test('no answer, error, export, page, tag or receipt of one depends on the other', async () => {
    expect(await leaks(await open({ config: { CACHE_MB: '8' } }), expected, { again: true })).toEqual([])
  })

  test('either of the two locks holds alone: the predicate, and the filter that ClickHouse adds', async () => {
    for (const OneLock of [WithoutTableFilters, WithoutPredicate]) {
      const found = await leaks(await open({ makeStore: (options) => new OneLock(options) }), expected, {
        callers: BOTH,
      })
      expect(found, OneLock.name).toEqual([])
    }
  })
})

/** Which endpoints are among the leaks. */
const endpointsOf = (found: readonly string[]) =>
  PATHS.filter((path) => found.some((leak) => leak.includes(` GET /analytics/${path}?`)))

describe('the checks would notice', SLOW, () => {
  test('queries without the tenant: every endpoint leaks, and a key the other company used is refused', async () => {
    const callers = { ...BOTH, [NARROWED]: CALLERS[NARROWED] as Who }
    const found = await leaks(await open({ makeStore: (options) => new WithoutTenant(options) }), expected, { callers })
    expect(endpointsOf(found)).toEqual(PATHS)
    for (const part of [
      'limit=1&',
      'cursor=',
      'format=csv',
      'format=ndjson',
      '/analytics/events?startDate=2026-01-15&endDate=2026-03-02&format=csv',
      '/analytics/events?startDate=2026-01-15&endDate=2026-03-02&format=parquet',
      `${NARROWED}: `,
      'POST /analytics/events',
    ]) {
      expect(found.filter((leak) => leak.includes(part)).length, part).toBeGreaterThan(0)
    }
  })

  test('an id that is looked up among all companies: it is taken for an event nobody may know of', async () => {
    const found = await leaks(await open({ makeStore: (options) => new WithoutTenantOfIds(options) }), expected)
    expect(found.filter((leak) => leak.includes('POST /analytics/events'))).not.toEqual([])
  })

  test('kept answers without the tenant in their key: whoever asks second gets the answer of the first', async () => {
    const broken = { makeCache: blindCache, config: { CACHE_MB: '8' } }
    const found = await leaks(await open(broken), expected, { again: true, callers: BOTH })
    expect(endpointsOf(found)).toEqual(PATHS)
  })

  test('tokens whose narrowing is ignored: every endpoint shows the other assistants', async () => {
    const callers = { ...BOTH, [NARROWED]: CALLERS['acme'] as Who }
    const found = await leaks(await open(), expected, { callers })
    expect(endpointsOf(found)).toEqual(PATHS)
    expect(found.filter((leak) => !leak.startsWith(`${NARROWED}: `))).toEqual([])
  })

  test('a query without the tenant does not even compile', () => {
    // @ts-expect-error SQL must filter by tenant
    tenantSql('SELECT count() FROM events')
    expect(tenantSql(`SELECT count() FROM events WHERE tenant = {tenant:UUID}`)).toContain(FILTER)
  })
})

describe('a narrowed token that writes', () => {
  test('it cannot write to another assistant, and learns nothing of why beyond its own reach', async () => {
    const here = await open()
    const narrow = { org: 'acme', assistants: ['assistant 1'] }
    const { status, body } = await here.ask(
      post([event('mine', 'acme'), event('not mine', 'acme', { assistant: 'assistant 2' })]),
      narrow,
    )
    expect(status).toBe(200)
    expect(JSON.parse(body).data).toEqual({
      accepted: 1,
      duplicates: 0,
      rejected: [{ index: 1, message: 'the token does not reach this assistant' }],
    })
    const all = await here.ask(get('events', RANGE), { org: 'acme' })
    expect(JSON.parse(all.body).data.map(({ id }: { id: string }) => id)).toEqual(['mine'])
  })
})

describe('limits', () => {
  test('a company that is turned away leaves a neighbour all of its own', async () => {
    const here = await open({ config: { RATE_LIMIT_PER_SECOND: '5' } })
    const spent = await Promise.all(Array.from({ length: 20 }, () => here.ask(get('overview'), { org: 'acme' })))
    expect(spent.filter(({ status }) => status === 429).length).toBeGreaterThanOrEqual(10)
    for (let n = 0; n < 5; n++) expect((await here.ask(get('overview'), { org: 'globex' })).status).toBe(200)
  })
})

describe('without the right token', () => {
  const ROUTES = [
    ...PATHS.map((path) => ['GET', `/analytics/${path}`]),
    ['POST', '/analytics/events'],
    ['POST', '/operations/reconcile'],
  ] as Array<[string, string]>

  test('no token: every route says the same, whatever was asked', async () => {
    const { app } = await open()
    for (const [method, path] of ROUTES) {
      for (const query of ['', '?period=globex&nonsense=1', '?startDate=2026-01-01&endDate=2026-02-01&assistant=only+globex']) {
        const response = await app.request(path + query, { method, headers: { 'X-Request-Id': 'mine' } })
        expect(response.status, `${method} ${path}`).toBe(401)
        expect(response.headers.get('WWW-Authenticate')).toBe('Bearer realm="agnt-analytics"')
        expect(await response.json()).toEqual({
          success: false,
          error: { code: 'unauthorized', message: 'A bearer token is needed.', details: [] },
          requestId: 'mine',
        })
      }
    }
  })

  test('a token that reads cannot write, one that writes cannot read, and neither operates', async () => {
    const here = await open()
    const statuses = async (scope: string) =>
      Promise.all(ROUTES.map(async ([method, url]) => (await here.ask({ method, url }, { org: 'acme', scope })).status))
    const gets = PATHS.map(() => expect.not.toSatisfy((status: unknown) => status === 401 || status === 403))
    const refused = PATHS.map(() => 403)
    expect(await statuses('analytics:read')).toEqual([...gets, 403, 403])
    expect(await statuses('analytics:write')).toEqual([...refused, 415, 403])
    expect(await statuses('analytics:read analytics:write')).toEqual([...gets, 415, 403])
    expect(await statuses('analytics:reads analytics analytics:* *')).toEqual([...refused, 403, 403])
  })
})
