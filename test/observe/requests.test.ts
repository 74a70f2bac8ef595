/** What the log says of a request: one line, loud where it matters, and nothing that names a person. */
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { Store } from '../../src/clickhouse/store.ts'
import { unavailable } from '../../src/domain/errors.ts'
import { startService, type TestService } from '../support.ts'
import { authorization } from '../tokens.ts'

const RANGE = { startDate: '2026-02-01', endDate: '2026-02-02' }
const SECRETS = /secret|Bearer|eyJ|startDate|SELECT/

let service: TestService
beforeAll(async () => {
  service = await startService({ config: { SLOW_REQUEST_MS: '1000000' } })
  await service.store(
    ['a', 'b'].map((id) => ({
      id: `secret ${id}`,
      eventType: 'incomingMessages',
      timestamp: '2026-02-01T10:00:00Z',
      assistant: 'secret-assistant',
      user: 'secret-user',
      metadata: { secret: 'secret' },
    })),
  )
})
afterAll(() => service.close())
beforeEach(() => {
  service.logged.length = 0
})

const lines = () => service.logged.filter(({ message }) => /request|broke off/.test(message))

test('one line at debug: who, what, how long, and its queries', async () => {
  const { headers } = await service.get('users/top', { ...RANGE, user: 'secret-user' }, { headers: { 'X-Request-Id': 'r-17' } })
  expect(headers.get('X-Request-Id')).toBe('r-17')
  expect(lines()).toEqual([
    {
      level: 'debug',
      message: 'request',
      requestId: 'r-17',
      tenant: 'acme',
      method: 'GET',
      route: '/analytics/users/top',
      status: 200,
      ms: expect.any(Number),
      queries: expect.arrayContaining([
        { name: expect.stringMatching(/^[a-z_]+$/), ms: expect.any(Number), rows: expect.any(Number) },
      ]),
    },
  ])
  expect(JSON.stringify(lines())).not.toMatch(SECRETS)
})

test('a post, which has no query of its own', async () => {
  await service.post([{ nonsense: 'secret' }])
  expect(lines()).toMatchObject([{ level: 'debug', route: '/analytics/events', method: 'POST', tenant: 'acme', status: 200 }])
  expect(JSON.stringify(lines())).not.toMatch(SECRETS)
})

test('what a caller did wrong is no failure of the service', async () => {
  await service.get('metrics', 'secret=secret')
  await service.request('GET', '/analytics/secret', {})
  await service.request('GET', '/analytics/rolling', { headers: { Authorization: 'Bearer eyJ.secret.x' } })
  expect(lines().map(({ level, status, route }) => [level, status, route])).toEqual([
    ['debug', 400, '/analytics/metrics'],
    ['debug', 404, 'none'],
    ['debug', 401, '/analytics/rolling'],
  ])
  expect(JSON.stringify(lines())).not.toMatch(SECRETS)
})

test('an export is told of when it is over, with its bytes', async () => {
  const { body } = await service.get('events', { ...RANGE, format: 'csv' })
  await vi.waitFor(() => expect(lines()).toHaveLength(1))
  expect(lines()).toMatchObject([
    {
      level: 'debug',
      status: 200,
      export: 'ok',
      bytes: body.length,
      queries: [{ name: expect.any(String), rows: expect.any(Number) }],
    },
  ])
})

describe('what is told at info or louder', () => {
  test('a slow request', async () => {
    const slow = await startService({ config: { SLOW_REQUEST_MS: '0' } })
    await slow.get('rolling', { user: 'secret-user' })
    expect(slow.logged.filter(({ message }) => message === 'slow request')).toMatchObject([
      { level: 'info', route: '/analytics/rolling', status: 200 },
    ])
    expect(JSON.stringify(slow.logged)).not.toMatch(SECRETS)
    await slow.close()
  })

  test('a store that is away, as a warning with its cause', async () => {
    const { admin } = service
    await admin.command({ query: 'RENAME TABLE activity TO hidden' })
    const { status } = await service.get('rolling', { endDate: '2026-02-03' })
    await admin.command({ query: 'RENAME TABLE hidden TO activity' })
    expect(status).toBe(503)
    const [line] = lines()
    expect(line).toMatchObject({
      level: 'warn',
      message: 'request failed',
      status: 503,
      route: '/analytics/rolling',
      tenant: 'acme',
    })
    expect(line?.['cause']).toContain('activity')
    expect(line?.['queries']).toEqual(expect.arrayContaining([expect.objectContaining({ outcome: 'failed' })]))
    service.complaints.length = 0
  })

  test('a fault of the program, as an error with its stack', async () => {
    const read = vi.spyOn(Store.prototype, 'read').mockRejectedValue(new TypeError('a mistake'))
    const { status } = await service.get('rolling', { endDate: '2026-02-03' })
    read.mockRestore()
    expect(status).toBe(500)
    expect(lines()).toMatchObject([{ level: 'error', message: 'request failed', status: 500, cause: 'TypeError: a mistake' }])
    expect(lines()[0]?.['stack']).toContain('requests.test.ts')
    service.complaints.length = 0
  })

  test('a caller that hung up is none of it', async () => {
    const read = vi
      .spyOn(Store.prototype, 'read')
      .mockImplementation(
        ({ signal }) =>
          new Promise((_, reject) => signal?.addEventListener('abort', () => reject(unavailable('cancelled', 1, signal.reason)))),
      )
    const headers = { Authorization: await authorization(service) }
    await service.app.request('/analytics/rolling?endDate=2026-02-04', { headers, signal: AbortSignal.timeout(100) })
    read.mockRestore()
    expect(lines()).toMatchObject([{ level: 'debug', status: 499 }])
  })
})
