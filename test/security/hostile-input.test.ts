/**
 * Thousands of generated requests that mean harm. Whatever they say: no 5xx, the usual envelope, nothing of the inside
 * in an answer, nothing logged as an error, memory that does not grow; and a hostile id is an id like any other.
 *
 *     HOSTILE_REQUESTS   how many are sent through the app, 10,000 by default; the others come on top
 *     HOSTILE_SEED       repeats a run: a failure prints its seed, and fast-check shrinks it to the request it takes
 */
import { parse } from 'csv-parse/sync'
import * as fc from 'fast-check'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { listen } from '../../src/http/server.ts'
import type { SentEvent } from '../reference.ts'
import { talk } from '../sockets.ts'
import { startService, type TestService } from '../support.ts'
import { authorization } from '../tokens.ts'
import { attack, FRAGMENTS, id, isId, PATHS, queryOf, type Attack, type Path } from './hostile.ts'

const REQUESTS = Number(process.env['HOSTILE_REQUESTS'] ?? 10_000)
const SEED = process.env['HOSTILE_SEED'] === undefined ? Date.now() % 2 ** 31 : Number(process.env['HOSTILE_SEED'])
/** Under way at once: few, so that no limit is met, and a 503 would be a fault like any other. */
const AT_ONCE = 8

const MEBIBYTE = 1_048_576
/** After a collection. The caches that fill on purpose (answers, names, time zones) take less than half of it. */
const HEAP_GROWTH = 32 * MEBIBYTE
/** The process with the test runner in it; a body of 64 MiB unpacked would show. */
const RSS_GROWTH = 512 * MEBIBYTE

const collect = (() => {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as () => void
})()

async function heapAfterCollection(): Promise<number> {
  let least = Infinity
  for (let n = 0; n < 4; n++) {
    collect()
    await new Promise((resolve) => void setTimeout(resolve, 50))
    least = Math.min(least, process.memoryUsage().heapUsed)
  }
  return least
}

/** Words of the inside: code, tables, queries, the server. None belongs in an answer that was not asked with it. */
const INSIDE = [
  'DB::Exception',
  'ClickHouse',
  'clickhouse',
  'SELECT ',
  'UNION ALL',
  'FORMAT ',
  'groupBitmap',
  'user_no',
  'assistant_no',
  'event_type =',
  'UInt32',
  'DateTime64',
  'query_id',
  'node_modules',
  'node:internal',
  '.ts:',
  '.js:',
  '    at ',
  'TypeError',
  'RangeError',
  'SyntaxError',
  'Unexpected token',
  'valibot',
  'hono',
  'jose',
]

/** What an event of an earlier request may have stored, as it stands in JSON: its words are nobody's secret. */
const STORED = FRAGMENTS.filter((text) => INSIDE.some((word) => text.includes(word))).map((text) =>
  JSON.stringify(text).slice(1, -1),
)

let service: TestService
let bearer = ''

/** What needs no token, and is the same for everybody. */
const pages = new Set<string>()

beforeAll(async () => {
  service = await startService({ config: { CACHE_MB: '8' } })
  bearer = await authorization(service)
  for (const url of ['/', '/docs', '/openapi.json']) pages.add((await send({ method: 'GET', url, headers: {} }, '')).text)
})
afterAll(() => service.close())

interface Answer {
  status: number
  headers: Headers
  text: string
}

async function send({ method, url, headers, body }: Attack, token = bearer): Promise<Answer> {
  const all = new Headers({ Authorization: token })
  for (const [name, value] of Object.entries(headers)) {
    all.set(name, name === 'Authorization' ? value.replaceAll('TOKEN', token.slice('Bearer '.length)) : value)
  }
  const response = await service.app.request(url, { method, headers: all, ...(body === undefined ? {} : { body }) })
  return { status: response.status, headers: response.headers, text: await response.text() }
}

/** How a request is shown when it fails: everything of it, in a form that can be read and pasted. */
function shown({ method, url, headers, body = '' }: Attack): string {
  const text = typeof body === 'string' ? JSON.stringify(body) : Buffer.from(body).toString('base64')
  return `${method} ${url.slice(0, 3_000)} ${JSON.stringify(headers)} ${text.slice(0, 2_000)}`
}

