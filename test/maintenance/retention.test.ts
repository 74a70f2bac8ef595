/** RETENTION_DAYS: whole UTC days go, from the log and from every rollup, and from nowhere else. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { compare, type Path } from '../compare.ts'
import { Reference, type Asked, type SentEvent } from '../reference.ts'
import { startService, type TestService } from '../support.ts'
import { someEvents } from '../ingest/events.ts'

vi.setConfig({ testTimeout: 90_000 })

const NOW = '2026-03-01T12:00:00.000Z'
/** 30 days before that, the day begun: 2026-01-30. */
const HORIZON = '2026-01-30T00:00:00.000Z'
const OPERATOR = { scope: 'analytics:operate' }

/** Ranges that lie before the horizon, after it, begin and end with it, and straddle it, also in other zones. */
const QUESTIONS: Array<[Path, Asked]> = [
  ['overview', { period: 'month' }],
  ['overview', { period: 'month', endDate: '2026-02-10' }],
  ['metrics', { period: 'month', startDate: '2025-12-01', endDate: '2026-03-01', timezone: 'Asia/Kathmandu' }],
  ['metrics', { period: 'day', startDate: '2026-01-28T13:14:15.167Z', endDate: '2026-02-01', assistant: ['assistant 1'] }],
  ['metrics', { period: 'week', startDate: '2025-12-01', endDate: '2026-01-30' }],
  ['rolling', { window: 90 }],
  ['rolling', { window: 15, endDate: '2026-02-07T01:02:03.004Z' }],
  ['events', { startDate: '2025-12-01', endDate: '2026-01-30T01:00:00Z', limit: 1_000 }],
  ['events', { startDate: '2025-12-01', endDate: '2026-02-20', user: ['user 3'], limit: 1_000 }],
  ['assistants', { startDate: '2026-01-20', endDate: '2026-02-10' }],
  ['users/top', { startDate: '2025-12-25T00:07:00.000Z', endDate: '2026-02-20T20:00', limit: 40 }],
  ['users/top', { startDate: '2025-12-01', endDate: '2026-01-30', limit: 40 }],
  ['users/top', { startDate: '2026-01-30', endDate: '2026-02-28', limit: 40 }],
  ['snapshots', { startDate: '2025-12-17', endDate: '2026-03-01', period: 'week' }],
]

const boundary: SentEvent[] = [-1, 0, 1].map((ms) => ({
  id: `boundary ${ms}`,
  eventType: 'tasksInitiated',
  timestamp: new Date(Date.parse(HORIZON) + ms).toISOString(),
  assistant: 'assistant 1',
  user: `boundary ${ms}`,
  cost: 0.5,
}))
const events = [...someEvents({ count: 4_000, from: '2025-12-01', to: NOW, seed: 9 }), ...boundary]
const isKept = ({ timestamp }: SentEvent) => Date.parse(timestamp) >= Date.parse(HORIZON)

let service: TestService
afterEach(() => service.close())

const ask = async (reference: Reference, of = service) => {
  for (const [path, asked] of QUESTIONS) await compare(of, reference, path, asked)
}
const reconciled = async () =>
  (await service.request('POST', '/operations/reconcile', OPERATOR)).body.data as { days: number; drift: unknown[] }
const advance = (of = service) => of.retention.advance((work) => of.writer.exclusive(work))

/** What is on disk, the oldest of each table: events first. The branches of UNION ALL come in any order. */
const oldest = async () =>
  (
    await service.rows<{ at: string }>(`SELECT toString(at) AS at FROM (
        SELECT 0 AS table, min(timestamp)::DateTime64(3, 'UTC') AS at FROM events
        UNION ALL SELECT 1, min(start)::DateTime64(3, 'UTC') FROM activity
        UNION ALL SELECT 2, min(start)::DateTime64(3, 'UTC') FROM user_activity)
      ORDER BY table`)
  ).map(({ at }) => at.slice(0, 19))

/** Filled while all spans were open, and sealed since: some of them straddle the horizon. */
async function filled(config: Record<string, string> = {}) {
  service = await startService({ now: '2025-11-20T00:00:00Z', config })
  service.setNow(NOW)
  await service.store(events)
  while (await service.writer.exclusive((guard) => service.seals.advance(guard)));
}

