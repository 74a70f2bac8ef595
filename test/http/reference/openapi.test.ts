/**
 * GET /openapi.json tells the truth: about every parameter, by asking; about every answer, by holding real ones against
 * it, with valibot and with a JSON Schema validator that reads the document as any caller would.
 *
 *     UPDATE_EXAMPLES=1   writes the answers of src/http/reference/examples.json anew
 */
import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020 } from 'ajv/dist/2020.js'
import * as fc from 'fast-check'
import { readFileSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { ENDPOINTS } from '../../../src/analytics/endpoints/index.ts'
import { EVENT_TYPES } from '../../../src/domain/event.ts'
import { Store } from '../../../src/clickhouse/store.ts'
import { ERROR_CODES, unavailable } from '../../../src/domain/errors.ts'
import { checkEvent } from '../../../src/ingest/check-event.ts'
import { sentEvent } from '../../../src/ingest/event-schema.ts'
import type { Answer, OpenApi, Operation, Parameter } from '../../../src/http/reference/document.ts'
import { queryString, startService, type Params, type PostOptions, type Reply, type TestService } from '../../support.ts'
import { Failure } from '../../../src/http/error-response.ts'
import { deleteUserResponse } from '../../../src/http/routes/delete-user.ts'
import { Liveness, Readiness } from '../../../src/http/routes/health.ts'
import { backupResponse, reconcileResponse } from '../../../src/http/routes/operations.ts'
import { postEventsResponse } from '../../../src/http/routes/post-events.ts'

type Path = keyof typeof ENDPOINTS
const PATHS = Object.keys(ENDPOINTS) as Path[]
const EXCERPT = new URL('../../data/ubuntu-irc-excerpt.ndjson.gz', import.meta.url)
const EXAMPLES = new URL('../../../src/http/reference/examples.json', import.meta.url)

let service: TestService
let document: OpenApi
let ajv: Ajv2020
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z', config: { METRICS_TOKEN: 'of-a-scraper-0123456789' } })
  const events = gunzipSync(readFileSync(EXCERPT))
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as object)
  await service.store(events)
  await service.store(sevenWednesdays(events as Timed[]))
  await service.store([
    {
      eventType: 'tasksInitiated',
      timestamp: '2026-03-01T11:59:00Z',
      assistant: 'Rex',
      user: 'ann',
      cost: 0.5,
      inputTokens: 3,
      outputTokens: 4,
      model: 'small-1',
      traceId: 't-1',
      metadata: { a: [1, { b: null }] },
    },
  ])
  document = (await service.request('GET', '/openapi.json', { headers: { Authorization: '' } })).body
  ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false })
  ajv.addSchema({ ...document, $id: 'document' })
})
afterAll(() => service.close())

interface Timed {
  readonly id: string
  readonly eventType: string
  readonly timestamp: string
}

/**
 * What GET /analytics/regressions can compare, as the days of the excerpt are years apart: one of its Wednesdays on seven
 * Wednesdays two years later, on the last of which no task is completed from 14:00 on.
 */
function sevenWednesdays(excerpt: readonly Timed[]): object[] {
  const day = excerpt.filter(({ timestamp }) => timestamp.startsWith('2011-02-23'))
  return Array.from({ length: 7 }, (_, week) => {
    const later = (98 + week) * 7 * 86_400_000
    return day
      .map((event) => ({
        ...event,
        id: `${event.id} ${week}`,
        timestamp: new Date(Date.parse(event.timestamp) + later).toISOString(),
      }))
      .filter(({ eventType, timestamp }) => eventType !== 'tasksCompleted' || timestamp < '2013-02-20T14')
  }).flat()
}

/** What a schema of the document, named by its place in there, finds wrong with a value. */
function faultsBy(place: string[], value: unknown): string[] {
  const pointer = place.map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')
  const validate = ajv.getSchema(`document#/${pointer}`)
  if (!validate) throw new Error(`the document has no schema at ${pointer}`)
  return validate(value) ? [] : (validate.errors ?? []).map((error) => `${error.instancePath} ${error.message}`)
}