const REFUSALS = new Set([400, 401, 403, 404, 405, 406, 409, 413, 415, 422])

const isComplaint = ({ parameter, message }: Record<string, unknown>) =>
  typeof parameter === 'string' && typeof message === 'string'

/** What is wrong with an answer to a hostile request. */
function faultsOf(request: Attack, { status, headers, text }: Answer): string[] {
  const faults: string[] = []
  if (status !== 200 && status !== 304 && status !== 204 && !REFUSALS.has(status)) faults.push(`status ${status}`)
  if (!headers.get('X-Request-Id')) faults.push('no request id')
  for (const [name, value] of headers) if (/[^\t\x20-\x7e]/.test(value)) faults.push(`header ${name}: ${JSON.stringify(value)}`)
  if (request.method === 'HEAD' || status === 304 || status === 204) {
    if (text !== '') faults.push('a body where none belongs')
    return faults
  }
  const type = headers.get('Content-Type') ?? ''
  if (status === 200 && /^(text\/csv|application\/x-ndjson|application\/vnd\.apache\.parquet)/.test(type)) return faults
  if (status === 200 && pages.has(text)) return faults
  if (!type.startsWith('application/json')) return [...faults, `Content-Type ${type}`]
  let body
  try {
    body = JSON.parse(text)
  } catch {
    return [...faults, 'no JSON']
  }
  if (status === 200) {
    if (body.success !== true && body.status !== 'ok') faults.push('no envelope')
  } else {
    const { error } = body
    const details = Array.isArray(error?.details) ? error.details : [{}]
    if (body.success !== false || typeof error?.code !== 'string' || typeof error.message !== 'string') faults.push('no envelope')
    if (!details.every(isComplaint) || typeof body.requestId !== 'string') faults.push('no envelope')
    if (status === 400 && request.url.startsWith('/analytics') && details.length === 0) faults.push('a 400 that does not say why')
  }
  const sent = [safelyDecoded(request.url), request.url, ...Object.values(request.headers), request.body].join(' ')
  const said = STORED.reduce((rest, fragment) => rest.replaceAll(fragment, ''), text)
  for (const word of INSIDE) if (said.includes(word) && !sent.includes(word)) faults.push(`says ${JSON.stringify(word)}`)
  return faults
}

/** A file as the values it holds; in CSV metadata is the text of an object. */
function fileOf(type: string, text: string): unknown {
  if (!type.startsWith('text/csv')) return text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as unknown]))
  const rows = parse(text) as string[][]
  return rows.map((row) => row.map((cell) => (cell.startsWith('{') && isJson(cell) ? (JSON.parse(cell) as unknown) : cell)))
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function safelyDecoded(url: string): string {
  return url.replaceAll(/(?:%[\da-f]{2})+/gi, (bytes) => Buffer.from(bytes.replaceAll('%', ''), 'hex').toString())
}

const counted = (tally: ReadonlyMap<string | number, number>) =>
  [...tally]
    .sort()
    .map(([status, count]) => `${status}: ${count}`)
    .join(', ')

