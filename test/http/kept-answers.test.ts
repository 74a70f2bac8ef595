/** The cache and the limits as callers meet them: over the whole service, with answers kept. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { Store } from '../../src/clickhouse/store.ts'
import { listen } from '../../src/http/server.ts'
import { talk } from '../sockets.ts'
import { startService, type TestService } from '../support.ts'
import { authorization } from '../tokens.ts'

const RANGE = { startDate: '2026-02-01', endDate: '2026-02-02' }

let service: TestService
beforeAll(async () => {
  service = await startService({ config: { CACHE_MB: '8', MAX_CONCURRENT_QUERIES: '1' } })
})
afterAll(() => service.close())

let made = 0
const event = (fields: object = {}) => ({
  id: `event ${made++}`,
  eventType: 'incomingMessages',
  timestamp: '2026-02-01T10:00:00Z',
  assistant: 'a',
  user: 'u',
  ...fields,
})

const totalOf = async (org: string, params = {}) => {
  const [day] = await service.data('metrics', { period: 'day', ...RANGE, ...params }, { org })
  return day.total as number
}

describe('nothing stale after a write was acknowledged', () => {
  test('a company that looks before its first event sees it afterwards', async () => {
    expect(await totalOf('newcomer')).toBe(0)
    await service.store([event()], { org: 'newcomer' })
    expect(await totalOf('newcomer')).toBe(1)
  })

  test('an assistant that is looked for before its first event is seen afterwards', async () => {
    await service.store([event()], { org: 'curious' })
    expect(await totalOf('curious', { assistant: 'later', user: 'later too' })).toBe(0)
    await service.store([event({ assistant: 'later', user: 'later too' })], { org: 'curious' })
    expect(await totalOf('curious', { assistant: 'later', user: 'later too' })).toBe(1)
  })

  test('an assistant that is written while it is looked up is not remembered as unknown', async () => {
    await service.store([event()], { org: 'racer' })
    // The question has found no such assistant, and goes on only when the event of that assistant is stored.
    const looked = withResolvers()
    const stored = withResolvers()
    const numbers = vi.spyOn(service.names, 'numbers')
    const original = numbers.getMockImplementation() ?? Object.getPrototypeOf(service.names).numbers
    numbers.mockImplementation(async function (this: unknown, ...args) {
      const found = await original.apply(service.names, args)
      if (args[2].includes('fast') && args[1] === 'assistant') {
        numbers.mockRestore()
        looked.resolve(undefined)
        await stored.promise
      }
      return found
    })
    const before = totalOf('racer', { assistant: 'fast' })
    await looked.promise
    await service.store([event({ assistant: 'fast' })], { org: 'racer' })
    stored.resolve(undefined)
    expect(await before).toBe(0)
    expect(await totalOf('racer', { assistant: 'fast' })).toBe(1)
  })

  test('a day that ends after the range did is final when it is over, though the range was over before', async () => {
    const asked = { startDate: '2026-03-01', endDate: '2026-03-01T09:00' }
    const isFinal = async () => (await service.data('snapshots', asked, { org: 'finals' }))[0].final
    await service.store([event()], { org: 'finals' })
    expect(await isFinal()).toBe(false)
    service.setNow('2026-03-02T00:00:00Z')
    expect(await isFinal()).toBe(true)
    service.setNow('2026-03-01T12:00:00Z')
  })
})

describe('limits that do not get in the way of the cache', () => {
  test('a hundred screens that show the same cost one place, not a hundred', async () => {
    await service.store([event()], { org: 'screens' })
    const ask = () => service.get('assistants', RANGE, { org: 'screens' })
    const replies = await Promise.all(Array.from({ length: 100 }, ask))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
  })

  test('different questions beyond the limit get a 429 that says when to come back', async () => {
    await service.store([event()], { org: 'many' })
    const ask = (_: unknown, n: number) => service.get('events', { ...RANGE, skip: n }, { org: 'many' })
    const replies = await Promise.all(Array.from({ length: 20 }, ask))
    const byStatus = (status: number) => replies.filter((reply) => reply.status === status)
    expect(byStatus(200).length).toBeGreaterThanOrEqual(5)
    expect(byStatus(200).length + byStatus(429).length).toBe(20)
    expect(byStatus(429).length).toBeGreaterThan(5)
    for (const { headers, body } of byStatus(429)) {
      expect(headers.get('Retry-After')).toBe('1')
      expect(headers.get('RateLimit-Policy')).toBe('"tenant";q=1000000;w=1')
      expect(body).toMatchObject({ success: false, error: { code: 'too_many_requests', details: [] } })
    }
  })
})

const openExport = async (method = 'GET') => {
  const token = await authorization(service, { org: 'exporter' })
  const url = '/analytics/snapshots?startDate=2020-01-01&endDate=2026-01-01&format=csv'
  return service.app.request(url, { method, headers: { Authorization: token } })
}

describe('exports', () => {
  test('one that is being sent counts until it is read, cancelled, or was only asked about', async () => {
    const reading = await openExport()
    expect(reading.status).toBe(200)
    expect((await openExport()).status).toBe(429)
    expect((await reading.text()).trimEnd().split('\r\n')).toHaveLength(1 + 2_192)

    const left = await openExport()
    expect(left.status).toBe(200)
    await left.body?.cancel()

    for (let n = 0; n < 3; n++) {
      const head = await openExport('HEAD')
      expect(head.status).toBe(200)
      expect(head.headers.get('Content-Disposition')).toBe('attachment; filename="snapshots-day-2020-01-01-2026-01-01.csv"')
      expect(await head.text()).toBe('')
    }
    const last = await openExport()
    expect(last.status).toBe(200)
    await last.body?.cancel()
  })

  test('one whose source fails half way is broken off and logged, and counts no longer', async () => {
    const printed = vi.spyOn(console, 'error')
    const server = await listen(service.app.fetch, { host: '127.0.0.1', port: 0 })
    const read = vi.spyOn(Store.prototype, 'read')
    try {
      read.mockImplementationOnce(() => Promise.resolve([]))
      read.mockImplementation(async () => {
        await sleep(100)
        throw new Error('away')
      })
      const address = '/analytics/snapshots?startDate=2020-01-01&endDate=2026-01-01&format=csv'
      const token = await authorization(service, { org: 'exporter' })
      const { answers, rest } = await talk(server, `GET ${address} HTTP/1.1\r\nHost: x\r\nAuthorization: ${token}\r\n\r\n`)
      expect(answers, 'no answer that looks complete').toEqual([])
      expect(rest).toContain('day,2020-01-01,')
      expect(rest).not.toContain('away')
      expect(service.complaints.splice(0).map((line) => JSON.parse(line).message)).toEqual(['an answer broke off'])
      expect(printed).not.toHaveBeenCalled()
    } finally {
      vi.restoreAllMocks()
      server.closeAllConnections()
      server.close()
    }
    const after = await openExport()
    expect(after.status).toBe(200)
    await after.body?.cancel()
  })
})

function withResolvers() {
  let resolve!: (value: unknown) => void
  const promise = new Promise((done) => (resolve = done))
  return { promise, resolve }
}