describe('the horizon', () => {
  test('is where every answer begins, exact to the millisecond, and nothing of before is on disk', async () => {
    await filled({ RETENTION_DAYS: '30' })
    await ask(new Reference(events, NOW))
    expect(service.retention.horizon).toBe(0)
    expect(service.complaints.filter((line) => line.includes('RETENTION_DAYS=30'))).toHaveLength(1)

    await advance()
    expect(service.retention.horizon).toBe(Date.parse(HORIZON))
    const kept = new Reference(events.filter(isKept), NOW)
    await ask(kept)
    for (const at of await oldest()) expect(at >= '2026-01-30 00:00:00').toBe(true)
    expect((await reconciled()).drift).toEqual([])

    // What comes for days that are kept is counted, late as it is, in sealed spans and in those that straddle.
    const late = someEvents({ count: 200, from: HORIZON, to: NOW, seed: 10, name: 'late' })
    await service.store(late)
    kept.add(late)
    await ask(kept)
    expect((await reconciled()).drift).toEqual([])

    const [receipt] = await service.submit([
      { ...(boundary[0] as SentEvent), id: 'too old' },
      { ...(boundary[1] as SentEvent), id: 'just right' },
    ])
    expect(receipt).toEqual({
      accepted: 1,
      duplicates: 0,
      rejected: [{ index: 0, message: `timestamp is too old: nothing before ${HORIZON} is kept` }],
    })
  })

  test('moves by whole days, when the clock does, and stays where it is through restarts and other settings', async () => {
    await filled({ RETENTION_DAYS: '30' })
    service.setNow('2026-03-01T23:59:59.999Z')
    await advance()
    expect(service.retention.horizon).toBe(Date.parse(HORIZON))
    service.setNow('2026-03-02T00:00:00.000Z')
    await advance()
    expect(service.retention.horizon).toBe(Date.parse('2026-01-31T00:00:00Z'))
    const kept = new Reference(
      events.filter(({ timestamp }) => timestamp >= '2026-01-31'),
      '2026-03-02T00:00:00.000Z',
    )
    await ask(kept)
    for (const days of ['0', '60']) {
      await service.stop()
      service = await startService({ now: '2026-03-02T00:00:00.000Z', from: service, config: { RETENTION_DAYS: days } })
      await advance()
      expect(service.retention.horizon).toBe(Date.parse('2026-01-31T00:00:00Z'))
      await ask(kept)
    }
  })

  test('is kept by all instances, and answers of before are dropped', async () => {
    await filled({ RETENTION_DAYS: '30', CLICKHOUSE_URL: 'http://shared', CACHE_MB: '8' })
    const dataDir = await mkdtemp(join(tmpdir(), 'analytics-test-data-'))
    const config = { CLICKHOUSE_URL: 'http://shared', CACHE_MB: '8' }
    const other = await startService({ now: NOW, from: { database: service.database, dataDir }, config })
    try {
      const whole = new Reference(events, NOW)
      for (const of of [service, other]) await ask(whole, of)
      await advance()
      const kept = new Reference(events.filter(isKept), NOW)
      await ask(kept)
      await vi.waitFor(() => expect(other.retention.horizon).toBe(Date.parse(HORIZON)), { timeout: 10_000 })
      await ask(kept, other)
      const [receipt] = await other.submit([{ ...(boundary[0] as SentEvent), id: 'too old' }])
      expect(receipt?.rejected).toHaveLength(1)
    } finally {
      await other.stop()
      await rm(dataDir, { recursive: true })
    }
  })

  test('is there as soon as it is recorded, whatever has become of the rows', async () => {
    await filled({ RETENTION_DAYS: '30' })
    await service.admin.command({ query: `INSERT INTO horizons (horizon) VALUES ('2026-01-30 00:00:00')` })
    await service.stop()
    service = await startService({ now: NOW, from: service, config: { RETENTION_DAYS: '30' } })
    await ask(new Reference(events.filter(isKept), NOW))
    expect((await reconciled()).drift).toEqual([])
    expect((await oldest())[0]?.slice(0, 10)).toBe('2025-12-01')
    await advance()
    for (const at of await oldest()) expect(at >= '2026-01-30 00:00:00').toBe(true)
    await ask(new Reference(events.filter(isKept), NOW))
  })
})

test('without the setting nothing is ever deleted', async () => {
  await filled()
  await advance()
  service.setNow('2099-01-01T00:00:00Z')
  await advance()
  service.setNow(NOW)
  expect([service.retention.horizon, service.complaints]).toEqual([0, []])
  await ask(new Reference(events, NOW))
})