describe(`${REQUESTS} hostile requests, seed ${SEED}`, { timeout: 600_000 }, () => {
  test('each gets a proper answer, nothing of the inside is said or logged, and memory does not grow', async () => {
    const tally = new Map<number, number>()
    const run = (requests: number, seed: number) =>
      fc.assert(
        fc.asyncProperty(fc.array(attack, { minLength: 1, maxLength: AT_ONCE, size: 'max' }), async (attacks) => {
          const answers = await Promise.all(attacks.map((one) => send(one)))
          attacks.forEach((request, n) => {
            const answer = answers[n] as Answer
            tally.set(answer.status, (tally.get(answer.status) ?? 0) + 1)
            const faults = faultsOf(request, answer)
            if (service.complaints.length > 0) faults.push(`logged: ${service.complaints.splice(0).join(' ')}`)
            if (faults.length > 0) throw new Error(`${faults.join(', ')}\n${shown(request)}\n${answer.text.slice(0, 2_000)}`)
          })
        }),
        {
          numRuns: Math.ceil((2 * requests) / (1 + AT_ONCE)),
          seed,
          interruptAfterTimeLimit: 500_000,
          markInterruptAsFailure: true,
        },
      )
    const sent = () => [...tally.values()].reduce((sum, count) => sum + count, 0)

    // The first tenth fills the caches and lets the compiler do its work: growth is counted from what it leaves.
    await run(REQUESTS / 10, SEED)
    const heap = await heapAfterCollection()
    const { rss } = process.memoryUsage()
    for (let more = REQUESTS - sent(); more > 0; more = REQUESTS - sent()) await run(more, SEED + sent())
    const grown = (await heapAfterCollection()) - heap
    const rssGrown = process.memoryUsage().rss - rss
    console.info(
      `hostile requests by status: ${counted(tally)}`,
      `(heap ${(grown / MEBIBYTE).toFixed(1)} MiB, RSS ${(rssGrown / MEBIBYTE).toFixed(1)} MiB more)`,
    )
    expect(grown).toBeLessThan(HEAP_GROWTH)
    expect(rssGrown).toBeLessThan(RSS_GROWTH)
    expect(sent()).toBeGreaterThanOrEqual(REQUESTS)
    // Not everything is refused at the door: some of it gets as far as ClickHouse.
    expect(tally.get(200)).toBeGreaterThan(REQUESTS / 50)
  })
})

