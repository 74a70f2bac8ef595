/**
 * Coarse levels that are sealed after the events came, span by span while the clock goes on, with stragglers for spans
 * that are sealed already. Answers have to stay right before, between and after; real-traffic.test.ts is the other way
 * round, all levels sealed before the first event comes.
 */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { COARSE, CUTS } from '../../src/rollups/granularities.ts'
import { Store } from '../../src/clickhouse/store.ts'
import { Names } from '../../src/ids/dictionary.ts'
import { compare, type Path } from '../compare.ts'
import { Reference, type Asked, type SentEvent } from '../reference.ts'
import { startService, type TestService } from '../support.ts'
import { excerpt } from '../traffic.ts'

// Days would be read where users are as few as here, so two of three questions are told of more.
let questions = 0
vi.spyOn(Names.prototype, 'userCount').mockImplementation(() => (questions++ % 3 === 0 ? 0 : 1e9))

const DAY_MS = 86_400_000
const BEGIN = '2004-12-20T00:00:00.000Z'

const events = excerpt().filter(({ timestamp }) => timestamp < '2006')
const isLate = (_: unknown, index: number) => index % 11 === 0

/** Ranges that lie within, end with and reach over spans of 4, 16 and 64 days. */
const QUESTIONS: Array<[Path, Asked]> = [
  ['metrics', { period: 'month', startDate: '2004-12-01', endDate: '2006-04-01', timezone: 'Asia/Kathmandu' }],
  ['metrics', { period: 'week', startDate: '2005-11-30', endDate: '2006-01-09', assistant: ['ubotu'] }],
  ['rolling', { window: 90 }],
  ['rolling', { window: 90, endDate: '2005-12-27T13:14:15.167Z', assistant: ['ubotu', 'channel_ubuntu'] }],
  ['overview', { period: 'month', endDate: '2005-12-06' }],
  ['events', { startDate: '2004-12-01', endDate: '2005-12-04T12:34:56.789Z', limit: 5 }],
  ['assistants', { startDate: '2005-06-12T10:00', endDate: '2005-12-05', timezone: 'America/New_York' }],
  ['users/top', { startDate: '2004-12-25T00:07:00.000Z', endDate: '2005-12-04T20:00', limit: 40 }],
  ['users/top', { startDate: '2004-12-01', endDate: '2006-04-01', limit: 40 }],
  ['snapshots', { startDate: '2005-05-17', endDate: '2005-12-05', period: 'month' }],
  ['snapshots', { startDate: '2005-10-17', endDate: '2005-12-05', period: 'day', timezone: 'Asia/Kathmandu' }],
  // Clocks change within.
  [
    'metrics',
    { period: 'day', startDate: '2005-09-20T10:20:30.456', endDate: '2005-12-05T23:59:59', timezone: 'America/New_York' },
  ],
]

async function ask(service: TestService, reference: Reference, hint: string) {
  for (const [path, asked] of QUESTIONS) await compare(service, reference, path, asked, hint)
}

