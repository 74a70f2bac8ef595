/** The product page, sentence by sentence: its examples, its parameters, its fields, and what goes beyond it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PATHS, type Path } from '../compare.ts'
import { startService, type Params, type TestService } from '../support.ts'

/** As on the page. */
const EXAMPLES = {
  overview: `curl "https://api.agnt.ai/analytics/overview?period=week" \\
-H "Authorization: Bearer $TOKEN"`,
  rolling: `curl "https://api.agnt.ai/analytics/rolling?window=7" \\
-H "Authorization: Bearer $TOKEN"`,
  top: `curl "https://api.agnt.ai/analytics/users/top?startDate=2026-02-01&endDate=2026-03-01&limit=10" \\
-H "Authorization: Bearer $TOKEN"`,
}

/** The page's answer to the first. */
const OVERVIEW = {
  success: true,
  data: {
    period: 'week',
    startDate: '2026-02-22T00:00:00.000Z',
    endDate: '2026-03-01T00:00:00.000Z',
    activeUsers: 142,
    events: { incomingMessages: 8420, outgoingMessages: 8105, tasksInitiated: 312, tasksCompleted: 298, total: 17135 },
    resources: {},
    realtime: {},
    computedAt: '2026-03-01T12:00:00.000Z',
  },
}

const { total: _, ...COUNTS } = OVERVIEW.data.events
/** The events that make the page's numbers. */
const EVENTS = Object.entries(COUNTS).flatMap(([eventType, count]) =>
  Array.from({ length: count }, (_unused, index) => ({
    id: `${eventType} ${index}`,
    eventType,
    timestamp: new Date(Date.UTC(2026, 1, 22) + ((index * 69_857) % (7 * 86_400)) * 1_000).toISOString(),
    assistant: index % 3 === 0 ? 'support' : 'sales',
    user: `user ${(index * index) % 142 === 0 ? index % 142 : (index * 7) % 142}`,
    ...(eventType === 'outgoingMessages' ? { cost: 0.001, inputTokens: 900, outputTokens: 120, model: 'small-1' } : {}),
  })),
)

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
  await service.store(EVENTS)
})
afterAll(() => service.close())

const RANGE = { startDate: '2026-02-22', endDate: '2026-03-01' }
/** The required parameters of each endpoint, and nothing else. */
const REQUIRED: Record<Path, Params> = {
  overview: {},
  metrics: { period: 'day', ...RANGE },
  rolling: {},
  events: RANGE,
  assistants: RANGE,
  'users/top': RANGE,
  snapshots: RANGE,
}

/** Sends what curl would. */
async function run(command: string) {
  const [, address = ''] = /^curl "([^"]+)"/.exec(command) ?? []
  const { pathname, search } = new URL(address)
  const { status, body } = await service.request('GET', pathname + search, {})
  expect([status, body.success]).toEqual([200, true])
  return body
}

describe('the page’s examples', () => {
  test('an operational overview, number by number', async () => {
    const body = await run(EXAMPLES.overview)
    expect(body).toMatchObject(OVERVIEW)
    expect(body.data.events).toEqual(OVERVIEW.data.events)
  })

  test('rolling windows', async () => {
    const { data } = await run(EXAMPLES.rolling)
    expect(data).toMatchObject({
      window: 7,
      startDate: '2026-02-22T12:00:00.000Z',
      endDate: '2026-03-01T12:00:00.000Z',
    })
    expect(data.series).toHaveLength(8)
  })

  test('the most active users', async () => {
    const { data } = await run(EXAMPLES.top)
    expect(data).toHaveLength(10)
    const totals = data.map(({ total }: { total: number }) => total)
    expect(totals).toEqual(totals.toSorted((a: number, b: number) => b - a))
  })
})

// ---------------------------------------------------------------------------------------------------------- parameters

const dataOf = (path: Path, params: Params = {}) => service.data(path, { ...REQUIRED[path], ...params })

const count = (wanted: (event: { assistant: string; user: string }) => boolean) => EVENTS.filter(wanted).length

