/** A part that a full disk has spoilt: the service goes back to what it was merged from, without being told. */
import { createClient } from '@clickhouse/client'
import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { startEmbedded } from '../../src/clickhouse/embedded.ts'
import { readConfig } from '../../src/config.ts'
import { signLocalToken } from '../../src/http/local-key.ts'
import { createService } from '../../src/service.ts'

const START = Date.parse('2026-02-20T10:00:00Z')

test('a part whose marks are gone costs a restart of ClickHouse, and no event', { timeout: 60_000 }, async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-broken-'))
  const server = await startEmbedded({ dataDir, log: () => {} })
  const logged: string[] = []
  try {
    const config = readConfig({ DATA_DIR: dataDir, CACHE_MB: '0' })
    const service = await createService({
      config,
      clickhouse: { ...server, restart: () => server.restart(), stop: () => Promise.resolve() },
      database: 'analytics',
      log: (_level, message) => void logged.push(message),
    })
    const admin = createClient({ url: server.url, ...server.admin, database: 'analytics' })
    try {
      const token = await signLocalToken(service.localKey!, { org: 'acme', scope: 'analytics:read analytics:write' }, config)
      const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' }
      const send = async (batch: number) => {
        const events = Array.from({ length: 100 }, (_, n) => ({
          id: `${batch}-${n}`,
          eventType: 'incomingMessages',
          timestamp: new Date(START + 1000 * (100 * batch + n)).toISOString(),
          assistant: 'Rex',
          user: 'ann',
        }))
        const response = await service.app.request('/analytics/events', { method: 'POST', headers, body: JSON.stringify(events) })
        return response.status
      }
      // By user: that is read from the log.
      const asked = '/analytics/events?startDate=2026-02-20&endDate=2026-02-21&user=ann&limit=1000'
      const listed = async () => {
        const response = await service.app.request(asked, { headers })
        return response.status === 200 ? ((await response.json()) as { data: unknown[] }).data.length : response.status
      }
      for (const batch of [0, 1, 2]) expect(await send(batch)).toBe(200)
      await admin.command({ query: 'OPTIMIZE TABLE events FINAL' })
      const result = await admin.query({
        query: `SELECT path FROM system.parts WHERE database = 'analytics' AND table = 'events' AND active`,
        format: 'JSONEachRow',
      })
      const parts = await result.json<{ path: string }>()
      expect(parts).toHaveLength(1)
      const path = parts[0]!.path
      const marks = (await readdir(path)).filter((name) => /^data\.c?mrk/.test(name))
      expect(marks).toHaveLength(1)
      await truncate(join(path, marks[0]!), 0)

      expect(await listed()).toBe(503)
      expect(logged.filter((message) => message.includes('cannot be read'))).toHaveLength(1)
      const deadline = Date.now() + 30_000
      let found = await listed()
      for (; found !== 300 && Date.now() < deadline; found = await listed()) await sleep(200)
      expect(found).toBe(300)
      expect(await send(3)).toBe(200)
      expect(await listed()).toBe(400)
    } finally {
      await admin.close()
      await service.close()
    }
  } finally {
    await server.stop()
    await rm(dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  }
})
