import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest'
import * as v from 'valibot'
import { Store } from '../../src/clickhouse/store.ts'
import { tenantKey } from '../../src/domain/tenant.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { startService, type TestService } from '../support.ts'
import { authorization } from '../tokens.ts'
import { samplesOf, valueOf, type Sample } from './exposition.ts'
import { tenantSql, type TenantSql } from '../../src/clickhouse/tenant-filter.ts'

const RANGE = { startDate: '2026-02-01', endDate: '2026-02-02' }
const TOKEN = 'of-a-scraper-0123456789'

let made = 0
const event = (fields: object = {}) => ({
  id: `event ${made++}`,
  eventType: 'incomingMessages',
  timestamp: '2026-02-01T10:00:00Z',
  assistant: 'secret-assistant',
  user: 'secret-user',
  ...fields,
})

const started: TestService[] = []
async function start(config: Record<string, string> = {}) {
  const service = await startService({ config })
  started.push(service)
  return service
}
afterEach(async () => {
  for (const service of started.splice(0)) await service.close()
})

async function scrape(service: TestService): Promise<Sample[]> {
  const { status, body } = await service.request('GET', '/metrics', { headers: { Authorization: `Bearer ${TOKEN}` } })
  expect(status).toBe(200)
  return samplesOf(body)
}

const bearer = (token: string) => ({ headers: { Authorization: token } })

const named = (name: string, sql: TenantSql) => ({ name, sql, params: {}, row: v.unknown() })