describe('the page’s parameters', () => {
  test('overview: period is day, week or month, and week by default', async () => {
    expect([(await dataOf('overview')).period, (await dataOf('overview', { period: 'day' })).period]).toEqual(['week', 'day'])
    expect((await dataOf('overview', { period: 'month' })).startDate).toBe('2026-01-30T00:00:00.000Z')
  })

  test('metrics: period, startDate and endDate are required', async () => {
    for (const name of ['period', 'startDate', 'endDate']) {
      const { [name]: _missing, ...rest } = REQUIRED.metrics
      const { status, body } = await service.get('metrics', rest)
      expect([status, body.error.details]).toEqual([400, [{ parameter: name, message: expect.stringContaining('required') }]])
    }
    expect((await dataOf('metrics', { period: 'week' })).map(({ periodKey }: { periodKey: string }) => periodKey)).toEqual([
      '2026-W08',
      '2026-W09',
    ])
  })

  test('rolling: window is 7 by default and 90 at most', async () => {
    expect([(await dataOf('rolling')).window, (await dataOf('rolling', { window: 90 })).window]).toEqual([7, 90])
    expect((await service.get('rolling', { window: 91 })).status).toBe(400)
  })

  test('events: eventType, limit and skip', async () => {
    const all: Array<{ id: string; eventType: string }> = await dataOf('events', {
      limit: 1000,
      eventType: 'tasksInitiated',
    })
    expect([all.length, new Set(all.map(({ eventType }) => eventType))]).toEqual([312, new Set(['tasksInitiated'])])
    expect(await dataOf('events', { limit: 3, skip: 2, eventType: 'tasksInitiated' })).toEqual(all.slice(2, 5))
    expect(await dataOf('events')).toHaveLength(50)
  })

  test('users/top: limit, 10 by default', async () => {
    expect([
      (await dataOf('users/top')).length,
      (await dataOf('users/top', { limit: 3 })).length,
      (await dataOf('users/top', { limit: 1000 })).length,
    ]).toEqual([10, 3, 142])
  })

  test.each(['metrics', 'events', 'assistants', 'users/top', 'snapshots'] as const)(
    '%s: startDate and endDate are required',
    async (path) => {
      for (const name of ['startDate', 'endDate']) {
        const { [name]: _missing, ...rest } = REQUIRED[path]
        expect((await service.get(path, rest)).body.error.details).toEqual([
          { parameter: name, message: expect.stringContaining('required') },
        ])
      }
    },
  )

  /** How many events an answer is about. */
  const totalIn: Record<Path, (body: any) => number> = {
    overview: ({ data: { events } }) => events.total,
    metrics: ({ data: rows }) => sum(rows),
    rolling: ({ data: { total } }) => total,
    events: ({ pagination: { total } }) => total,
    assistants: ({ data: rows }) => sum(rows),
    'users/top': ({ data: rows }) => sum(rows),
    snapshots: ({ data: rows }) => sum(rows),
  }

  describe.each(PATHS)('%s: “queryable by time period, assistant, and user”', (path) => {
    const wide: Params = path === 'users/top' ? { limit: 1000 } : path === 'rolling' ? { endDate: '2026-03-01' } : {}
    const ask = async (params: Params) => totalIn[path](await service.whole(path, { ...REQUIRED[path], ...wide, ...params }))

    test('assistant, once and repeated', async () => {
      expect(await ask({})).toBe(17_135)
      expect(await ask({ assistant: 'support' })).toBe(count(({ assistant }) => assistant === 'support'))
      expect(await ask({ assistant: ['support', 'sales', 'nobody'] })).toBe(17_135)
      expect(await ask({ assistant: 'nobody' })).toBe(0)
    })

    test('user, and both together', async () => {
      expect(await ask({ user: 'user 7' })).toBe(count(({ user }) => user === 'user 7'))
      expect(await ask({ user: ['user 7', 'user 14'], assistant: 'sales' })).toBe(
        count(({ user, assistant }) => ['user 7', 'user 14'].includes(user) && assistant === 'sales'),
      )
    })

    test('timezone', async () => {
      const { status } = await service.get(path, { ...REQUIRED[path], timezone: 'Asia/Kathmandu' })
      expect(status).toBe(200)
      expect((await service.get(path, { ...REQUIRED[path], timezone: 'Moon/Tranquility' })).status).toBe(400)
    })
  })
})

const sum = (rows: Array<{ total: number }>) => rows.reduce((all, { total }) => all + total, 0)

// -------------------------------------------------------------------------------------------------------------- fields

type Type =
  | 'text'
  | 'instant'
  | 'count'
  | 'number'
  | 'rate'
  | 'share'
  | 'flag'
  | 'object or null'
  | 'text or null'
  | 'instant or null'
  | 'change'
  | Fields
  | [Fields]
interface Fields {
  [name: string]: Type
}

const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
const isNumber = (value: unknown) => typeof value === 'number' && Number.isFinite(value)