describe('a hostile id is an id like any other', { timeout: 300_000 }, () => {
  /** Both companies hold the same events; where the one has a hostile id, the other has its harmless twin. */
  const ids = [...new Set([...FRAGMENTS.filter(isId), ...fc.sample(id, { seed: SEED, numRuns: 30 })])]
  const twins = new Map(ids.map((hostile, n) => [hostile, `twin ${n}`]))
  const twinOf = (hostile: string) => twins.get(hostile) ?? 'nobody'
  const WHOLE = { startDate: '2026-02-01', endDate: '2026-03-01' }
  const tokens = { hostile: '', harmless: '' }

  /** As many events for each id as its place in the list says, so that no two tie and lists have one order. */
  const eventsOf = (name: (hostile: string) => string): SentEvent[] => {
    let at = Date.parse('2026-02-01')
    return ids.flatMap((hostile, place) =>
      Array.from({ length: place + 1 }, (_, n): SentEvent => ({
        id: n === 0 ? name(hostile) : `${place}/${n}`,
        eventType:
          (['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted'] as const)[n % 4] ?? 'tasksCompleted',
        timestamp: new Date((at += 300_000)).toISOString(),
        assistant: name(hostile),
        user: name(hostile),
        cost: n / 8,
        ...(n === 0 ? { model: name(hostile), traceId: name(hostile), metadata: { [name(hostile)]: [name(hostile)] } } : {}),
      })),
    )
  }

  beforeAll(async () => {
    await service.store(eventsOf(String), { org: 'hostile' })
    await service.store(eventsOf(twinOf), { org: 'harmless' })
    tokens.hostile = await authorization(service, { org: 'hostile' })
    tokens.harmless = await authorization(service, { org: 'harmless' })
  })

  /** An answer with every hostile id in it, as key or value, replaced by its twin; objects as pairs, in their order. */
  const mapped = (value: unknown): unknown => {
    if (typeof value === 'string') return twins.get(value) ?? value
    if (Array.isArray(value)) return value.map(mapped)
    if (typeof value === 'object' && value !== null) return Object.entries(value).map(([name, of]) => [mapped(name), mapped(of)])
    return value
  }

  const NEEDED: Record<Path, Array<[string, string]>> = {
    overview: [],
    metrics: [['period', 'week'], ...Object.entries(WHOLE)],
    rolling: [['window', '30']],
    events: [...Object.entries(WHOLE), ['limit', '1000']],
    assistants: Object.entries(WHOLE),
    'users/top': [...Object.entries(WHOLE), ['limit', '1000']],
    snapshots: Object.entries(WHOLE),
  }

  /** The same asked of both companies must be told of both. */
  async function same(path: Path, pairs: ReadonlyArray<readonly [string, string]>) {
    const ask = async (token: string, given: typeof pairs) => {
      const request = {
        method: 'GET',
        url: `/analytics/${path}?${queryOf([...NEEDED[path], ...given])}`,
        headers: { 'X-Request-Id': 'mine' },
      }
      const { status, text, headers } = await send(request, token)
      const type = headers.get('Content-Type') ?? ''
      return { status, body: type.startsWith('application/json') ? JSON.parse(text) : fileOf(type, text) }
    }
    const filters = new Set(['assistant', 'user'])
    const [hostile, harmless] = await Promise.all([
      ask(tokens.hostile, pairs),
      ask(
        tokens.harmless,
        pairs.map(([name, value]) => [name, filters.has(name) ? twinOf(value) : value]),
      ),
    ])
    const cursors = [hostile, harmless].map(({ body }) => {
      const cursor = body.pagination?.nextCursor as string | null | undefined
      if (cursor) body.pagination.nextCursor = 'another page'
      return cursor
    })
    expect({ path, pairs, status: hostile.status, body: mapped(hostile.body) }).toEqual({
      path,
      pairs,
      status: harmless.status,
      body: mapped(harmless.body),
    })
    return { status: hostile.status, body: hostile.body, cursors }
  }

  test('whole answers differ from those about harmless ids in the ids alone', async () => {
    for (const path of PATHS) {
      const { status, body } = await same(path, [])
      expect(status).toBe(200)
      if (path === 'assistants' || path === 'users/top') {
        const listed = body.data.map((entry: Record<string, string>) => entry['assistant'] ?? entry['user'])
        expect(listed.toReversed()).toEqual(ids)
      }
    }
  })

  test('a filter by one finds its events and no others', async () => {
    for (const [place, hostile] of ids.entries()) {
      const filters = [
        [['assistant', hostile]],
        [['user', hostile]],
        [
          ['assistant', hostile],
          ['user', hostile],
        ],
      ] as const
      const filter = filters[place % 3] as (typeof filters)[number]
      const { body } = await same('events', filter)
      expect(body.pagination.total, JSON.stringify(filter)).toBe(place + 1)
    }
  })

  test('pages whose cursors hold them follow each other without a gap', async () => {
    let seen = 0
    let cursors: Array<string | null | undefined> = []
    do {
      const ask = async (token: string, cursor: string | null | undefined) => {
        const pairs: Array<[string, string]> = [
          ...Object.entries(WHOLE),
          ['limit', '211'],
          ...(cursor ? [['cursor', cursor] as [string, string]] : []),
        ]
        const { text } = await send({ method: 'GET', url: `/analytics/events?${queryOf(pairs)}`, headers: {} }, token)
        return JSON.parse(text)
      }
      const both = await Promise.all([ask(tokens.hostile, cursors[0]), ask(tokens.harmless, cursors[1])])
      expect(mapped(both[0].data)).toEqual(mapped(both[1].data))
      seen += both[0].data.length
      cursors = both.map(({ pagination }) => pagination.nextCursor)
    } while (cursors[0])
    expect(cursors).toEqual([null, null])
    expect(seen).toBe((ids.length * (ids.length + 1)) / 2)
  })

  test('whatever is asked about some of them, stored or not, beside whatever else', async () => {
    const anyId = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...ids) }, { weight: 2, arbitrary: id })
    const about = fc.array(fc.tuple(fc.constantFrom('assistant', 'user'), anyId), { minLength: 1, maxLength: 4 })
    const else_ = fc.constantFrom<Array<[string, string]>>(
      [],
      [],
      [['timezone', 'Asia/Kathmandu']],
      [['format', 'csv']],
      [['format', 'ndjson']],
      [['eventType', 'incomingMessages']],
      [['limit', '0']],
      [['nonsense', '1']],
      [['skip', '2']],
    )
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), about, else_, async (path, filters, more) => {
        await same(path, [...filters, ...more])
      }),
      { numRuns: Math.ceil(REQUESTS / 25), seed: SEED },
    )
    expect(service.complaints).toEqual([])
  })
})

