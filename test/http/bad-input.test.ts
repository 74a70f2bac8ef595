/** What callers send by mistake or on purpose: one 400 that names every bad parameter, no 500 and no wrong answer. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PATHS, type Path } from '../compare.ts'
import { queryString, startService, type Params, type TestService } from '../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
})
afterAll(() => service.close())

const RANGE = { startDate: '2026-02-01', endDate: '2026-03-01' }
/** What each endpoint cannot do without. */
const NEEDED: Record<Path, Params> = {
  overview: {},
  metrics: { period: 'day', ...RANGE },
  rolling: {},
  events: RANGE,
  assistants: RANGE,
  'users/top': RANGE,
  snapshots: RANGE,
}
const RANGED = PATHS.filter((path) => 'startDate' in NEEDED[path])
const WITH_PERIOD = ['overview', 'metrics', 'snapshots'] as const
const WITH_LIMIT = ['events', 'users/top'] as const

/** Asks, and wants a 400 about exactly these parameters. */
async function refuse(path: string, query: Params | string, complaints: Record<string, unknown>) {
  const { status, body } = await service.get(path, query)
  expect({ query, status, body }).toEqual({
    query,
    status: 400,
    body: {
      success: false,
      error: {
        code: 'bad_request',
        message: 'Some parameters cannot be used.',
        details: expect.any(Array),
      },
      requestId: expect.any(String),
    },
  })
  const found = Object.fromEntries(
    body.error.details.map(({ parameter, message }: Record<string, string>) => [parameter, message]),
  )
  expect(found).toEqual(
    Object.fromEntries(Object.entries(complaints).map(([name, message]) => [name, expect.stringMatching(message as RegExp)])),
  )
  expect(body.error.details.length, 'one complaint a parameter').toBe(Object.keys(complaints).length)
}

/** The same with what the endpoint needs beside. */
const no = (path: Path, params: Params, complaints: Record<string, RegExp>) =>
  refuse(path, { ...NEEDED[path], ...params }, complaints)

describe.each(PATHS)('%s', (path) => {
  const bad = (params: Params, complaints: Record<string, RegExp>) => no(path, params, complaints)

  test.each([
    ['empty', ''],
    ['257 characters', 'x'.repeat(257)],
    ['a NUL byte', 'a\0b'],
    ['nothing but a NUL byte', '\0'],
  ])('an assistant or a user that is %s', async (_, id) => {
    await bad({ assistant: id }, { assistant: /256|NUL/ })
    await bad({ user: ['fine', id] }, { user: /256|NUL/ })
    await bad({ user: id, assistant: ['a', id, 'b'] }, { user: /256|NUL/, assistant: /256|NUL/ })
  })

  test('more ids than a question may name', () =>
    bad({ user: Array.from({ length: 101 }, (_, index) => `u${index}`) }, { user: /at most 100/ }))

  test.each(['Mars/Phobos', '', 'UTC+1', '+02:00', 'PST', 'Europe/Berlin ', '../UTC', 'utc\0', 'x'.repeat(10_000)])(
    'timezone=%j',
    (timezone) => bad({ timezone }, { timezone: /IANA/ }),
  )

  test('a time zone given twice', () => bad({ timezone: ['UTC', 'UTC'] }, { timezone: /only once/ }))

  test.each([
    ['asistant', /did you mean assistant\?/],
    ['Assistant', /did you mean assistant\?/],
    ['users', /did you mean user\?/],
    ['time_zone', /did you mean timezone\?/],
    ['org', /is not a parameter/],
    ['tenant', /is not a parameter/],
    ['somethingElseAltogether', /known are .*assistant.*timezone/],
    ['__proto__', /is not a parameter/],
    ['constructor', /is not a parameter/],
    ['toString', /is not a parameter/],
    ['', /is not a parameter/],
    ['assistant[]', /did you mean assistant\?/],
  ])('unknown parameter %j', (name, message) => bad(Object.fromEntries([[name, 'x']]), { [name]: message }))

  test.each([
    ['user=%zz', 'user'],
    ['user=%', 'user'],
    ['user=50%', 'user'],
    ['assistant=%ff', 'assistant'],
    ['assistant=a&assistant=%C3%28', 'assistant'],
    ['user=%ED%A0%80', 'user'],
    ['timezone=%ff', 'timezone'],
    ['%ff=1', '\ufffd'],
  ])('escapes that are no UTF-8: %s', (query, parameter) =>
    refuse(path, `${queryString(NEEDED[path])}&${query}`, { [parameter]: /percent-encoding|IANA/ }),
  )

  test('well-formed oddities are no errors', async () => {
    for (const query of [
      '&',
      '&&&',
      `&user=${encodeURIComponent('\ud83d\ude00\uffff')}`,
      '&assistant=a%2Bb+c%20d',
      `&user=${'x'.repeat(256)}`,
    ]) {
      expect([query, (await service.get(path, `${queryString(NEEDED[path])}${query}`)).status]).toEqual([query, 200])
    }
  })

  // DELETE of /analytics/users/top removes the user of that name.
  test('nothing but GET, HEAD and, for events, POST', async () => {
    const more = { events: 'POST', 'users/top': 'DELETE' }[path as string]
    const allow = ['GET', 'HEAD', ...(more ? [more] : [])].join(', ')
    for (const method of ['PUT', 'PATCH', 'DELETE', 'POST'].filter((one) => one !== more)) {
      const { status, headers, body } = await service.request(method, `/analytics/${path}`, {})
      expect([method, status, headers.get('Allow'), body.error.code]).toEqual([method, 405, allow, 'method_not_allowed'])
    }
    const head = await service.request('HEAD', `/analytics/${path}?${queryString(NEEDED[path])}`, {})
    expect([head.status, head.body]).toEqual([200, ''])
  })
})