function expectToFit(schema: v.GenericSchema, place: string[], value: unknown) {
  const { issues = [] } = v.safeParse(schema, value)
  expect(issues.map((issue) => `${v.getDotPath(issue)} ${issue.message}`)).toEqual([])
  expect(faultsBy(place, value)).toEqual([])
}

const jsonOf = (path: string, method: string, status: string) => [
  'paths',
  path,
  method,
  'responses',
  status,
  'content',
  'application/json',
  'schema',
]

const operationOf = (path: string, method: 'get' | 'post' | 'delete' = 'get') => document.paths[path]?.[method] as Operation

/** Every documented header is there. */
function expectHeaders({ headers }: Reply, documented: Answer['headers'] = {}) {
  for (const name of Object.keys(documented)) expect([name, headers.get(name)]).toEqual([name, expect.any(String)])
}

const RANGE = { startDate: '2011-02-18', endDate: '2011-02-25' }
const NEEDED: Record<Path, Params> = {
  '/analytics/overview': {},
  '/analytics/metrics': { period: 'day', ...RANGE },
  '/analytics/rolling': {},
  '/analytics/events': RANGE,
  '/analytics/assistants': RANGE,
  '/analytics/users/top': RANGE,
  '/analytics/snapshots': RANGE,
  '/analytics/regressions': { endDate: '2013-02-20T16:00' },
}

const ask = (path: string, params: Params = {}, options: PostOptions = {}) =>
  service.request('GET', `${path}?${queryString(params)}`, options)

// -------------------------------------------------------------------------------------------------------- the document

describe('the document', () => {
  test('is OpenAPI 3.1 to an independent validator', async () => {
    const validator = new Validator()
    const result = await validator.validate({ ...structuredClone(document) })
    expect(result).toEqual({ valid: true })
    expect(validator.version).toBe('3.1')
  })

  test('and the validator would notice', async () => {
    const broken = { ...structuredClone(document) }
    const [parameter] = broken.paths['/analytics/overview']?.get?.parameters ?? []
    if (parameter) parameter.in = 'nowhere' as 'query'
    expect((await new Validator().validate(broken)).valid).toBe(false)
  })

  test('every reference leads somewhere, and every description says something', () => {
    const missing: string[] = []
    const empty: string[] = []
    const look = (value: unknown, at: string) => {
      if (typeof value !== 'object' || value === null) return
      for (const [key, inner] of Object.entries(value)) {
        if (key === '$ref') {
          const found = String(inner)
            .slice(2)
            .split('/')
            .reduce<unknown>((object, part) => (object as Record<string, unknown>)?.[part], document)
          if (!found) missing.push(String(inner))
        }
        if (key === 'description' && String(inner).trim().length < 3) empty.push(at)
        look(inner, `${at}/${key}`)
      }
    }
    look(document, '')
    expect([missing, empty]).toEqual([[], []])
  })

  test('needs no token, has a validator of its own, and may be loaded by nobody else’s page', async () => {
    const { status, headers } = await service.request('GET', '/openapi.json', { headers: { Authorization: '' } })
    expect([status, headers.get('Content-Type')]).toEqual([200, 'application/json'])
    const again = await service.request('GET', '/openapi.json', { headers: { 'If-None-Match': headers.get('ETag') ?? '' } })
    expect([again.status, again.body]).toEqual([304, ''])
  })

  test('every endpoint is in it, with the scope that it wants', async () => {
    for (const [path, item] of Object.entries(document.paths)) {
      for (const [method, { security }] of Object.entries(item) as Array<[string, Operation]>) {
        const scopes = security.flatMap((one) => Object.values(one).flat())
        const without = await service.request(method.toUpperCase(), path, { scope: 'nothing' })
        if (scopes.length === 0) expect([path, without.status]).toEqual([path, 200])
        else {
          expect([path, without.status]).toEqual([path, 403])
          expect(without.headers.get('WWW-Authenticate')).toContain(`scope="${scopes.join(' ')}"`)
        }
      }
    }
    expect(Object.keys(document.paths)).toEqual(expect.arrayContaining(PATHS))
  })
})