const CHECKS: Record<string, (value: unknown) => boolean> = {
  text: (value) => typeof value === 'string' && value.length > 0,
  instant: (value) => typeof value === 'string' && INSTANT.test(value),
  count: isCount,
  number: (value) => isNumber(value) && (value as number) >= 0,
  rate: (value) => value === null || (isNumber(value) && (value as number) >= 0),
  share: (value) => isNumber(value) && (value as number) >= 0 && (value as number) <= 1,
  flag: (value) => typeof value === 'boolean',
  'object or null': (value) => value === null || (typeof value === 'object' && !Array.isArray(value)),
  'text or null': (value) => value === null || (typeof value === 'string' && value.length > 0),
  'instant or null': (value) => value === null || (typeof value === 'string' && INSTANT.test(value)),
  change: (value) => value === null || isNumber(value),
}

/** Wants exactly these fields, each of its type. */
function expectFields(value: unknown, fields: Fields, at: string) {
  expect(Object.keys(value as object).toSorted(), at).toEqual(Object.keys(fields).toSorted())
  for (const [name, type] of Object.entries(fields)) {
    const found = (value as Record<string, unknown>)[name]
    if (typeof type === 'string')
      expect({ at: `${at}.${name}`, found, is: type, fits: CHECKS[type]?.(found) }).toMatchObject({ fits: true })
    else if (Array.isArray(type)) {
      expect(found, `${at}.${name}`).toBeInstanceOf(Array)
      for (const entry of found as unknown[]) expectFields(entry, type[0], `${at}.${name}[]`)
    } else expectFields(found, type, `${at}.${name}`)
  }
}

const COUNTED: Fields = {
  incomingMessages: 'count',
  outgoingMessages: 'count',
  tasksInitiated: 'count',
  tasksCompleted: 'count',
}
/** What appears wherever counts do: beyond the page, but for the four and activeUsers. */
const METRICS: Fields = {
  activeUsers: 'count',
  ...COUNTED,
  total: 'count',
  completionRate: 'rate',
  cost: 'number',
  inputTokens: 'count',
  outputTokens: 'count',
}
const CHANGE: Fields = Object.fromEntries(Object.keys(METRICS).map((name) => [name, 'change']))
const SPAN: Fields = { startDate: 'instant', endDate: 'instant' }
const { activeUsers: _activeUsers, ...OF_A_USER } = METRICS

/** The page's own fields. */
const PAGE: Partial<Record<Path, string[]>> = {
  overview: ['period', 'startDate', 'endDate', 'activeUsers', 'events', 'resources', 'realtime', 'computedAt'],
  metrics: [
    'period',
    'periodKey',
    'startDate',
    'endDate',
    'activeUsers',
    'incomingMessages',
    'outgoingMessages',
    'tasksInitiated',
    'tasksCompleted',
  ],
}

const DATA: Record<Path, Fields | [Fields]> = {
  overview: {
    period: 'text',
    ...SPAN,
    activeUsers: 'count',
    events: { ...COUNTED, total: 'count' },
    resources: { assistants: 'count', users: 'count' },
    realtime: { ...SPAN, ...METRICS, lastEventAt: 'instant or null' },
    computedAt: 'instant',
    completionRate: 'rate',
    cost: 'number',
    inputTokens: 'count',
    outputTokens: 'count',
  },
  metrics: [{ period: 'text', periodKey: 'text', ...SPAN, ...METRICS }],
  rolling: {
    window: 'count',
    ...SPAN,
    ...METRICS,
    previous: { ...SPAN, ...METRICS },
    change: CHANGE,
    series: [{ periodKey: 'text', ...SPAN, ...METRICS }],
  },
  events: [
    {
      id: 'text',
      eventType: 'text',
      timestamp: 'instant',
      assistant: 'text',
      user: 'text',
      cost: 'number',
      inputTokens: 'count',
      outputTokens: 'count',
      model: 'text or null',
      traceId: 'text or null',
      metadata: 'object or null',
    },
  ],
  assistants: [
    {
      assistant: 'text',
      ...METRICS,
      share: 'share',
      idle: 'flag',
      lastActiveAt: 'instant',
      previous: METRICS,
      change: CHANGE,
    },
  ],
  'users/top': [{ user: 'text', ...OF_A_USER, assistants: 'count', lastActiveAt: 'instant' }],
  snapshots: [{ period: 'text', periodKey: 'text', ...SPAN, final: 'flag', ...METRICS }],
}