describe.each(RANGED)('%s: the range', (path) => {
  const bad = (params: Params, complaints: Record<string, RegExp>) => no(path, params, complaints)

  test.each([
    '2026-02-30',
    '2026-02-29',
    '2026-13-01',
    '2026-00-10',
    '2026-01-00',
    '2026-01-32',
    '1900-02-29',
    '1969-12-31',
    '2100-01-02',
    '0000-01-01',
    '-000001-01-01',
    '+012026-01-01',
    '2026-01-01T24:00:00Z',
    '2026-01-01T24:00:01Z',
    '2026-01-01T25:00Z',
    '2026-01-01T10:60Z',
    '2026-01-01T10:00:60Z',
    '2026-01-01T10:00:00.0001Z',
    '2026-01-01T10:00+24:00',
    '2026-01-01T10:00 01:00',
    '2026-01-01 10:00',
    '2026-1-1',
    '2026-W08',
    '2026-001',
    '20260101',
    '01/02/2026',
    'yesterday',
    'now()',
    '1772366400',
    'NaN',
    '',
    ' 2026-01-01',
    '2026-01-01\0',
    '２０２６-01-01',
    "2026-01-01' OR 1=1 --",
    '9'.repeat(10_000),
  ])('no such date: %j', async (date) => {
    const message = /has |must be |range|longer|space|finer|later/
    await bad({ startDate: date }, { startDate: message })
    await bad({ endDate: date }, { endDate: message })
  })

  test.each([
    ['reversed', { startDate: '2026-02-02', endDate: '2026-02-01' }],
    ['empty', { startDate: '2026-02-02', endDate: '2026-02-02' }],
    ['empty, in two notations', { startDate: '2026-02-02T05:45:00+05:45', endDate: '2026-02-02' }],
    ['reversed by a millisecond', { startDate: '2026-02-02T00:00:00.001', endDate: '2026-02-02' }],
    [
      'empty, as the zone has no such hour',
      { startDate: '2026-03-08T02:30', endDate: '2026-03-08T03:30', timezone: 'America/New_York' },
    ],
  ])('%s', (_, range) => bad(range, { endDate: /after startDate/ }))

  test('a date given twice, or not at all', async () => {
    await bad({ startDate: ['2026-02-01', '2026-02-01'] }, { startDate: /only once/ })
    await bad({ endDate: ['2026-02-02', '2026-02-03'] }, { endDate: /only once/ })
    const { startDate: _start, endDate: _end, ...rest } = NEEDED[path]
    await refuse(path, rest, { startDate: /required/, endDate: /required/ })
    await refuse(path, { ...rest, startDate: '2026-02-01' }, { endDate: /required/ })
  })
})