/** What ClickHouse holds in the levels that are sealed, and what the raw log says it should be. */
async function coarseLevels(service: TestService) {
  const figures = `toUInt64(sum(incoming_messages + outgoing_messages + tasks_initiated + tasks_completed)) AS events,
    sum(cost_nanos) AS cost, sum(input_tokens) AS input, sum(output_tokens) AS output, toString(max(last_at)) AS last`
  const distinct = 'uniqExact(user_no) AS users'
  const found = {
    fleet: await service.rows(`SELECT level, ${figures}, groupBitmapMerge(users) AS users FROM activity
      WHERE level IN (3, 4, 5) AND assistant_no = 0 GROUP BY level ORDER BY level`),
    assistants: await service.rows(`SELECT level, ${figures}, groupBitmapMerge(users) AS users FROM activity
      WHERE level IN (3, 4, 5) AND assistant_no > 0 GROUP BY level ORDER BY level`),
    users: await service.rows(`SELECT level, ${figures}, ${distinct} FROM user_activity
      WHERE level > 2 GROUP BY level ORDER BY level`),
    pieces: await service.rows(`SELECT level - 100 AS quarters, toUnixTimestamp(start) AS piece, ${figures},
      groupBitmapMerge(users) AS users, length(groupUniqArrayArray(assistants)) AS assistants
      FROM activity WHERE level > 100 AND assistant_no = 0 GROUP BY level, start ORDER BY quarters, piece`),
  }
  // Each event once for every cut, before it or from it on.
  const pieces = await service.rows(`SELECT toInt16(arrayJoin([${CUTS.join(', ')}])) AS quarters,
      toUInt32(intDiv(toUnixTimestamp(timestamp), 86400) * 86400
        + if(toUnixTimestamp(timestamp) % 86400 < quarters * 900, 0, quarters * 900)) AS piece,
      count() AS events, sum(cost_nanos) AS cost, sum(input_tokens) AS input, sum(output_tokens) AS output,
      toString(max(timestamp)) AS last, uniqExact(user_no) AS users, uniqExact(assistant_no) AS assistants
      FROM events WHERE timestamp < toDateTime64(${service.seals.sealedUntil[0]}, 3, 'UTC')
      GROUP BY quarters, piece ORDER BY quarters, piece`)
  const counted = COARSE.map(
    ({ id }, at) => `SELECT toUInt8(${id}) AS level, count() AS events, sum(cost_nanos) AS cost, sum(input_tokens) AS input,
      sum(output_tokens) AS output, toString(max(timestamp)) AS last, ${distinct}
      FROM events WHERE timestamp < toDateTime64(${service.seals.sealedUntil[at + 1]}, 3, 'UTC') HAVING events > 0`,
  )
  const raw = await service.rows(`SELECT * FROM (${counted.join(' UNION ALL ')}) ORDER BY level`)
  return { found, wanted: { fleet: raw, assistants: raw, users: raw, pieces } }
}

describe('sealing step by step', () => {
  let service: TestService
  let reference: Reference

  const moveTo = (now: number) => {
    reference.now = now
    service.setNow(now)
  }
  const sealAll = async () => {
    let steps = 0
    while (await service.writer.exclusive((guard) => service.seals.advance(guard))) steps++
    return steps
  }

  beforeAll(async () => {
    service = await startService({ now: BEGIN })
    reference = new Reference([], BEGIN)
  })
  afterAll(() => service.close())

  test('answers stay right while events come in, spans are sealed behind them, and stragglers follow', async () => {
    const sealedAtFirst = service.seals.sealedUntil
    const stragglers: SentEvent[] = []
    const last = Date.parse((events.at(-1) as SentEvent).timestamp)
    let steps = 0
    for (let sent = 0, turn = 0; reference.now < last + 90 * DAY_MS; turn++) {
      moveTo(reference.now + 11 * DAY_MS + 3_723_456)
      const come = events.slice(sent).filter(({ timestamp }) => Date.parse(timestamp) < reference.now)
      sent += come.length
      const punctual = come.filter((event, index) => !isLate(event, index))
      stragglers.push(...come.filter(isLate))
      // Those that waited two turns or more are late for the spans of 4 days at least.
      const now = turn % 3 === 0 ? stragglers.splice(0, 25) : []
      if (punctual.length + now.length > 0) await service.store([...punctual, ...now])
      reference.add([...punctual, ...now])
      if (turn % 9 === 0) await ask(service, reference, `before sealing, turn ${turn}`)
      steps += await sealAll()
      if (turn % 9 === 0 || now.length > 0) await ask(service, reference, `after sealing, turn ${turn}`)
    }
    expect(steps).toBeGreaterThan(500)
    service.seals.sealedUntil.forEach((until, at) => expect(until).toBeGreaterThan((sealedAtFirst[at] ?? 0) + 300 * 86_400))

    await service.store(stragglers)
    reference.add(stragglers)
    await ask(service, reference, 'with the last stragglers')
    const { found, wanted } = await coarseLevels(service)
    expect(found).toEqual(wanted)
  }, 120_000)

  test('a service that starts anew knows how far the levels are, and counts late events once', async () => {
    const { sealedUntil } = service.seals
    await service.stop()
    service = await startService({ now: new Date(reference.now).toISOString(), from: service })
    expect(service.seals.sealedUntil).toEqual(sealedUntil)
    await ask(service, reference, 'after the restart')

    const late = events.slice(0, 40).map((event, index) => ({ ...event, id: `late ${index}`, user: `late user ${index % 7}` }))
    await service.store(late)
    reference.add(late)
    const [again] = await service.submit(late)
    expect(again).toEqual({ accepted: 0, duplicates: 40, rejected: [] })
    await ask(service, reference, 'with late events after the restart')
    const { found, wanted } = await coarseLevels(service)
    expect(found).toEqual(wanted)
  })
})