describe.each(PATHS)('the fields of %s', (path) => {
  test('each one, of its type, and no other', async () => {
    const { data, ...envelope } = await service.whole(path, REQUIRED[path])
    const fields = DATA[path]
    if (Array.isArray(fields)) {
      expect(data.length).toBeGreaterThan(0)
      for (const entry of data) expectFields(entry, fields[0], path)
    } else expectFields(data, fields, path)
    for (const name of PAGE[path] ?? []) expect(Array.isArray(data) ? data[0] : data).toHaveProperty(name)
    expect(envelope.success).toBe(true)
    expect(Object.keys(envelope)).toEqual(path === 'events' ? ['success', 'pagination'] : ['success'])
    if (path === 'events')
      expectFields(
        envelope.pagination,
        { limit: 'count', skip: 'count', total: 'count', nextCursor: 'text or null' },
        'pagination',
      )
  })

  test('a refusal: what is wrong with which parameter, and an id to ask about', async () => {
    const { status, headers, body } = await service.get(path, { ...REQUIRED[path], timezone: 'Mars' })
    expect([status, headers.get('Content-Type')]).toEqual([400, expect.stringMatching(/^application\/json/)])
    expect(body).toEqual({
      success: false,
      error: {
        code: 'bad_request',
        message: expect.any(String),
        details: [{ parameter: 'timezone', message: expect.any(String) }],
      },
      requestId: headers.get('X-Request-Id'),
    })
  })

  test('without a token: 401 in the same envelope', async () => {
    const { status, headers, body } = await service.request('GET', `/analytics/${path}`, {
      headers: { Authorization: '' },
    })
    expect([status, headers.get('WWW-Authenticate')]).toEqual([401, 'Bearer realm="agnt-analytics"'])
    expect(body).toEqual({
      success: false,
      error: { code: 'unauthorized', message: expect.any(String), details: [] },
      requestId: expect.any(String),
    })
  })
})

// ------------------------------------------------------------------------------------------------ beyond the page

const keys = async (period: string) =>
  (await service.data('metrics', { ...RANGE, period })).map((row: { periodKey: string }) => row.periodKey)

describe('beyond the page', () => {
  test('periodKey of each period', async () => {
    expect((await keys('day'))[0]).toBe('2026-02-22')
    expect((await keys('week'))[0]).toBe('2026-W08')
    expect((await keys('month'))[0]).toBe('2026-02')
  })

  test('endDate looks back from another moment', async () => {
    expect(await service.data('overview', { endDate: '2026-02-25' })).toMatchObject({
      startDate: '2026-02-18T00:00:00.000Z',
      endDate: '2026-02-25T00:00:00.000Z',
    })
    expect(await service.data('rolling', { endDate: '2026-02-25T10:30', window: 1 })).toMatchObject({
      startDate: '2026-02-24T10:30:00.000Z',
      endDate: '2026-02-25T10:30:00.000Z',
    })
  })

  test('tasksCompleted / tasksInitiated, and null where none was initiated', async () => {
    expect((await service.data('rolling', { endDate: '2026-03-01' })).completionRate).toBe(298 / 312)
    expect((await service.data('rolling', { endDate: '2026-02-01' })).completionRate).toBe(null)
  })

  test('costs and tokens wherever counts are', async () => {
    expect(await service.data('rolling', { endDate: '2026-03-01' })).toMatchObject({
      cost: 8.105,
      inputTokens: 8_105 * 900,
      outputTokens: 8_105 * 120,
    })
  })

  test('cursors', async () => {
    const first = await service.whole('events', { ...RANGE, limit: 2 })
    const second = await service.whole('events', { ...RANGE, limit: 2, cursor: first.pagination.nextCursor })
    const both = await service.whole('events', { ...RANGE, limit: 4 })
    expect([...first.data, ...second.data]).toEqual(both.data)
  })

  test('formats of snapshots', async () => {
    for (const [format, type] of [
      ['json', 'application/json'],
      ['ndjson', 'application/x-ndjson'],
      ['csv', 'text/csv'],
    ]) {
      const { headers } = await service.get('snapshots', { ...RANGE, format: format as string })
      expect(headers.get('Content-Type')?.split(';')[0]).toBe(type)
    }
  })

  test('the answer to POST /analytics/events', async () => {
    const { status, body } = await service.post([EVENTS[0], { ...EVENTS[0], id: 'new' }, {}])
    expect([status, body]).toEqual([
      200,
      { success: true, data: { accepted: 1, duplicates: 1, rejected: [{ index: 2, message: expect.any(String) }] } },
    ])
  })
})