describe('values of one endpoint or two', () => {
  test.each(WITH_PERIOD)('%s: period', async (path) => {
    for (const period of ['year', '', 'Day', 'days', 'day ', 'toString', '1'])
      await no(path, { period }, { period: /day, week or month/ })
    await no(path, { period: ['day', 'week'] }, { period: /only once/ })
  })

  test('metrics: a period is required', () => refuse('metrics', RANGE, { period: /required/ }))

  const NOT_WHOLE = [
    '-1',
    '1.5',
    '1e1',
    '1e9',
    'abc',
    '',
    ' 7',
    '7 ',
    '+7',
    '٧',
    '0x7',
    'NaN',
    'Infinity',
    '1,000',
    '99999999999999999999',
    '7\0',
  ]

  test.each([...NOT_WHOLE, '0', '91'])('rolling: window=%j', (window) => no('rolling', { window }, { window: /1 to 90/ }))
  test('rolling: window twice', () => no('rolling', { window: ['7', '7'] }, { window: /only once/ }))

  describe.each(WITH_LIMIT)('%s', (path) => {
    test.each([...NOT_WHOLE, '0', '1001'])('limit=%j', (limit) => no(path, { limit }, { limit: /1 to 1000/ }))
    test('limit twice', () => no(path, { limit: ['7', '8'] }, { limit: /only once/ }))
  })

  test.each(NOT_WHOLE)('events: skip=%j', (skip) => no('events', { skip }, { skip: /integer/ }))
  test.each(['', 'incomingmessages', 'IncomingMessages', 'messages', 'toString', 'incomingMessages,tasksCompleted'])(
    'events: eventType=%j',
    (eventType) =>
      no('events', { eventType }, { eventType: /incomingMessages, outgoingMessages, tasksInitiated or tasksCompleted/ }),
  )
  test('events: eventType twice', () =>
    no('events', { eventType: ['tasksCompleted', 'tasksInitiated'] }, { eventType: /only once/ }))
  test('snapshots: format', () => no('snapshots', { format: 'xml' }, { format: /json, ndjson/ }))

  test.each(['overview', 'rolling'] as const)('%s: endDate', async (path) => {
    await refuse(path, { endDate: '2026-02-30' }, { endDate: /has day 30/ })
    await refuse(path, { endDate: '' }, { endDate: /must be/ })
    await refuse(path, { endDate: ['2026-02-01', '2026-02-02'] }, { endDate: /only once/ })
    await refuse(path, { startDate: '2026-02-01' }, { startDate: /not a parameter/ })
  })

  test('parameters of another endpoint are not taken for nothing', async () => {
    await no('metrics', { limit: '5' }, { limit: /not a parameter/ })
    await no('assistants', { period: 'day', limit: '3', skip: '0' }, { period: /not a/, limit: /not a/, skip: /not a/ })
    await no('users/top', { skip: '5' }, { skip: /not a parameter/ })
    await no('rolling', { period: 'day' }, { period: /not a parameter/ })
  })
})

test('all that is wrong is told at once', () =>
  refuse(
    'events',
    'startDate=2026-02-30&endDate=soon&assistant=&user=%00&timezone=Mars&limit=0&skip=-1&eventType=x&cursor=x&foo=1&lmit=2',
    {
      startDate: /has day 30/,
      endDate: /must be/,
      assistant: /256/,
      user: /NUL/,
      timezone: /IANA/,
      limit: /1 to 1000/,
      skip: /integer/,
      eventType: /incomingMessages/,
      cursor: /nextCursor/,
      foo: /not a parameter/,
      lmit: /did you mean limit/,
    },
  ))