describe('who may read /metrics', () => {
  test('everybody who reaches a service that is for this machine alone', async () => {
    const service = await start()
    const { status, headers, body } = await service.request('GET', '/metrics', bearer(''))
    expect(status).toBe(200)
    expect(headers.get('Content-Type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(headers.get('Cache-Control')).toBe('no-store')
    expect(body).toMatch(/^agnt_build_info\{version="\d+\.\d+\.\d+"\} 1$/m)
  })

  test('with METRICS_TOKEN, who bears it or a token with the scope analytics:operate, and no company', async () => {
    const service = await start({ METRICS_TOKEN: TOKEN })
    const ask = async (options: object) => (await service.request('GET', '/metrics', options)).status
    expect(await ask(bearer(''))).toBe(401)
    expect(await ask(bearer(TOKEN))).toBe(401)
    expect(await ask(bearer(`Bearer ${TOKEN}x`))).toBe(401)
    expect(await ask({})).toBe(403)
    expect(await ask({ scope: 'analytics:operate' })).toBe(200)
    expect(await ask(bearer(`Bearer ${TOKEN}`))).toBe(200)
  })

  test('nobody without a token where tokens are somebody else’s, on loopback too', async () => {
    const service = await start({ JWT_SECRET: 'x'.repeat(32) })
    const response = await service.app.request('/metrics')
    expect([response.status, await response.json()]).toMatchObject([401, { error: { code: 'unauthorized' } }])
  })
})

describe('what is measured', () => {
  let service: TestService
  beforeAll(async () => {
    service = await startService({ config: { METRICS_TOKEN: TOKEN, CACHE_MB: '8', RATE_LIMIT_PER_SECOND: '200' } })
  })
  afterAll(() => service.close())

  test('requests, by the pattern of their route, and all unknown addresses as one', async () => {
    await service.data('metrics', { period: 'day', ...RANGE, user: 'secret-user' })
    await service.get('metrics', { period: 'year' })
    await service.data('users/top', RANGE)
    for (const path of ['/secret-path', '/analytics/secret', '/analytics/users/secret', '/.env'])
      await service.request('GET', path, {})
    await service.request('BREW', '/docs', {})
    await service.request('GET', '/docs', {})
    await service.request('GET', '/dashboard/app-secret.js', {})
    await service.request('GET', '/', {})
    const samples = await scrape(service)
    const count = (labels: Record<string, string>) => valueOf(samples, 'agnt_http_request_duration_seconds_count', labels)
    expect(count({ route: '/analytics/metrics', method: 'GET', status: '200' })).toBe(1)
    expect(count({ route: '/analytics/metrics', method: 'GET', status: '400' })).toBe(1)
    expect(count({ route: '/analytics/users/top', method: 'GET', status: '200' })).toBe(1)
    expect(count({ route: '/analytics/users/:user', method: 'GET', status: '405' })).toBe(1)
    expect(count({ route: 'none', method: 'GET', status: '404' })).toBe(3)
    expect(count({ method: 'other' })).toBe(1)
    expect(count({ route: '/docs', method: 'GET', status: '200' })).toBe(1)
    expect(count({ route: '/', method: 'GET', status: '200' })).toBe(1)
    expect(count({ route: '/dashboard/:name{.+\\\\.(js|css|svg)}', status: '404' })).toBe(1)
    expect(valueOf(samples, 'agnt_http_request_duration_seconds_sum', { route: '/analytics/metrics' })).toBeGreaterThan(0)
  })

  test('events, their groups, and the queries of both ways', async () => {
    const before = await scrape(service)
    const [first, second] = [event(), event()]
    await service.post([first, second])
    await service.post([first, { ...second, user: 'another' }, event(), { nonsense: 1 }])
    await service.data('events', RANGE)
    const samples = await scrape(service)
    const added = (name: string, labels?: Record<string, string>) =>
      (valueOf(samples, name, labels) ?? NaN) - (valueOf(before, name, labels) ?? 0)
    expect(added('agnt_events_total', { outcome: 'accepted' })).toBe(3)
    expect(added('agnt_events_total', { outcome: 'duplicate' })).toBe(1)
    expect(added('agnt_events_total', { outcome: 'rejected' })).toBe(2)
    expect(added('agnt_ingest_group_duration_seconds_count', { outcome: 'ok' })).toBe(2)
    expect(added('agnt_ingest_group_duration_seconds_count', { outcome: 'failed' })).toBe(0)
    // What was refused before it came to the lane is no part of a group.
    expect(added('agnt_ingest_group_events_sum')).toBe(5)
    expect(added('agnt_ingest_queue_duration_seconds_count')).toBe(2)
    expect(added('agnt_clickhouse_query_duration_seconds_count', { query: 'insert_events', outcome: 'ok' })).toBe(2)
    expect(added('agnt_clickhouse_query_duration_seconds_count', { query: 'events', outcome: 'ok' })).toBe(1)
    // The page's three rows are in one granule, which is read whole.
    expect(added('agnt_clickhouse_read_rows_total', { query: 'events' })).toBeGreaterThanOrEqual(3)
    expect(added('agnt_clickhouse_read_bytes_total', { query: 'events' })).toBeGreaterThan(0)
    expect(valueOf(samples, 'agnt_id_filter_complete')).toBe(1)
    expect(valueOf(samples, 'agnt_ingest_healthy')).toBe(1)
    expect(valueOf(samples, 'agnt_ingest_queue_events')).toBe(0)
    expect(valueOf(samples, 'agnt_ingest_reserved_bytes')).toBe(0)
  })

  test('memory reserved for a body that is still coming', async () => {
    const body = new ReadableStream({
      async start(controller) {
        controller.enqueue(new TextEncoder().encode('{'))
        await sleep(300)
        controller.close()
      },
    })
    const asked = service.app.request('/analytics/events', {
      method: 'POST',
      headers: {
        Authorization: await authorization(service),
        'Content-Type': 'application/x-ndjson',
        'Content-Length': '1000',
      },
      body,
      duplex: 'half',
    } as RequestInit)
    await sleep(100)
    expect(valueOf(await scrape(service), 'agnt_ingest_reserved_bytes')).toBe(3_000)
    await asked
    expect(valueOf(await scrape(service), 'agnt_ingest_reserved_bytes')).toBe(0)
  })

  test('queries that fail, those that nobody waits for any more, and streams', async () => {
    const told = new Metrics()
    const store = new Store({
      ...inject('clickhouse'),
      database: service.database,
      queryTimeoutSeconds: 20,
      queryMemoryMb: 1_000,
      onQuery: told.query,
    })
    const controller = new AbortController()
    setTimeout(() => controller.abort(), 200)
    const nothing = tenantSql('SELECT nothing FROM events WHERE tenant = {tenant:UUID}')
    await expect(store.read({ tenant: tenantKey('acme') }, named('failing', nothing))).rejects.toThrow()
    const endless = tenantSql(
      'SELECT sum(number) FROM (SELECT number, {tenant:UUID} AS tenant FROM numbers(1000000000000)) WHERE tenant = {tenant:UUID}',
    )
    await expect(
      store.read({ tenant: tenantKey('acme'), signal: controller.signal }, named('cancelled', endless)),
    ).rejects.toThrow()
    const numbers = tenantSql(
      'SELECT number FROM (SELECT number, {tenant:UUID} AS tenant FROM numbers(3000000)) WHERE tenant = {tenant:UUID}',
    )
    for await (const chunk of await store.stream(
      { tenant: tenantKey('acme') },
      { ...named('streamed', numbers), format: 'TSVRaw' },
    ))
      void chunk
    const left = await store.stream({ tenant: tenantKey('acme') }, { ...named('left', numbers), format: 'TSVRaw' })
    await left.next()
    await left.return?.()
    await store.close()
    const samples = samplesOf(await told.registry.metrics())
    const count = (query: string, outcome: string) =>
      valueOf(samples, 'agnt_clickhouse_query_duration_seconds_count', { query, outcome })
    expect(count('failing', 'failed')).toBe(1)
    expect(count('cancelled', 'cancelled')).toBe(1)
    expect(count('streamed', 'ok')).toBe(1)
    expect(count('left', 'cancelled')).toBe(1)
    const rows = valueOf(samples, 'agnt_clickhouse_read_rows_total', { query: 'streamed' }) as number
    expect(rows).toBeGreaterThan(0)
    // What it reads later is in no header.
    expect(rows).toBeLessThan(3_000_000)
  })

  test('the cache: what was found, kept, and asked for by several at once', async () => {
    const before = await scrape(service)
    const ask = () => service.data('rolling', { window: 3, endDate: '2026-02-02' })
    await Promise.all([ask(), ask(), ask()])
    await ask()
    const samples = await scrape(service)
    const added = (result: string) =>
      (valueOf(samples, 'agnt_cache_answers_total', { result }) as number) -
      (valueOf(before, 'agnt_cache_answers_total', { result }) as number)
    expect([added('miss'), added('shared'), added('hit')]).toEqual([1, 2, 1])
    expect(valueOf(samples, 'agnt_cache_entries')).toBeGreaterThanOrEqual(1)
    expect(valueOf(samples, 'agnt_cache_bytes')).toBeGreaterThan(500)
  })

  test('exports, with their bytes', async () => {
    const before = await scrape(service)
    const { body } = await service.get('events', { ...RANGE, format: 'csv' })
    const samples = await scrape(service)
    expect(valueOf(samples, 'agnt_export_bytes_total')).toBe((valueOf(before, 'agnt_export_bytes_total') as number) + body.length)
    expect(valueOf(samples, 'agnt_export_duration_seconds_count', { outcome: 'ok' })).toBe(1)
    expect(valueOf(samples, 'agnt_exports')).toBe(0)
  })

  test('requests turned away, by reason', async () => {
    const asked = await Promise.all(Array.from({ length: 250 }, () => service.get('metrics', { period: 'year' })))
    const refused = asked.filter(({ status }) => status === 429).length
    expect(refused).toBeGreaterThan(0)
    expect(valueOf(await scrape(service), 'agnt_refused_total', { reason: 'rate' })).toBe(refused)
  })

  test('drift, and when it was looked for', async () => {
    const before = await scrape(service)
    expect(valueOf(before, 'agnt_self_check_timestamp_seconds')).toBe(0)
    service.setNow('2026-02-02T12:00:00Z')
    await service.admin.command({
      query: 'DELETE FROM activity WHERE level = 0',
      clickhouse_settings: { lightweight_deletes_sync: '2' },
    })
    await service.selfCheck.run()
    const samples = await scrape(service)
    expect(valueOf(samples, 'agnt_drift')).toBeGreaterThan(0)
    expect(valueOf(samples, 'agnt_self_check_timestamp_seconds')).toBe(Date.parse('2026-02-02T12:00:00Z') / 1_000)
    expect(valueOf(samples, 'agnt_self_check_failures_total')).toBe(0)
  })

  test('and nothing of it names a company, a user, an assistant or an address', async () => {
    const { body } = await service.request('GET', '/metrics', { headers: { Authorization: `Bearer ${TOKEN}` } })
    expect(body).not.toMatch(/secret|acme|another|event \d/)
    const labels = new Set(
      samplesOf(body)
        .filter(({ name }) => name.startsWith('agnt_'))
        .flatMap((sample) => Object.keys(sample.labels)),
    )
    expect([...labels].sort()).toEqual([
      'le',
      'method',
      'outcome',
      'query',
      'reason',
      'result',
      'route',
      'state',
      'status',
      'version',
    ])
    // What a process is like is Node's and prom-client's to say.
    expect(valueOf(samplesOf(body), 'process_resident_memory_bytes')).toBeGreaterThan(1e6)
    expect(valueOf(samplesOf(body), 'nodejs_eventloop_lag_p99_seconds')).toBeDefined()
  })
})
