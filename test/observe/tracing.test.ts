import { beforeAll, describe, expect, test, vi } from 'vitest'
import { startService, type TestService } from '../support.ts'
import { startCollector, type TakenSpan } from './collector.ts'

/** True once the packages of the exporter were loaded. */
const loaded = vi.hoisted(() => ({ sdk: false }))
vi.mock('@opentelemetry/sdk-trace-base', async (original) => {
  loaded.sdk = true
  return original()
})

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const CALLER = 'b7ad6b7169203331'
const RANGE = { startDate: '2026-02-01', endDate: '2026-02-02' }
const event = (id: string) => ({
  id: `secret ${id}`,
  eventType: 'incomingMessages',
  timestamp: '2026-02-01T10:00:00Z',
  assistant: 'secret-assistant',
  user: 'secret-user',
})

const headers = (id: string, more: object = {}) => ({ headers: { 'X-Request-Id': id, ...more } })
const settings = (url: string) => ({ config: { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: url } })

test('nothing is loaded where no endpoint is set', async () => {
  const service = await startService()
  await service.get('rolling')
  await service.close()
  expect(loaded.sdk).toBe(false)
})

describe('with a collector', () => {
  let collector: Awaited<ReturnType<typeof startCollector>>
  let service: TestService
  let spans: TakenSpan[]
  const of = (requestId: string) => spans.find(({ attributes }) => attributes['agnt.request_id'] === requestId) as TakenSpan
  const childrenOf = ({ spanId, traceId }: TakenSpan) =>
    spans.filter((span) => span.parentSpanId === spanId && span.traceId === traceId)

  beforeAll(async () => {
    collector = await startCollector()
    service = await startService({ config: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url } })
    const traceparent = `00-${TRACE}-${CALLER}-01`
    await service.post([event('a')], headers('post'))
    await service.get('rolling', { endDate: '2026-02-03', user: 'secret-user' }, headers('continued', { traceparent }))
    await service.get('events', { ...RANGE, assistant: 'secret-assistant' }, headers('own'))
    await service.get('rolling', {}, headers('unsampled', { traceparent: `00-${TRACE}-${CALLER}-00` }))
    await service.get('rolling', {}, headers('nonsense', { traceparent: `00-${'0'.repeat(32)}-${CALLER}-01` }))
    await service.get('events', { ...RANGE, format: 'csv' }, headers('export'))
    await service.request('GET', '/secret-path?user=secret-user', headers('nothing'))
    const call = {
      jsonrpc: '2.0',
      id: 1,
      method: 'tools/call',
      params: { name: 'metrics', arguments: { period: 'day', ...RANGE } },
    }
    await service.request('POST', '/mcp', {
      headers: { 'X-Request-Id': 'agent', 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
      body: JSON.stringify(call),
    })
    await service.app.request('/health/ready')
    await service.app.request('/metrics')
    await service.admin.command({ query: 'RENAME TABLE activity TO hidden' })
    await service.get('rolling', { endDate: '2026-02-05' }, headers('failing'))
    await service.admin.command({ query: 'RENAME TABLE hidden TO activity' })
    // Two batches that wait for the same turn of the lane: the first is being stored while they come.
    await Promise.all(['b', 'c', 'd'].map((id) => service.post([event(id)], headers(`post ${id}`.replace(' ', '-')))))
    await service.close()
    await collector.close()
    ;({ spans } = collector)
  })

  test('they come as OTLP, from a service with a name', () => {
    expect([...collector.paths]).toEqual(['POST /v1/traces'])
    expect(collector.resource()).toMatchObject({
      'service.name': 'agnt-analytics',
      'service.version': expect.stringMatching(/^\d/),
    })
  })

  test('a request continues its caller’s trace, and its queries are its children', () => {
    const span = of('continued')
    expect(span).toMatchObject({
      name: 'GET /analytics/rolling',
      kind: 2,
      traceId: TRACE,
      parentSpanId: CALLER,
      status: 0,
      attributes: {
        'http.request.method': 'GET',
        'http.route': '/analytics/rolling',
        'http.response.status_code': 200,
        'agnt.request_id': 'continued',
      },
    })
    const queries = childrenOf(span)
    expect(queries.length).toBeGreaterThan(0)
    for (const query of queries) {
      expect(query.kind).toBe(3)
      expect(query.attributes).toEqual({
        'db.system.name': 'clickhouse',
        'db.query.summary': query.name,
        'agnt.query_id': expect.stringMatching(new RegExp(`^${query.name}-[0-9a-f-]{36}$`)),
        'agnt.read_rows': expect.any(Number),
        'agnt.read_bytes': expect.any(Number),
      })
      // Each start is of the wall clock, to the millisecond, and the way to the end of another: where the wall clock is set
      // right between two starts, they are apart by that (3 ms were seen).
      const step = 20_000_000n
      expect(BigInt(query.startTimeUnixNano) + step).toBeGreaterThanOrEqual(BigInt(span.startTimeUnixNano))
      expect(BigInt(query.endTimeUnixNano)).toBeLessThanOrEqual(BigInt(span.endTimeUnixNano) + step)
    }
  })

  test('a request without a trace, or with one that is none, begins its own', () => {
    for (const id of ['own', 'nonsense']) {
      expect(of(id).parentSpanId ?? '').toBe('')
      expect(of(id).traceId).not.toBe(TRACE)
      expect(childrenOf(of(id)).length).toBeGreaterThan(0)
    }
  })

  test('what the caller does not record is not recorded', () => expect(of('unsampled')).toBeUndefined())

  test('an export lasts until it is sent', () => {
    expect(of('export').attributes).toMatchObject({ 'agnt.export': 'ok', 'http.response.body.size': expect.any(Number) })
    expect(childrenOf(of('export')).length).toBeGreaterThan(0)
  })

  test('an agent’s call of a tool is a request within its request', () => {
    const [agent, tool] = spans
      .filter(({ attributes }) => attributes['agnt.request_id'] === 'agent')
      .sort((a) => (a.name === 'POST /mcp' ? -1 : 1))
    expect([agent?.name, tool?.name]).toEqual(['POST /mcp', 'GET /analytics/metrics'])
    expect(tool?.parentSpanId).toBe(agent?.spanId)
  })

  test('a failure says so, and so does its query', () => {
    expect(of('failing')).toMatchObject({ status: 2, attributes: { 'error.type': '503', 'http.response.status_code': 503 } })
    expect(childrenOf(of('failing'))).toMatchObject([{ status: 2, attributes: { 'error.type': 'failed' } }])
  })

  test('a group that is stored is in the trace of its first batch, with its inserts, and linked to the others', () => {
    const [group, ...more] = childrenOf(of('post'))
    expect([group?.name, group?.kind, more]).toEqual(['store events', 1, []])
    expect(group?.attributes).toEqual({ 'agnt.batches': 1, 'agnt.events': 1 })
    expect(childrenOf(group as TakenSpan).map(({ name }) => name)).toContain('insert_events')
    const posts = ['post-b', 'post-c', 'post-d'].map(of)
    const groups = posts.flatMap(childrenOf)
    const told = [
      ...groups.map(({ parentSpanId }) => parentSpanId),
      ...groups.flatMap(({ links }) => links.map(({ spanId }) => spanId)),
    ]
    expect(told.sort()).toEqual(posts.map(({ spanId }) => spanId).sort())
    expect(groups.length).toBeLessThan(3)
    expect(groups.reduce((sum, { attributes }) => sum + Number(attributes['agnt.events']), 0)).toBe(3)
  })

  test('probes are no traces', () => {
    expect(spans.filter(({ kind, name }) => kind === 2 && /health|metrics$/.test(name)).map(({ name }) => name)).toEqual([
      'GET /analytics/metrics',
    ])
  })

  test('nothing in them names a company, a user, an assistant, an address or SQL', () => {
    expect(of('nothing')).toMatchObject({
      name: 'GET none',
      attributes: { 'http.route': 'none', 'http.response.status_code': 404 },
    })
    expect(collector.raw()).not.toMatch(/secret|acme|SELECT|INSERT|Bearer|eyJ|startDate/)
  })
})

describe('a collector', () => {
  test('that is away is told of, and keeps nobody from working or ending', async () => {
    const gone = await startCollector()
    await gone.close()
    const service = await startService(settings(`${gone.url}/v1/traces`))
    expect((await service.get('rolling')).status).toBe(200)
    const ending = performance.now()
    await service.close()
    expect(performance.now() - ending).toBeLessThan(3_500)
    const told = service.complaints.filter((line) => line.includes('traces cannot be sent'))
    expect(told).toHaveLength(1)
    expect(told[0]).toMatch(/ECONNREFUSED|took too long/)
  })

  test('that never answers delays the end by two seconds', async () => {
    const silent = await startCollector({ silent: true })
    const service = await startService(settings(`${silent.url}/anywhere`))
    await service.get('rolling')
    const ending = performance.now()
    await service.close()
    const took = performance.now() - ending
    await silent.close()
    expect(took).toBeGreaterThan(1_900)
    expect(took).toBeLessThan(4_000)
  })
})