test('a bad range is told beside a bad parameter', () =>
  refuse(
    'metrics',
    { startDate: '2026-02-02', endDate: '2026-02-01', period: 'year' },
    { endDate: /after/, period: /day, week/ },
  ))

test('a date is read in UTC where the zone is bad, and complained of only for itself', () =>
  refuse(
    'assistants',
    { startDate: '2026-02-30', endDate: '2026-03-01', timezone: 'Mars' },
    { startDate: /day 30/, timezone: /IANA/ },
  ))

test('POST takes no parameters', async () => {
  const { status, body } = await service.request('POST', '/analytics/events?org=other', {
    headers: { 'Content-Type': 'application/json' },
    body: '[]',
  })
  expect([status, body.error.details]).toEqual([400, [{ parameter: 'org', message: expect.stringContaining('not a parameter') }]])
})

describe('addresses', () => {
  test.each([
    '/analytics',
    '/analytics/',
    '/analytics/overview/',
    '/analytics/Overview',
    '/ANALYTICS/overview',
    '//analytics/overview',
    '/analytics/users',
    '/analytics/users/top/10',
    '/analytics/%zz',
    '/analytics/%00',
    '/analytics/overview%00',
    '/analytics/constructor',
    '/analytics/..%2Foverview',
    '/.env',
    `/${'x'.repeat(10_000)}`,
  ])('%s is a 404', async (address) => {
    for (const method of ['GET', 'POST']) {
      const { status, body } = await service.request(method, address, {})
      expect([status, body]).toEqual([
        404,
        {
          success: false,
          error: { code: 'not_found', message: 'Not found', details: [] },
          requestId: expect.any(String),
        },
      ])
    }
  })
})

describe('bodies that no parser should see', () => {
  test.each([
    [{}, 415],
    [{ 'Content-Type': 'text/plain' }, 415],
    [{ 'Content-Type': 'multipart/form-data; boundary=x' }, 415],
    [{ 'Content-Type': 'application/jsonp' }, 415],
    [{ 'Content-Type': 'application/json', 'Content-Encoding': 'br' }, 415],
    [{ 'Content-Type': 'application/json', 'Content-Encoding': 'gzip, gzip' }, 415],
    [{ 'Content-Type': 'application/json', 'Content-Length': String(8 * 1_048_576 + 1) }, 413],
    [{ 'Content-Type': 'application/json', 'Content-Encoding': 'gzip' }, 400],
  ] as Array<[Record<string, string>, number]>)('%j: %i', async (headers, wanted) => {
    const { status, body } = await service.request('POST', '/analytics/events', { headers, body: '[]' })
    expect([status, body.success]).toEqual([wanted, false])
  })
})

const ask = (path: string, params: Params) => service.whole(path, params, { org: 'opaque' })
const idsOf = ({ data }: { data: Array<{ id: string }> }) => data.map((event) => event.id)