// ---------------------------------------------------------------------------------------------------------- parameters

/** What the service itself says that it knows. */
async function known(method: string, path: string, options: PostOptions = {}): Promise<string[]> {
  const { body } = await service.request(method, `${path}?${'x'.repeat(30)}=1`, options)
  const { message } = body.error.details.find(({ parameter }: { parameter: string }) => parameter.startsWith('xxx'))
  return message.split('known are ')[1].split(', ')
}

const inQuery = ({ parameters }: Operation) => parameters.filter((parameter) => parameter.in === 'query')

/** Values that must pass and values that must not, by what the document says. */
function probes({ name, schema, example }: Parameter): { good: string[]; bad: string[] } {
  const of = schema.type === 'array' ? (schema.items ?? {}) : schema
  const good = (example === undefined ? [] : [example].flat()).map(String)
  const bad: string[] = []
  if (of.enum) {
    good.push(...of.enum.map(String))
    bad.push(`${String(of.enum[0])}x`, '')
  }
  if (of.minimum !== undefined) {
    good.push(String(of.minimum))
    bad.push(String(of.minimum - 1))
  }
  if (of.maximum !== undefined) {
    // 15 digits are as many as a number may have; skip's limit has 16.
    if (of.maximum < 1e15) {
      good.push(String(of.maximum))
      bad.push(String(of.maximum + 1))
    }
    bad.push('1.5', 'x')
  }
  if (of.maxLength !== undefined) {
    good.push('x'.repeat(of.maxLength))
    bad.push('x'.repeat(of.maxLength + 1))
  }
  if (of.minLength === 1) bad.push('')
  if (['startDate', 'endDate', 'timezone', 'cursor'].includes(name)) bad.push('nonsense')
  return { good, bad }
}

describe.each(PATHS)('the parameters of %s', (path) => {
  test('are those that the service knows, no more and no fewer', async () => {
    expect(
      inQuery(operationOf(path))
        .map(({ name }) => name)
        .toSorted(),
    ).toEqual((await known('GET', path)).toSorted())
  })

  test('take what they say and refuse the rest', async () => {
    for (const parameter of inQuery(operationOf(path))) {
      const { good, bad } = probes(parameter)
      expect([parameter.name, good.length > 0, bad.length > 0]).toEqual([parameter.name, true, true])
      const complaints = async (value: string) => {
        const { status, body } = await ask(path, { ...NEEDED[path], [parameter.name]: value })
        return status === 400 ? body.error.details.map((found: { parameter: string }) => found.parameter) : []
      }
      for (const value of good) expect([parameter.name, value, await complaints(value)]).toEqual([parameter.name, value, []])
      for (const value of bad)
        expect([parameter.name, value, await complaints(value)]).toEqual([parameter.name, value, [parameter.name]])
    }
  })

  test('may be repeated where they are lists, as often as they say, and nowhere else', async () => {
    for (const { name, schema, example } of inQuery(operationOf(path))) {
      const times = schema.type === 'array' ? (schema.maxItems ?? 0) : 1
      const given = (count: number) => ({
        ...NEEDED[path],
        [name]: Array.from({ length: count }, () => String([example].flat()[0])),
      })
      const right = await ask(path, given(times))
      const wrong = await ask(path, given(times + 1))
      expect([name, wrong.status, JSON.stringify(wrong.body)]).toEqual([name, 400, expect.stringMatching(/only once|at most/)])
      if (right.status === 400) expect(JSON.stringify(right.body)).not.toMatch(/only once|at most/)
    }
  })

  test('are required where they say so, and have the default they name', async () => {
    const needed = inQuery(operationOf(path))
      .filter(({ required }) => required)
      .map(({ name }) => name)
    const { status, body } = await ask(path)
    expect(status === 400 ? body.error.details.map(({ parameter }: { parameter: string }) => parameter).toSorted() : []).toEqual(
      needed.toSorted(),
    )
    for (const { name, schema } of inQuery(operationOf(path))) {
      if (schema.default === undefined) continue
      const named = await ask(path, { ...NEEDED[path], [name]: String(schema.default) })
      expect([name, named.body]).toEqual([name, (await ask(path, NEEDED[path])).body])
    }
  })
})

