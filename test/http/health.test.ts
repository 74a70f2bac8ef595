/** /health/ready says what is missing, in time, whatever hangs. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair } from 'jose'
import { afterEach, expect, test, vi } from 'vitest'
import { Store } from '../../src/clickhouse/store.ts'
import { startService, type TestService } from '../support.ts'

const closing: Array<() => unknown> = []
afterEach(async () => {
  vi.restoreAllMocks()
  for (const close of closing.splice(0).reverse()) await close()
})

async function start(config: Record<string, string> = {}) {
  const service = await startService({ config })
  closing.push(() => service.close())
  return service
}

const ready = async (service: TestService) => {
  const response = await service.app.request('/health/ready')
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

const FINE = {
  status: 'ok',
  clickhouse: 'ok',
  schema: 'ok',
  ingestion: 'ok',
  keys: 'ok',
  idFilter: 'ok',
  queuedEvents: 0,
  rebuilding: [],
  drift: null,
}

/** The address of a key set; null is one that cannot be had. */
async function issuer(answer: string | null): Promise<string> {
  const server = createServer((_, response) => (answer === null ? response.writeHead(500).end() : response.end(answer)))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closing.push(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

test('it has all that it needs, and then is told to stop', async () => {
  const service = await start()
  await vi.waitFor(async () => expect(await ready(service)).toEqual({ status: 200, body: FINE }))
  service.drain()
  expect(await ready(service)).toEqual({ status: 503, body: { ...FINE, status: 'draining' } })
  // It still works.
  expect((await service.get('rolling')).status).toBe(200)
  expect((await service.app.request('/health/live')).status).toBe(200)
})

test('the disk is full: events cannot be stored', async () => {
  const service = await start()
  vi.spyOn(Store.prototype, 'assertWritten').mockImplementation(() => {
    throw new Error('as on a full disk')
  })
  expect(await ready(service)).toMatchObject({
    status: 503,
    body: { status: 'unavailable', ingestion: 'events cannot be stored' },
  })
})

test('ClickHouse hangs: said within the patience of whoever probes', async () => {
  const service = await start()
  vi.spyOn(Store.prototype, 'ping').mockReturnValue(new Promise(() => {}))
  vi.spyOn(Store.prototype, 'schemaVersion').mockReturnValue(new Promise(() => {}))
  const asked = performance.now()
  const { status, body } = await ready(service)
  expect(performance.now() - asked).toBeLessThan(2_900)
  expect([status, body]).toMatchObject([503, { status: 'unavailable', clickhouse: 'out of reach', schema: 'unknown' }])
})

test('the schema is older than this build, or gone', async () => {
  const service = await start()
  await service.admin.command({
    query: 'DELETE FROM migrations WHERE version = (SELECT max(version) FROM migrations)',
    clickhouse_settings: { lightweight_deletes_sync: '2' },
  })
  expect(await ready(service)).toMatchObject({ status: 503, body: { clickhouse: 'ok', schema: 'missing' } })
  await service.admin.command({ query: 'DROP TABLE migrations SYNC' })
  expect(await ready(service)).toMatchObject({ status: 503, body: { clickhouse: 'ok', schema: 'missing' } })
})

test('the ids of before are still being read: slower, and said, but ready', async () => {
  vi.spyOn(Store.prototype, 'hashesOfIds').mockReturnValue(new Promise(() => {}))
  const service = await start()
  expect(await ready(service)).toEqual({ status: 200, body: { ...FINE, idFilter: 'loading' } })
})

test('the issuer’s keys are fetched for the probe itself: without them no request can be answered', async () => {
  const { publicKey } = await generateKeyPair('ES256')
  const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k', alg: 'ES256' }] })
  const without = await start({ JWT_JWKS_URL: await issuer(null) })
  expect(await ready(without)).toMatchObject({ status: 503, body: { status: 'unavailable', keys: 'never fetched' } })
  const withKeys = await start({ JWT_JWKS_URL: await issuer(keys) })
  expect(await ready(withKeys)).toMatchObject({ status: 200, body: { status: 'ok', keys: 'ok' } })
})