const HOST = 'Host: localhost'
const AUTH = () => `Authorization: ${bearer}`
const lines = (...given: string[]) => given.join('\r\n')
const get = (...headers: string[]) => lines('GET /analytics/overview HTTP/1.1', HOST, AUTH(), ...headers, '', '')
const post = (headers: string[], body: string) =>
  lines('POST /analytics/events HTTP/1.1', HOST, AUTH(), 'Content-Type: application/json', ...headers, '', body)

describe('broken HTTP over a real socket', { timeout: 300_000 }, () => {
  /** Each by itself, and each with the end of the connection at its end. */
  const BROKEN: Array<() => string | Uint8Array> = [
    () => '',
    () => '\r\n\r\n\r\n',
    () => 'hello\r\n\r\n',
    () => Uint8Array.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...Array.from({ length: 300 }, (_, n) => n % 256)]),
    () => 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    () => 'GET /health/live HTTP/9.9\r\nHost: x\r\n\r\n',
    () => 'GET /health/live HTTP/1.1\r\n\r\n',
    () => 'GET /health/live\r\n\r\n',
    () => 'get /health/live HTTP/1.1\r\nHost: x\r\n\r\n',
    () => 'CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n',
    () => lines('TRACE /analytics/overview HTTP/1.1', HOST, AUTH(), '', ''),
    () => lines('OPTIONS * HTTP/1.1', HOST, '', ''),
    () => lines('GET http://[::1/analytics/overview HTTP/1.1', HOST, '', ''),
    () => lines('GET http://elsewhere.test/analytics/overview HTTP/1.1', HOST, AUTH(), '', ''),
    () => lines('GET analytics/overview HTTP/1.1', HOST, AUTH(), '', ''),
    () => lines('GET /analytics\\overview HTTP/1.1', HOST, AUTH(), '', ''),
    () => lines('GET /analytics/overview#x HTTP/1.1', HOST, AUTH(), '', ''),
    () => lines('GET /analytics/overview?\u00e9=\u00e9 HTTP/1.1', HOST, AUTH(), '', ''),
    () => lines(`GET /analytics/overview?user=${'x'.repeat(20_000)} HTTP/1.1`, HOST, AUTH(), '', ''),
    ...['?', '', ' ', 'a b', '[::1', 'x:99999', 'x:-1', '\u00e9', '%', '<>', 'a/b', 'a@b', '..', 'x'.repeat(5_000)].map(
      (host) => () => lines('GET /analytics/overview HTTP/1.1', `Host: ${host}`, AUTH(), '', ''),
    ),
    () => get('Host: another'),
    () => get(`X-Large: ${'x'.repeat(17_000)}`),
    () => get(...Array.from({ length: 1_500 }, (_, n) => `X-${n}: 1`)),
    () => get('no colon'),
    () => get(': no name'),
    () => get('Space : before'),
    () => get('X-Folded: a', ' b'),
    () => get('X-Nul: a\0b'),
    () => get('X-Return: a\rb'),
    () => get('Expect: 200-ok'),
    () => get('Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: x'),
    () => get('Upgrade: h2c', 'Connection: Upgrade, HTTP2-Settings', 'HTTP2-Settings: x'),
    () => get('Content-Length: 5') + 'hello',
    () => get('Transfer-Encoding: chunked') + '5\r\nhello\r\n0\r\n\r\n',
    ...['-1', 'abc', '1e3', '0x5', '5, 5', '5\r\nContent-Length: 6', '18446744073709551616', '', ' ', '+5', '999999999'].map(
      (length) => () => post([`Content-Length: ${length}`], '[{}]\n'),
    ),
    ...['chunked, identity', 'identity', 'gzip', 'chunked, chunked', 'xchunked', 'chunked\r\nContent-Length: 5'].map(
      (coding) => () => post([`Transfer-Encoding: ${coding}`], '5\r\n[{}]\n\r\n0\r\n\r\n'),
    ),
    ...['zz', '-5', 'ffffffffffffffff', '10000000000000000', '5;ext=1', `5;${'x'.repeat(20_000)}`, '5 ', '', '0x5', '4'].map(
      (size) => () => post(['Transfer-Encoding: chunked'], `${size}\r\n[{}]\n\r\n0\r\n\r\n`),
    ),
    () => post(['Transfer-Encoding: chunked'], '5\r\n[{}'),
    () => post(['Transfer-Encoding: chunked'], '5\r\n[{}]\n\r\n0\r\nX-Trailer: \0\r\n\r\n'),
    () => post(['Content-Length: 100'], '[{}]'),
    () => post(['Content-Length: 2'], '[{}]'),
    () => post(['Content-Length: 4', 'Expect: 100-continue'], '[{}]'),
    () => post(['Content-Length: 4', 'Content-Encoding: gzip'], '[{}]'),
    () => post(['Content-Length: 44'], lines('{}]', '', 'GET /operations/reconcile HTTP/1.1', 'x: x', '', '')),
    () => get() + get() + 'garbage\r\n\r\n' + get(),
    () => get().repeat(50),
  ]

  const proper = fc.boolean().map((asks) => (asks ? get() : post(['Content-Length: 4'], '[{}]')))

  /** A proper request with some of its bytes turned into others, left out or repeated. */
  const mutated = fc
    .tuple(
      proper,
      fc.array(fc.tuple(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.nat(255), fc.nat(2)), {
        minLength: 1,
        maxLength: 4,
      }),
    )
    .map(([text, changes]) => {
      const bytes = [...Buffer.from(text, 'latin1')]
      for (const [where, byte, kind] of changes)
        bytes.splice(Math.floor(where * bytes.length), kind === 2 ? 0 : 1, ...(kind === 1 ? [] : [byte]))
      return Uint8Array.from(bytes)
    })

  test('each gets a proper answer or none, and the next caller is served as ever', async () => {
    const server = await listen(service.app.fetch, {
      host: '127.0.0.1',
      port: 0,
      headersMs: 1_000,
      requestMs: 2_000,
      quietMs: 10_000,
    })
    try {
      const payloads = [...BROKEN.map((make) => make()), ...fc.sample(mutated, { seed: SEED, numRuns: 250 })]
      const tally = new Map<string, number>()
      for (let at = 0; at < payloads.length; at += AT_ONCE) {
        await Promise.all(
          payloads.slice(at, at + AT_ONCE).flatMap((payload) =>
            [false, true].map(async (hangUp) => {
              const { answers, rest } = await talk(server, payload, { hangUp })
              const text = Buffer.from(payload).toString('latin1').slice(0, 500)
              const what = `${JSON.stringify(text)} ${hangUp ? 'and hung up' : ''}`
              expect(rest, what).toBe('')
              for (const answer of answers) {
                const { status, body } = answer
                tally.set(String(status), (tally.get(String(status)) ?? 0) + 1)
                if (status === 100) continue
                expect(status, what).toBeLessThan(500)
                const parsed = JSON.parse(body || 'null')
                const isProper =
                  status === 200
                    ? parsed.success === true || parsed.status === 'ok'
                    : parsed?.success === false && parsed.requestId
                if (!isProper) throw new Error(`${what}: ${status} ${body}`)
              }
              if (answers.length === 0) tally.set('closed without a word', (tally.get('closed without a word') ?? 0) + 1)
            }),
          ),
        )
      }
      console.info(`broken HTTP by status: ${counted(tally)}`)
      expect(service.complaints.slice(0, 3)).toEqual([])
      const { answers } = await talk(server, get('Connection: close'))
      expect(answers.map(({ status }) => status)).toEqual([200])
      expect(Number(tally.get('closed without a word') ?? 0)).toBeLessThan(payloads.length / 10)
    } finally {
      server.closeAllConnections()
      server.close()
    }
  })
})