test('sealing by the service itself, while late events pour in from many callers', async () => {
  const service = await startService({ now: BEGIN })
  try {
    const reference = new Reference(events, BEGIN)
    await service.store(events.filter(({ timestamp }) => timestamp < BEGIN))
    service.setNow('2006-03-20T00:00:00.000Z')
    reference.now = Date.parse('2006-03-20T00:00:00.000Z')
    const first = service.seals.sealedUntil
    await vi.waitFor(() => expect(service.seals.sealedUntil).not.toEqual(first), { timeout: 60_000 })
    // Small batches in no order, a few at a time, so that spans are sealed between them.
    const waiting = Array.from({ length: 160 }, (_, batch) => events.filter((_event, index) => (index * 7) % 160 === batch))
    const callers = Array.from({ length: 4 }, async () => {
      for (let batch = waiting.pop(); batch; batch = waiting.pop()) await service.store(batch)
    })
    await Promise.all(callers)
    await vi.waitFor(() => expect(service.seals.due).toBe(false), { timeout: 60_000, interval: 200 })
    // The last span may be recorded a moment before the writer is done with it.
    await service.writer.exclusive(() => Promise.resolve())
    await ask(service, reference, 'after the service sealed by itself')
    const { found, wanted } = await coarseLevels(service)
    expect(found).toEqual(wanted)
  } finally {
    await service.close()
  }
}, 120_000)

test('what is over is sealed once a day, and every table that questions read is then a single part', async () => {
  const merged = vi.spyOn(Store.prototype, 'mergeParts')
  const service = await startService({ now: BEGIN })
  try {
    const before = events.slice(0, 40).map((event) => ({ ...event, timestamp: '2004-12-19T23:59:00.000Z' }))
    for (let batch = 0; batch < 4; batch++) await service.store(before.filter((_event, index) => index % 4 === batch))
    merged.mockClear()
    service.setNow('2004-12-21T00:11:00.000Z')
    await vi.waitFor(() => expect(merged).toHaveBeenCalledTimes(3), { timeout: 30_000 })
    await Promise.all(merged.mock.results.map(({ value }) => value as Promise<void>))
    expect(service.seals.due).toBe(false)
    const tables = await service.rows<{
      table: string
      parts: string
    }>(`SELECT table, toString(count()) AS parts FROM system.parts
      WHERE active AND database = currentDatabase() AND table IN ('activity', 'events', 'user_activity') GROUP BY table ORDER BY table`)
    expect(tables).toEqual(['activity', 'events', 'user_activity'].map((table) => ({ table, parts: '1' })))
    // Nothing is over before another day is.
    service.setNow('2004-12-21T23:00:00.000Z')
    await service.store(events.slice(40, 50).map((event) => ({ ...event, timestamp: BEGIN })))
    await new Promise((resolve) => setTimeout(resolve, 6_000))
    expect(merged).toHaveBeenCalledTimes(3)
  } finally {
    merged.mockRestore()
    await service.close()
  }
}, 60_000)