test('the parameters of /operations/reconcile', async () => {
  const names = inQuery(operationOf('/operations/reconcile', 'post')).map(({ name }) => name)
  expect(names.toSorted()).toEqual((await known('POST', '/operations/reconcile', { scope: 'analytics:operate' })).toSorted())
})

// ------------------------------------------------------------------------------------------------------------- answers

/** Where the objects of an answer are, of a list the first one's; what was sent as metadata may hold anything. */
function* objectsIn(value: unknown, place: string[] = []): Generator<string[]> {
  if (Array.isArray(value)) {
    if (value.length > 0) yield* objectsIn(value[0], [...place, '0'])
  } else if (typeof value === 'object' && value !== null) {
    yield place
    for (const [name, inner] of Object.entries(value)) if (name !== 'metadata') yield* objectsIn(inner, [...place, name])
  }
}

describe.each(PATHS)('the answers of %s', (path) => {
  const questions: Array<[string, Params]> = [
    ['as it is', {}],
    ['an assistant', { assistant: 'channel_ubuntu' }],
    ['a user and an assistant', { user: 'user_47c5944d63b3', assistant: ['channel_ubuntu', 'nobody'] }],
    ['nobody', { user: 'nobody' }],
    ['in another zone', { timezone: 'Asia/Kathmandu' }],
    ...(path === '/analytics/overview'
      ? [['the excerpt', { endDate: '2011-02-25', period: 'month' }] as [string, Params]]
      : path === '/analytics/rolling'
        ? [['the excerpt', { endDate: '2011-02-25', window: 90 }] as [string, Params]]
        : path === '/analytics/regressions'
          ? [
              ['silence', { endDate: '2013-02-27T16:00' }] as [string, Params],
              ['no weeks before', { endDate: '2011-02-25' }] as [string, Params],
            ]
          : [
              ['now', { startDate: '2026-03-01', endDate: '2026-03-02' }] as [string, Params],
              ['an empty range', { startDate: '1999-01-01', endDate: '1999-01-03' }] as [string, Params],
              ['a range of years', { startDate: '2004-01-01', endDate: '2026-03-02', period: 'month' }] as [string, Params],
            ]),
  ]

  test.each(questions)('%s', async (_, params) => {
    const asked = Object.fromEntries(
      Object.entries({ ...NEEDED[path], ...params }).filter(([name]) => name in ENDPOINTS[path].parameters),
    )
    const reply = await ask(path, asked)
    expect(reply.status).toBe(200)
    expectToFit(ENDPOINTS[path].response, jsonOf(path, 'get', '200'), reply.body)
    const { headers } = operationOf(path).responses['200'] as Answer
    const { 'Content-Disposition': _ofFiles, ETag: _ofWhatIsKept, ...always } = headers ?? {}
    expectHeaders(reply, always)
    // What is too long to be kept is sent while it is made, without a validator.
    if (path === '/analytics/snapshots' && reply.body.data.length > 100) return
    const again = await ask(path, asked, { headers: { 'If-None-Match': reply.headers.get('ETag') ?? '' } })
    // `computedAt` is the clock's, and the clock stands still.
    expect(again.status).toBe(304)
    expectHeaders(again, (operationOf(path).responses['304'] as Answer).headers)
  })

  test('a field more, a field fewer or another type would be noticed, by both, at any depth', async () => {
    const { body } = await ask(path, NEEDED[path])
    const objects = [...objectsIn(body)]
    expect(objects.length).toBeGreaterThan(1)
    for (const place of objects) {
      const spoilt = (spoil: (object: Record<string, unknown>) => void) => {
        const broken = structuredClone(body)
        spoil(place.reduce((value, key) => value[key], broken))
        return [v.is(ENDPOINTS[path].response, broken), faultsBy(jsonOf(path, 'get', '200'), broken).length > 0]
      }
      expect([place, spoilt((object) => (object['extra'] = 1))]).toEqual([place, [false, true]])
      for (const [name, value] of Object.entries(place.reduce((inner, key) => inner[key], body))) {
        const wrong = typeof value === 'boolean' ? 'x' : false
        expect([place, name, spoilt((object) => delete object[name])]).toEqual([place, name, [false, true]])
        expect([place, name, spoilt((object) => (object[name] = wrong))]).toEqual([place, name, [false, true]])
      }
    }
  })

  test('the formats are those that it names', async () => {
    const { content = {} } = operationOf(path).responses['200'] as Answer
    const types = Object.keys(content)
    if (!('format' in ENDPOINTS[path].parameters)) return expect(types).toEqual(['application/json'])
    for (const type of types) {
      const { status, headers, body } = await ask(path, NEEDED[path], { headers: { Accept: type } })
      expect([type, status, headers.get('Content-Type')?.split(';')[0]]).toEqual([type, 200, type])
      if (type === 'application/x-ndjson') {
        for (const line of body.trim().split('\n'))
          expect(faultsBy(['paths', path, 'get', 'responses', '200', 'content', type, 'schema'], JSON.parse(line))).toEqual([])
      }
      if (type !== 'application/json') expect(headers.get('Content-Disposition')).toMatch(/^attachment; filename="/)
    }
  })

  test('its example is what the service says today', async () => {
    const examples = JSON.parse(readFileSync(EXAMPLES, 'utf8'))
    const { body } = await ask(path, examples[path].query)
    if (process.env['UPDATE_EXAMPLES']) {
      examples[path].answer = body
      writeFileSync(EXAMPLES, `${JSON.stringify(examples, null, 2)}\n`)
    }
    expect(examples[path].answer).toEqual(body)
  })
})

describe('other answers', () => {
  test('POST /analytics/events', async () => {
    const { status, body, headers } = await service.post([
      { nonsense: 1 },
      document.paths['/analytics/events']?.post?.requestBody?.content['application/x-ndjson']?.example,
    ])
    expect([status, body.data.accepted, body.data.rejected.length]).toEqual([200, 1, 1])
    expectToFit(postEventsResponse, jsonOf('/analytics/events', 'post', '200'), body)
    expectHeaders({ status, body, headers }, (operationOf('/analytics/events', 'post').responses['200'] as Answer).headers)
  })

  test('DELETE /analytics/users/{user}, and the log without a name', async () => {
    const path = '/analytics/users/{user}'
    const operation = operationOf(path, 'delete')
    const admin = { scope: 'analytics:admin', org: 'leaver' }
    await service.store([{ eventType: 'tasksInitiated', timestamp: '2011-02-20T10:00:00Z', assistant: 'a', user: 'ann b' }], {
      org: admin.org,
    })
    const reply = await service.request('DELETE', '/analytics/users/ann%20b', admin)
    expect([reply.status, reply.body.data.events]).toEqual([200, 1])
    expectToFit(deleteUserResponse, jsonOf(path, 'delete', '200'), reply.body)
    expectHeaders(reply, (operation.responses['200'] as Answer).headers)
    expectToFit(
      ENDPOINTS['/analytics/events'].response,
      jsonOf('/analytics/events', 'get', '200'),
      (await ask('/analytics/events', RANGE, { org: admin.org })).body,
    )
    expectRefusal(await service.request('DELETE', '/analytics/users/ann%20b', admin), 404, operation)
    expectRefusal(await service.request('DELETE', '/analytics/users/%ff', admin), 400, operation)
    expectRefusal(await service.request('DELETE', '/analytics/users/ann', { headers: { Authorization: '' } }), 401, operation)
    expectRefusal(await service.request('DELETE', '/analytics/users/ann', { ...admin, assistants: ['a'] }), 403, operation)
    expectRefusal(await service.request('POST', '/analytics/users/ann', admin), 405)
  })

  test('POST /operations/backup', async () => {
    const operator = { scope: 'analytics:operate' }
    const url = `/operations/backup?name=${service.database}`
    const { status, body } = await service.request('POST', url, operator)
    expect(status).toBe(200)
    expectToFit(backupResponse, jsonOf('/operations/backup', 'post', '200'), body)
    expectRefusal(await service.request('POST', url, operator), 409, operationOf('/operations/backup', 'post'))
    expect(inQuery(operationOf('/operations/backup', 'post')).map(({ name }) => name)).toEqual(['name'])
  })

  test('health', async () => {
    const live = await service.request('GET', '/health/live', {})
    expectToFit(Liveness, jsonOf('/health/live', 'get', '200'), live.body)
    const ready = await service.request('GET', '/health/ready', {})
    expect(ready.status).toBe(200)
    expectToFit(Readiness, jsonOf('/health/ready', 'get', '200'), ready.body)
    const ping = vi.spyOn(Store.prototype, 'ping').mockResolvedValue(false)
    const away = await service.request('GET', '/health/ready', {})
    ping.mockRestore()
    expect(away.status).toBe(503)
    expectToFit(Readiness, jsonOf('/health/ready', 'get', '503'), away.body)
  })

  test('POST /operations/reconcile, with and without drift', async () => {
    const url = '/operations/reconcile?startDate=2011-02-23&endDate=2011-02-24'
    const { body } = await service.request('POST', url, { scope: 'analytics:operate' })
    expectToFit(reconcileResponse, jsonOf('/operations/reconcile', 'post', '200'), body)
    await service.deleteRows('activity', 'level = 2')
    const found = await service.request('POST', `${url}&repair=true`, { scope: 'analytics:operate' })
    expect(found.body.data.drift.length).toBeGreaterThan(0)
    expectToFit(reconcileResponse, jsonOf('/operations/reconcile', 'post', '200'), found.body)
    service.complaints.length = 0
  })
})

// -------------------------------------------------------------------------------------------------------------- errors

/** Wants the answer to be the one that the document has for its status. */
function expectRefusal(reply: Reply, status: number, operation?: Operation) {
  expect(reply.status).toBe(status)
  expectToFit(Failure, ['components', 'schemas', 'Failure'], reply.body)
  expect(ERROR_CODES[reply.body.error.code as keyof typeof ERROR_CODES]).toBe(status)
  const found = Object.entries(document.components.responses).find(([, { description }]) =>
    description.includes(`\`${reply.body.error.code}\``),
  )
  expectHeaders(reply, found?.[1].headers)
  if (operation) expect(Object.values(operation.responses)).toContainEqual({ $ref: `#/components/responses/${found?.[0]}` })
}

describe('refusals', () => {
  test.each(PATHS)('%s: 400, 401, 403, 503', async (path) => {
    const operation = operationOf(path)
    expectRefusal(await ask(path, { ...NEEDED[path], timezone: 'Mars' }), 400, operation)
    expectRefusal(await ask(path, {}, { headers: { Authorization: '' } }), 401, operation)
    expectRefusal(await ask(path, {}, { headers: { Authorization: 'Bearer nonsense' } }), 401, operation)
    expectRefusal(await ask(path, {}, { scope: 'analytics:write' }), 403, operation)
    const read = vi.spyOn(Store.prototype, 'read').mockRejectedValue(unavailable('away'))
    expectRefusal(await ask(path, { ...NEEDED[path], user: 'who' }), 503, operation)
    read.mockRejectedValue(new Error('a secret'))
    const reply = await ask(path, { ...NEEDED[path], user: 'someone' })
    read.mockRestore()
    expectRefusal(reply, 500, operation)
    expect(JSON.stringify(reply.body)).not.toContain('secret')
    service.complaints.length = 0
  })

  test('404, 405 and 406', async () => {
    expectRefusal(await service.request('GET', '/nowhere', {}), 404)
    expectRefusal(await service.request('DELETE', '/analytics/events', {}), 405)
    for (const path of ['/analytics/events', '/analytics/snapshots'] as const) {
      expectRefusal(await ask(path, RANGE, { headers: { Accept: 'application/pdf' } }), 406, operationOf(path))
    }
  })

  test('of events that are sent: 400, 401, 403, 413, 415, 422', async () => {
    const operation = operationOf('/analytics/events', 'post')
    const event = { ...(operation.requestBody?.content['application/x-ndjson']?.example as object), id: 'r-1' }
    expectRefusal(await service.post('{'), 400, operation)
    expectRefusal(await service.post([event], { headers: { Authorization: '' } }), 401, operation)
    expectRefusal(await service.post([event], { scope: 'analytics:read' }), 403, operation)
    expectRefusal(await service.post(' '.repeat(8 * 1_048_576 + 1)), 413, operation)
    expectRefusal(await service.post(`[${'0,'.repeat(10_001)}0]`), 413, operation)
    expectRefusal(await service.post([event], { headers: { 'Content-Type': 'text/plain' } }), 415, operation)
    expectRefusal(await service.post([event], { headers: { 'Content-Encoding': 'br' } }), 415, operation)
    const headers = { 'Idempotency-Key': 'k' }
    const both = await Promise.all([service.post([event], { headers }), service.post([event], { headers })])
    expectRefusal(both.find(({ status }) => status !== 200) as Reply, 409, operation)
    expectRefusal(await service.post([{ ...event, id: 'r-2' }], { headers }), 422, operation)
  })

  test('429, for reading and for writing', async () => {
    const busy = await startService({ config: { RATE_LIMIT_PER_SECOND: '1' } })
    try {
      const replies = await Promise.all(Array.from({ length: 3 }, () => busy.request('GET', '/analytics/overview', {})))
      expectRefusal(replies.at(-1) as Reply, 429, operationOf('/analytics/overview'))
      expectRefusal(await busy.post([]), 429, operationOf('/analytics/events', 'post'))
    } finally {
      await busy.close()
    }
  })
})

// ---------------------------------------------------------------------------------------------------- events, as sent

const inDocument = (value: unknown) => faultsBy(['components', 'schemas', 'SentEvent'], value).length === 0

describe('SentEvent', () => {
  const right = { eventType: 'incomingMessages', timestamp: '2026-01-01T00:00:00Z', assistant: 'a', user: 'u' }
  const NOW = Date.parse('2026-03-01')
  const taken = (value: unknown) => typeof checkEvent(value, NOW, () => 'made up') !== 'string'

  const field = fc.oneof(
    fc.constantFrom(
      null,
      true,
      '',
      ' ',
      'x',
      'x'.repeat(256),
      'x'.repeat(257),
      'a\0b',
      '\n',
      0,
      -1,
      1.5,
      4_294_967_295,
      4_294_967_296,
      1_000_000,
      1_000_000.5,
      [],
      {},
      { a: 1 },
      [1],
    ),
    fc.constantFrom(...EVENT_TYPES),
  )
  const names = [...Object.keys(sentEvent.entries).filter((name) => name !== 'timestamp'), 'other']

  test('the schema and the check agree on every field but the timestamp, whose rules no schema can say', () => {
    let [accepted, refused] = [0, 0]
    fc.assert(
      fc.property(fc.constantFrom(...names), field, (name, value) => {
        const event = { ...right, [name]: value }
        const expected = taken(event)
        if (expected) accepted++
        else refused++
        expect([name, value, v.is(sentEvent, event)]).toEqual([name, value, expected])
        expect([name, value, inDocument(event)]).toEqual([name, value, expected])
      }),
      { numRuns: 3_000 },
    )
    expect(Math.min(accepted, refused)).toBeGreaterThan(300)
  })

  test('what is required, and what is no event at all', () => {
    for (const name of Object.keys(right)) {
      const { [name as keyof typeof right]: _, ...rest } = right
      expect([name, taken(rest), v.is(sentEvent, rest), inDocument(rest)]).toEqual([name, false, false, false])
    }
    for (const value of [null, [], 'x', 1])
      expect([taken(value), v.is(sentEvent, value), inDocument(value)]).toEqual([false, false, false])
    expect([taken(right), v.is(sentEvent, right), inDocument(right)]).toEqual([true, true, true])
  })
})