describe('ids are opaque: whatever one says, exactly its events are found', () => {
  const IDS = [
    "'",
    '"',
    '\\',
    "\\'",
    '\\N',
    '\\0',
    '\\x41',
    'NULL',
    'null',
    'undefined',
    'true',
    '0',
    '4294967295',
    ' ',
    ' a',
    'a ',
    'a',
    'A',
    'á',
    'a\u0301',
    '\n',
    'line\nfeed',
    'tab\tand\rreturn',
    '\u0001\u007f\u0085',
    '\u2028',
    '\ufeff',
    '\ufffd',
    '\uffff',
    '\ud83d\ude00',
    '\ud83d\ude00'.repeat(128),
    '漢'.repeat(256),
    '\\'.repeat(256),
    "'".repeat(256),
    '{x:String}',
    '{tenant:UUID}',
    '{tenant',
    '}',
    '${1+1}',
    '$1',
    '?',
    '%',
    '%00',
    '%27',
    '&user=x',
    '#',
    '+',
    'a+b',
    'a b',
    ',',
    "a','b",
    "['a']",
    '[]',
    '()',
    "') OR 1 = 1 --",
    '; DROP TABLE events; --',
    '/* */',
    '`events`',
    '*',
    '.*',
    '__proto__',
    'constructor',
    'prototype',
    'toString',
    'hasOwnProperty',
    'valueOf',
    '=1+1',
    '<script>alert(1)</script>',
    '../../etc/passwd',
    'channel/ubuntu',
  ]

  beforeAll(async () => {
    await service.store(
      IDS.flatMap((id, index) => [
        // The third has the id in all three places.
        {
          id: `as assistant ${index}`,
          eventType: 'incomingMessages',
          timestamp: '2026-02-22T10:00:00Z',
          assistant: id,
          user: `plain ${index}`,
        },
        {
          id: `as user ${index}`,
          eventType: 'outgoingMessages',
          timestamp: '2026-02-22T11:00:00Z',
          assistant: `plain ${index}`,
          user: id,
        },
        {
          id,
          eventType: 'tasksInitiated',
          timestamp: '2026-02-22T12:00:00Z',
          assistant: id,
          user: id,
          model: id,
          traceId: id,
        },
      ]),
      { org: 'opaque' },
    )
  })

  test.each(IDS.map((id, index) => [index, id] as const))('%i: %j', async (index, id) => {
    const ofAssistant = await ask('events', { ...RANGE, assistant: id })
    expect([idsOf(ofAssistant), ofAssistant.pagination.total]).toEqual([[id, `as assistant ${index}`], 2])
    expect(ofAssistant.data[0]).toEqual({
      id,
      eventType: 'tasksInitiated',
      timestamp: '2026-02-22T12:00:00.000Z',
      assistant: id,
      user: id,
      cost: 0,
      inputTokens: 0,
      outputTokens: 0,
      model: id,
      traceId: id,
      metadata: null,
    })
    expect(idsOf(await ask('events', { ...RANGE, user: id }))).toEqual([id, `as user ${index}`])
    expect(idsOf(await ask('events', { ...RANGE, user: id, assistant: id }))).toEqual([id])
    const [top] = (await ask('users/top', { ...RANGE, assistant: id })).data
    expect([top.total, [id, `plain ${index}`]]).toEqual([1, expect.arrayContaining([top.user])])
    const [assistant, ...others] = (await ask('assistants', { ...RANGE, user: id, assistant: id })).data
    expect([assistant.assistant, assistant.total, others]).toEqual([id, 1, []])
  })

  test('all of them in one question, and in lists by name', async () => {
    // 100 at most; those of 256 characters of 3 bytes are the longest there can be.
    const page = await ask('events', { ...RANGE, user: IDS, assistant: IDS, limit: 1000 })
    expect(page.data.map((event: { id: string }) => event.id).toSorted()).toEqual(IDS.toSorted())
    const longest = Array.from({ length: 100 }, (_, index) => `${'漢'.repeat(253)}${index}`)
    expect((await ask('events', { ...RANGE, user: longest, assistant: longest })).data).toEqual([])
    const backslashes = Array.from({ length: 100 }, (_, index) => `${'\\'.repeat(253)}${index}`)
    expect((await ask('events', { ...RANGE, user: backslashes, assistant: backslashes })).data).toEqual([])

    const { data } = await ask('assistants', RANGE)
    const names = [...IDS, ...IDS.map((_, index) => `plain ${index}`)]
    expect(data.map(({ assistant }: { assistant: string }) => assistant).toSorted()).toEqual(names.toSorted())
    const users = (await ask('users/top', { ...RANGE, limit: 1000 })).data
    expect(users.map(({ user }: { user: string }) => user).toSorted()).toEqual(names.toSorted())
  })
})
