/** What only shows over a real socket: the slow, the oversized and the broken off. */
import type { Server } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { listen } from '../../src/http/server.ts'
import { talk } from '../sockets.ts'

const HEADERS_MS = 600
const REQUEST_MS = 1_200
const QUIET_MS = 2_500

async function answer(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url)
  if (pathname === '/broken') return new Response(brokenOff(), { headers: { 'Content-Type': 'text/csv' } })
  if (pathname === '/endless') return new Response(endless(), { headers: { 'Content-Type': 'text/csv' } })
  if (pathname === '/slow') await sleep(300)
  if (request.method === 'POST') await request.text()
  return Response.json({ success: true, data: pathname })
}

/** A body whose source fails when some of it has been sent. */
const brokenOff = () =>
  new ReadableStream({
    async pull(controller) {
      await sleep(20)
      if (sentRows++ < 3) controller.enqueue(new TextEncoder().encode('row\r\n'))
      else throw new Error('a secret of the inside')
    },
  })
let sentRows = 0

let made = 0
const endless = () =>
  new ReadableStream({
    pull(controller) {
      made++
      controller.enqueue(new Uint8Array(65_536))
    },
  })

let server: Server
beforeAll(async () => {
  server = await listen(answer, {
    host: '127.0.0.1',
    port: 0,
    headersMs: HEADERS_MS,
    requestMs: REQUEST_MS,
    quietMs: QUIET_MS,
  })
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
})
afterEach(() => void vi.restoreAllMocks())

const refusal = (code: string, message: string) => ({
  success: false,
  error: { code, message, details: [] },
  requestId: expect.stringMatching(/^[\da-f-]{36}$/),
})

describe('slow callers', () => {
  test('headers that never end get a 408 in the usual form, and the connection is closed', async () => {
    const { answers, closedAfter } = await talk(server, 'GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ', { patienceMs: 5_000 })
    expect(answers.map(({ status }) => status)).toEqual([408])
    expect(JSON.parse(answers[0]?.body ?? '')).toEqual(refusal('too_slow', 'The request took too long to arrive.'))
    expect(closedAfter).toBeLessThan(HEADERS_MS + 2_000)
  })

  test('a body that comes a byte at a time is cut off when its time is up', async () => {
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
    let text = ''
    socket.on('data', (chunk) => (text += chunk)).on('error', () => {})
    const closed = new Promise((resolve) => void socket.once('close', resolve))
    socket.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n')
    const drip = setInterval(() => socket.write('x'), 50)
    await closed
    clearInterval(drip)
    expect(text).toMatch(/^HTTP\/1\.1 408 /)
  })

  test('a connection on which nothing comes is closed, and hundreds of them keep nobody else waiting', async () => {
    const idle = Array.from({ length: 300 }, () => talk(server, '', { patienceMs: 8_000 }))
    await sleep(100)
    const { answers } = await talk(server, 'GET /here HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    expect(answers.map(({ body }) => body)).toEqual(['{"success":true,"data":"/here"}'])
    for (const { closedAfter } of await Promise.all(idle)) expect(closedAfter).toBeLessThan(QUIET_MS + 2_000)
  })

  test('one that asks and does not read stops the source, and is dropped in the end', async () => {
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
    socket.on('error', () => {})
    socket.pause()
    socket.write('GET /endless HTTP/1.1\r\nHost: x\r\n\r\n')
    const inUse = () =>
      new Promise<number>(
        (resolve, reject) => void server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
      )
    await vi.waitFor(async () => expect(await inUse()).toBeGreaterThan(0))
    await sleep(500)
    const before = made
    await sleep(500)
    expect(made).toBe(before)
    await vi.waitFor(async () => expect(await inUse()).toBe(0), { timeout: QUIET_MS + 3_000, interval: 100 })
    socket.destroy()
  })
})

describe('what cannot be read', () => {
  const CASES: Array<[what: string, request: string, status: number, code: string, message: string]> = [
    ['no HTTP', 'hello\r\n\r\n', 400, 'bad_request', 'The request cannot be read.'],
    ['no host', 'GET / HTTP/1.1\r\n\r\n', 400, 'bad_request', 'The request cannot be read.'],
    ['a host that is none', 'GET / HTTP/1.1\r\nHost: ?\r\n\r\n', 400, 'bad_request', 'The request cannot be read.'],
    [
      'two lengths',
      'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx',
      400,
      'bad_request',
      'The request cannot be read.',
    ],
    [
      'a length and chunks, which two servers in a row would read as two requests and as one',
      'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
      'bad_request',
      'The request cannot be read.',
    ],
    [
      'large headers',
      `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`,
      431,
      'headers_too_large',
      'Headers may hold 16384 bytes together.',
    ],
    [
      'a long address',
      `GET /${'x'.repeat(17_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
      431,
      'headers_too_large',
      'Headers may hold 16384 bytes together.',
    ],
    [
      'an expectation',
      'GET / HTTP/1.1\r\nHost: x\r\nExpect: cake\r\n\r\n',
      417,
      'expectation_failed',
      'Expect may say 100-continue.',
    ],
  ]

  test.each(CASES)('%s: the usual form, and the connection is closed', async (_, request, status, code, message) => {
    const { answers, rest, closedAfter } = await talk(server, request)
    expect(rest).toBe('')
    expect(answers.map((given) => given.status)).toEqual([status])
    expect(answers[0]?.headers).toMatchObject({ 'content-type': 'application/json', connection: 'close' })
    expect(JSON.parse(answers[0]?.body ?? '')).toEqual(refusal(code, message))
    expect(closedAfter).not.toBeNull()
  })

  test('HTTP/1.0, which knows no Host, is served', async () => {
    const { answers } = await talk(server, 'GET /old HTTP/1.0\r\n\r\n')
    expect(answers.map(({ body }) => body)).toEqual(['{"success":true,"data":"/old"}'])
  })

  test('garbage behind a request does not end up in the middle of its answer', async () => {
    const { answers, rest } = await talk(server, 'GET /slow HTTP/1.1\r\nHost: x\r\n\r\ngarbage\r\n\r\n', {
      patienceMs: 1_500,
    })
    expect(rest).toBe('')
    expect(answers).toHaveLength(1)
    const garbage = connect((server.address() as AddressInfo).port, '127.0.0.1')
    let bytes = 0
    let text = ''
    garbage
      .on('error', () => {})
      .on('data', (chunk) => {
        bytes += chunk.length
        text = (text + chunk.toString('latin1')).slice(-100_000)
      })
    const closed = new Promise((resolve) => void garbage.once('close', resolve))
    garbage.write('GET /endless HTTP/1.1\r\nHost: x\r\n\r\n')
    await vi.waitFor(() => expect(bytes).toBeGreaterThan(1_000_000))
    garbage.write('garbage\r\n\r\n')
    await closed
    expect(text).not.toContain('bad_request')
  })
})

describe('an export whose source fails half way', () => {
  test('is broken off, so that nobody takes it for whole, and says nothing of why', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => {})
    const { answers, rest, closedAfter } = await talk(server, 'GET /broken HTTP/1.1\r\nHost: x\r\n\r\n', {
      patienceMs: 1_500,
    })
    // Not one whole answer: the last chunk, which says that this was all, never came.
    expect(answers).toEqual([])
    expect(rest).toContain('row\r\n')
    expect(rest).not.toContain('secret')
    expect(closedAfter).not.toBeNull()
  })
})
