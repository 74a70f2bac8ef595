/** A caller that hangs up takes its query along, whatever it has asked: seen from ClickHouse, over a real connection. */
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ENDPOINTS } from '../../src/analytics/endpoints/index.ts'
import type { FileQuery, Query } from '../../src/clickhouse/query.ts'
import { type Asker, Store } from '../../src/clickhouse/store.ts'
import { listen } from '../../src/http/server.ts'
import { startService, type TestService } from '../support.ts'
import { tenantSql } from '../../src/clickhouse/tenant-filter.ts'

const ENDLESS = tenantSql(
  'SELECT sum(number) AS n FROM (SELECT number, {tenant:UUID} AS tenant FROM numbers(1000000000000000)) WHERE tenant = {tenant:UUID}',
)
const RANGE = 'startDate=2026-02-01&endDate=2026-03-01'

/** What is asked of each endpoint beside nothing. */
const QUERIES: Partial<Record<keyof typeof ENDPOINTS, readonly string[]>> = {
  '/analytics/metrics': [`period=day&${RANGE}`],
  '/analytics/events': [RANGE, `${RANGE}&format=csv`, `${RANGE}&format=ndjson`, `${RANGE}&format=parquet`],
  '/analytics/assistants': [RANGE],
  '/analytics/users/top': [RANGE],
  '/analytics/snapshots': [RANGE, `${RANGE}&format=parquet`],
}
const ASKED = (Object.keys(ENDPOINTS) as Array<keyof typeof ENDPOINTS>).flatMap((path) =>
  (QUERIES[path] ?? ['']).map((query) => `${path}?${query}`),
)

/** Asks something that takes for ever in place of every question. */
class EndlessStore extends Store {
  override read<Row>(asker: Asker, query: Query<Row>): Promise<Row[]> {
    return super.read(asker, { ...query, sql: ENDLESS })
  }

  override stream(asker: Asker, query: FileQuery) {
    return super.stream(asker, { ...query, sql: ENDLESS })
  }
}

let service: TestService
let server: Server
beforeAll(async () => {
  service = await startService({ makeStore: (options) => new EndlessStore(options) })
  await service.store([
    { id: '1', eventType: 'incomingMessages', timestamp: '2026-02-22T10:00:00Z', assistant: 'Rex', user: 'ann' },
  ])
  server = await listen(service.app.fetch, { host: '127.0.0.1', port: 0 })
})
afterAll(async () => {
  server.closeAllConnections()
  server.close()
  await service.close()
})

const running = async () => {
  const rows = await service.rows<{ id: string }>(
    `SELECT query_id AS id FROM system.processes WHERE current_database = currentDatabase() AND query LIKE '%FROM numbers(1000000000000000)%'
       AND query NOT LIKE '%system.processes%'`,
  )
  return rows.map(({ id }) => id)
}

test.each(ASKED)('GET %s', async (path) => {
  const caller = new AbortController()
  const { port } = server.address() as AddressInfo
  const asking = fetch(`http://127.0.0.1:${port}${path}`, {
    signal: caller.signal,
    headers: { Authorization: await service.authorization({}) },
  })
  asking.catch(() => {})
  await vi.waitFor(async () => expect(await running()).not.toEqual([]), { timeout: 10_000, interval: 50 })
  caller.abort()
  await expect(asking).rejects.toThrow(/abort/i)
  await vi.waitFor(async () => expect(await running()).toEqual([]), { timeout: 5_000, interval: 50 })
})
