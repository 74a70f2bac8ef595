/**
 * Thousands of generated requests that mean harm. Whatever they say: no 5xx, the usual envelope, nothing of the inside in
 * an answer, nothing logged as an error, memory that does not grow; and a hostile id is an id like any other.
 *
 *     HOSTILE_REQUESTS   how many are sent through the app, 10,000 by default; those over a socket come on top
 *     HOSTILE_SEED       repeats a run: a failure prints its seed, and fast-check shrinks it to the request it takes
 */
import * as fc from 'fast-check'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { listen } from '../../src/http/server.ts'
import type { SentEvent } from '../reference.ts'
import { startService, type TestService } from '../support.ts'
import { authorization } from '../tokens.ts'
import { attack, escaped, FRAGMENTS, id, isId, PATHS, queryOf, type Attack, type Path } from './hostile.ts'

const REQUESTS = Number(process.env['HOSTILE_REQUESTS'] ?? 10_000)
const SEED = process.env['HOSTILE_SEED'] === undefined ? Date.now() % 2 ** 31 : Number(process.env['HOSTILE_SEED'])
/** Under way at once: few, so that no limit is met, and a 503 would be a fault like any other. */
const AT_ONCE = 8

const MEBIBYTE = 1_048_576
/** After a collection. The caches that fill on purpose (answers, names, time zones, tokens) take less than half of it. */
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

/** Words of the inside: code, tables, queries, the server. None of them belongs in an answer that was not asked with it. */
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

let service: TestService
let bearer = ''

beforeAll(async () => {
  service = await startService({ config: { CACHE_MB: '8' } })
  bearer = await authorization(service)
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
const shown = ({ method, url, headers, body }: Attack) =>
  `${method} ${url.slice(0, 3_000)} ${JSON.stringify(headers)} ${typeof body === 'string' ? JSON.stringify(body.slice(0, 2_000)) : body ? Buffer.from(body).toString('base64').slice(0, 2_000) : ''}`

const REFUSALS = new Set([400, 401, 403, 404, 405, 406, 413, 415, 422])

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
  if (status === 200 && /^(text\/csv|application\/x-ndjson)/.test(type)) return faults
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
    const proper = (detail: Record<string, unknown>) => typeof detail.parameter === 'string' && typeof detail.message === 'string'
    if (body.success !== false || typeof error?.code !== 'string' || typeof error.message !== 'string') faults.push('no envelope')
    if (!details.every(proper) || typeof body.requestId !== 'string') faults.push('no envelope')
    if (status === 400 && request.url.startsWith('/analytics') && details.length === 0) faults.push('a 400 that does not say why')
  }
  const sent = `${safelyDecoded(request.url)} ${request.url} ${Object.values(request.headers).join(' ')} ${String(request.body ?? '')}`
  for (const word of INSIDE) if (text.includes(word) && !sent.includes(word.trim())) faults.push(`says ${JSON.stringify(word)}`)
  return faults
}

function safelyDecoded(url: string): string {
  return url.replaceAll(/(?:%[\da-f]{2})+/gi, (bytes) => Buffer.from(bytes.replaceAll('%', ''), 'hex').toString())
}

describe(`${REQUESTS} hostile requests, seed ${SEED}`, { timeout: 600_000 }, () => {
  test('each gets a proper answer, nothing of the inside is said or logged, and memory does not grow', async () => {
    const tally = new Map<number, number>()
    const run = (requests: number, seed: number) =>
      fc.assert(
        fc.asyncProperty(fc.array(attack, { minLength: 1, maxLength: AT_ONCE, size: 'max' }), async (requests) => {
          const answers = await Promise.all(requests.map((request) => send(request)))
          requests.forEach((request, n) => {
            const answer = answers[n] as Answer
            tally.set(answer.status, (tally.get(answer.status) ?? 0) + 1)
            const faults = faultsOf(request, answer)
            if (service.complaints.length > 0) faults.push(`logged: ${service.complaints.splice(0).join(' ')}`)
            if (faults.length > 0) throw new Error(`${faults.join(', ')}\n${shown(request)}\n${answer.text.slice(0, 2_000)}`)
          })
        }),
        { numRuns: Math.ceil((2 * requests) / (1 + AT_ONCE)), seed, interruptAfterTimeLimit: 500_000, markInterruptAsFailure: true },
      )
    const sent = () => [...tally.values()].reduce((sum, count) => sum + count, 0)

    // The first tenth fills the caches and lets the compiler do its work; what it leaves is where growth is counted from.
    await run(REQUESTS / 10, SEED)
    const heap = await heapAfterCollection()
    const { rss } = process.memoryUsage()
    for (let more = REQUESTS - sent(); more > 0; more = REQUESTS - sent()) await run(more, SEED + sent())
    const grown = (await heapAfterCollection()) - heap
    const rssGrown = process.memoryUsage().rss - rss
    console.info(
      `hostile requests by status: ${[...tally].sort().map(([status, count]) => `${status}: ${count}`).join(', ')}; ` +
        `heap ${(grown / MEBIBYTE).toFixed(1)} MiB, RSS ${(rssGrown / MEBIBYTE).toFixed(1)} MiB more`,
    )
    expect(grown).toBeLessThan(HEAP_GROWTH)
    expect(rssGrown).toBeLessThan(RSS_GROWTH)
    expect(sent()).toBeGreaterThanOrEqual(REQUESTS)
    // Not everything is refused at the door: some of it gets as far as ClickHouse.
    expect(tally.get(200)).toBeGreaterThan(REQUESTS / 50)
  })
})
