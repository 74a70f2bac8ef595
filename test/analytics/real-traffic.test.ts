/**
 * Every endpoint on real traffic: whole answers, compared with the same recomputed from the events. The service starts
 * on an empty database, so all coarse levels are sealed up to its clock and every event is a late one; the other way
 * round, levels that are sealed after the events came, is in seals.test.ts.
 */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { Names } from '../../src/ids/dictionary.ts'
import { compare, PATHS, same, type Path } from '../compare.ts'
import { EVENT_TYPES, Reference, type Asked, type SentEvent } from '../reference.ts'
import { startService, type Params, type TestService } from '../support.ts'
import { traffic } from '../traffic.ts'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

// Coarse spans are read where there are many users, days where there are few: both have to be right.
let questions = 0
vi.spyOn(Names.prototype, 'userCount').mockImplementation(() => (questions++ % 3 === 0 ? 0 : 1e9))

const { name, events } = traffic()
console.info(`real traffic: ${name}, ${events.length} events`)

const last = events.at(-1) as SentEvent
/** Soon after the last event, so that `realtime` has some. */
const NOW = Date.parse(last.timestamp) + 61_007

const ALL = { startDate: '2004-12-01', endDate: '2018-04-01' }
/** Two days in a row, to the millisecond. */
const RAGGED = { startDate: '2005-12-03T05:17:23.456Z', endDate: '2005-12-04T21:44:59.999Z' }
const YEAR = { startDate: '2007-06-30T22:15', endDate: '2008-05-01T00:00:00.001' }

const counts = new Map<string, number>()
for (const { user } of events) counts.set(user, (counts.get(user) ?? 0) + 1)
const users = [...counts.keys()].sort((a, b) => (counts.get(b) ?? 0) - (counts.get(a) ?? 0))
const [busiest = '', second = ''] = users
const rarest = users.at(-1) ?? ''

/** Offsets of 45 and 30 minutes, half an hour of DST, DST at midnight, and changes of the clocks during the traffic. */
const ZONES = [
  'Asia/Kathmandu',
  'Australia/Lord_Howe',
  'America/New_York',
  'America/St_Johns',
  'America/Sao_Paulo',
  'Asia/Beirut',
  'Asia/Ulaanbaatar',
  'Pacific/Apia',
]

const FILTERS: Asked[] = [
  { assistant: ['ubottu'] },
  { assistant: ['ubotu', 'ubot3'] },
  { user: [busiest] },
  { user: [busiest, second, rarest] },
  { assistant: ['channel_ubuntu', 'ubottu'], user: [second, busiest] },
  { assistant: ['nobody by this name'] },
  { assistant: ['ubotu', 'nobody by this name'] },
  { user: ['nobody by this name'] },
  { assistant: ['ubotu'], user: ['nobody by this name'] },
]

let service: TestService
const reference = new Reference(events, NOW)

beforeAll(async () => {
  service = await startService({ now: new Date(NOW).toISOString() })
  await service.store(events)
})
afterAll(() => service.close())

const check = (path: Path, asked: Asked) => compare(service, reference, path, asked)

/** All that the cursors of `events` lead to. */
async function pages(asked: Asked): Promise<unknown[]> {
  const found: unknown[] = []
  const { total } = reference.events(asked).pagination
  for (let cursor: string | null = ''; cursor !== null;) {
    const page = await service.whole('events', { ...asked, ...(cursor && { cursor }) } as Params)
    expect(page.pagination.total).toBe(total)
    found.push(...page.data)
    cursor = page.pagination.nextCursor
  }
  return found
}

describe('the whole history', () => {
  test.each([
    ['overview', {}],
    ['metrics', { ...ALL, period: 'day' }],
    ['metrics', { ...ALL, period: 'week' }],
    ['metrics', { ...ALL, period: 'month' }],
    ['rolling', {}],
    ['events', ALL],
    ['assistants', ALL],
    ['users/top', ALL],
    ['snapshots', ALL],
    ['snapshots', { ...ALL, period: 'week' }],
    ['snapshots', { ...ALL, period: 'month' }],
  ] as Array<[Path, Asked]>)('%s %j', (path, asked) => check(path, asked))

  test('the figures of the periods add up to those of the range', async () => {
    const rows: Array<{ total: number }> = await service.data('metrics', { ...ALL, period: 'month' })
    expect(rows.reduce((sum, { total }) => sum + total, 0)).toBe(events.length)
  })

  test('any range that the calendar holds, most of it empty', async () => {
    const asked: Asked = { startDate: '1970-01-01', endDate: '2099-12-31T23:59:59.999Z' }
    for (const filter of [{}, { assistant: ['ubottu'] }, { user: [busiest] }]) {
      await check('metrics', { ...asked, period: 'month', ...filter })
      await check('events', { ...asked, ...filter })
      await check('assistants', { ...asked, ...filter })
      await check('users/top', { ...asked, ...filter })
      await check('snapshots', { ...asked, period: 'month', ...filter })
    }
  })
})

describe('filters, alone and together, on every endpoint', () => {
  describe.each(FILTERS)('%j', (filter) => {
    test.each(PATHS)('%s', async (path) => {
      const ranged: Asked = path === 'metrics' ? { period: 'month' } : path === 'snapshots' ? { period: 'week' } : {}
      const open = path === 'overview' || path === 'rolling'
      if (open) await check(path, { ...filter })
      for (const range of open ? [{ endDate: '2008-01-04T03:00' }] : [ALL, RAGGED, YEAR]) {
        await check(path, { ...ranged, ...range, ...filter, timezone: 'Australia/Lord_Howe' })
      }
    })
  })

  test.each(EVENT_TYPES)('events of one type: %s', async (eventType) => {
    await check('events', { ...ALL, eventType })
    await check('events', { ...RAGGED, eventType, limit: 1000 })
    await check('events', { ...YEAR, eventType, limit: 3, skip: 5, assistant: ['ubotu', 'channel_ubuntu'] })
    await check('events', { ...ALL, eventType, user: [busiest], assistant: ['ubotu', 'channel_ubuntu'] })
  })
})

describe('ranges', () => {
  const { timestamp } = events[Math.floor(events.length / 3)] as SentEvent
  const later = new Date(Date.parse(timestamp) + 1).toISOString()
  const cases: Array<[string, Asked]> = [
    ['odd ends, two days', RAGGED],
    ['odd ends, ten months', YEAR],
    ['one millisecond that holds an event', { startDate: timestamp, endDate: later }],
    ['ends where an event is', { startDate: '2005-12-03', endDate: timestamp }],
    ['starts where an event is', { startDate: timestamp, endDate: '2018-02-01' }],
    ['starts just after an event', { startDate: later, endDate: '2018-02-01' }],
    ['inside a quarter of an hour', { startDate: '2005-12-03T10:01:00.001Z', endDate: '2005-12-03T10:13:59.999Z' }],
    ['over the end of a quarter', { startDate: '2005-12-03T10:14:00.001Z', endDate: '2005-12-03T10:16:59.999Z' }],
    ['exact quarters', { startDate: '2005-12-03T10:15Z', endDate: '2005-12-03T22:45Z' }],
    ['exact three hours', { startDate: '2005-12-03T03:00Z', endDate: '2005-12-04T21:00Z' }],
    ['one whole day', { startDate: '2005-12-03', endDate: '2005-12-04' }],
    ['a year without events', { startDate: '2016-01-15', endDate: '2016-12-24' }],
    ['90 days', { startDate: '2007-10-25', endDate: '2008-01-23' }],
    ['what is still to come', { startDate: '2018-02-27T23:00Z', endDate: '2018-03-05' }],
    ['ends of a coarse span', { startDate: '2007-10-10', endDate: '2008-04-22' }],
  ]
  test.each(cases)('%s', async (_, range) => {
    await check('metrics', { ...range, period: 'day' })
    await check('metrics', { ...range, period: 'month', assistant: ['ubotu', 'ubottu'] })
    await check('events', { ...range, limit: 1000 })
    await check('assistants', range)
    await check('users/top', { ...range, limit: 100 })
    await check('snapshots', { ...range, period: 'week' })
  })
})

describe('time zones', () => {
  test.each(ZONES)('%s: months and weeks of the whole history', async (timezone) => {
    await check('metrics', { ...ALL, period: 'month', timezone })
    await check('metrics', { ...ALL, period: 'month', timezone, assistant: ['ubottu'] })
    await check('snapshots', { ...ALL, period: 'week', timezone })
  })

  test('days of the whole history', async () => {
    await check('metrics', { ...ALL, period: 'day', timezone: 'Australia/Lord_Howe' })
    await check('metrics', { ...ALL, period: 'day', timezone: 'Asia/Kathmandu', assistant: ['ubottu'] })
    await check('snapshots', { ...ALL, period: 'day', timezone: 'America/New_York', user: [busiest] })
  })

  test.each([
    ['America/New_York', '2007-10-24', '2007-11-12'],
    ['America/New_York', '2008-03-01', '2008-03-12'],
    ['Australia/Lord_Howe', '2008-10-02', '2008-10-10'],
    ['Asia/Kathmandu', '2005-12-01', '2005-12-08'],
    ['America/Sao_Paulo', '2010-10-14', '2010-10-20'],
    ['Asia/Beirut', '2012-03-22', '2012-03-28'],
    ['Asia/Ulaanbaatar', '2015-09-23', '2015-09-29'],
    ['Asia/Jerusalem', '2017-03-21', '2017-03-27'],
    ['Atlantic/Stanley', '2008-04-18', '2008-04-23'],
    ['Pacific/Bougainville', '2014-12-25', '2014-12-31'],
  ])('%s from %s to %s, over a change of the clocks or an odd offset', async (timezone, startDate, endDate) => {
    const range = { startDate, endDate, timezone }
    for (const filter of [{}, { assistant: ['channel_ubuntu', 'ubottu', 'ubotu'] }]) {
      await check('metrics', { ...range, ...filter, period: 'day' })
      await check('metrics', { ...range, ...filter, period: 'week' })
      await check('snapshots', { ...range, ...filter })
      await check('assistants', { ...range, ...filter })
      await check('users/top', { ...range, ...filter })
      await check('events', { ...range, ...filter, limit: 20 })
      for (const period of ['day', 'week', 'month'] as const) {
        await check('overview', { endDate, timezone, period, ...filter })
      }
      await check('rolling', { endDate, timezone, ...filter })
      await check('rolling', { endDate: `${endDate}T10:23:45.678`, timezone, window: 3, ...filter })
    }
  })

  test('wall times that exist twice or never', async () => {
    await check('metrics', {
      period: 'day',
      startDate: '2007-11-04T01:30',
      endDate: '2007-12-18T12:00',
      timezone: 'America/New_York',
    })
    await check('metrics', {
      period: 'day',
      startDate: '2010-10-17T00:30',
      endDate: '2010-10-18',
      timezone: 'America/Sao_Paulo',
    })
    await check('metrics', {
      period: 'day',
      startDate: '2015-09-25T23:30',
      endDate: '2015-09-26T12:00',
      timezone: 'Asia/Ulaanbaatar',
    })
  })
})

describe('overview and rolling from any moment', () => {
  test.each(['2006-06-02', '2008-01-04T00:00:00.001Z', '2010-10-18', '2018-02-27T23:59:59.999Z', '2030-01-01'])(
    '%s',
    async (endDate) => {
      for (const period of ['day', 'week', 'month'] as const) await check('overview', { endDate, period })
      for (const window of [1, 7, 30, 90]) {
        await check('rolling', { endDate, window })
        await check('rolling', { endDate, window, timezone: 'America/St_Johns', user: [busiest] })
      }
    },
  )

  test('90 local days of one assistant, where no day of the zone is a day of UTC', async () => {
    for (const timezone of ZONES) {
      await check('rolling', { endDate: '2008-05-02', window: 90, timezone, assistant: ['ubotu'] })
      await check('rolling', { endDate: '2008-05-02T10:20:30.456', window: 90, timezone, assistant: ['ubotu'] })
    }
  })

  test('now', async () => {
    for (const period of ['day', 'week', 'month'] as const) await check('overview', { period, timezone: 'Asia/Kathmandu' })
    for (const window of [1, 2, 90]) await check('rolling', { window, timezone: 'Asia/Kathmandu' })
  })
})

describe('the top of the users', () => {
  test.each([1, 2, 3, 10, 57, 99, 100, 500, 999, 1000])('of any length, with ties at its end: %i', async (limit) => {
    await check('users/top', { ...ALL, limit })
    await check('users/top', { ...RAGGED, limit })
    await check('users/top', { ...YEAR, limit, assistant: ['ubotu', 'ubot3'] })
    await check('users/top', { ...ALL, limit, user: users.slice(-90) })
  })
})

describe('pages', () => {
  test('cursors lead through everything, in order, and nothing comes twice or is lost', async () => {
    const wanted = reference.events({ ...ALL, limit: events.length }).data
    same(await pages({ ...ALL, limit: 1000 }), wanted, 'all events')
  })

  test('small pages, with filters', async () => {
    const asked: Asked = {
      ...YEAR,
      timezone: 'Asia/Kathmandu',
      assistant: ['ubotu', 'ubot3'],
      eventType: 'tasksCompleted',
    }
    const wanted = reference.events({ ...asked, limit: events.length }).data
    expect(wanted.length).toBeGreaterThan(100)
    same(await pages({ ...asked, limit: 7 }), wanted, 'the filtered events')
  })

  test('a page that ends exactly with the last event has no cursor', async () => {
    const asked: Asked = { ...RAGGED, assistant: ['ubotu'] }
    const { total } = reference.events(asked).pagination
    await check('events', { ...asked, limit: total })
    await check('events', { ...asked, limit: total - 1 })
    await check('events', { ...asked, limit: total + 1 })
  })

  test('skipping to anywhere, and beyond the end', async () => {
    for (const skip of [1, 999, 4_567, events.length - 1, events.length, 999_999_999_999_999]) {
      await check('events', { ...ALL, skip, limit: 20 })
    }
  })
})

describe('snapshots in every format', () => {
  const asked: Asked = { ...ALL, period: 'week', timezone: 'Asia/Kathmandu' }
  const rows = reference.snapshots(asked)
  const query = { startDate: ALL.startDate, endDate: ALL.endDate, period: 'week', timezone: 'Asia/Kathmandu' }

  test('json', async () => {
    same(await service.data('snapshots', { ...query, format: 'json' }), rows, 'json')
  })

  test('ndjson', async () => {
    const text: string = await service.whole('snapshots', { ...query, format: 'ndjson' })
    expect(text.endsWith('\n')).toBe(true)
    same(
      text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
      rows,
      'ndjson',
    )
  })

  test('csv', async () => {
    const text: string = await service.whole('snapshots', { ...query, format: 'csv' })
    const [header = '', ...lines] = text.trimEnd().split('\r\n')
    expect(header).toBe(
      'period,periodKey,startDate,endDate,final,activeUsers,incomingMessages,outgoingMessages,tasksInitiated,' +
        'tasksCompleted,total,completionRate,cost,inputTokens,outputTokens',
    )
    const wanted = rows.map((row) =>
      header
        .split(',')
        .map((column) => String(row[column as keyof typeof row] ?? ''))
        .join(','),
    )
    same(lines, wanted, 'csv')
  })
})

/** mulberry32 */
function random(seed: number) {
  let state = seed
  return () => {
    state = (state + 0x6d2b_79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const SEED = Number(process.env['TEST_SEED'] || 20_041_225)

test(`150 random questions (TEST_SEED=${SEED})`, async () => {
  const next = random(SEED)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)] as T
  const moments = events.filter((_, index) => index % 97 === 0).map((event) => Date.parse(event.timestamp))
  /** Near an event, rounded to anything from a millisecond to a day, so that edges of spans are met. */
  const moment = () => {
    const step = pick([1, 1_000, 60_000, 900_000, 10_800_000, 86_400_000])
    const around = pick(moments) + (next() - 0.5) * pick([1_000, 3_600_000, 86_400_000, 40 * 86_400_000])
    return Math.floor(around / step) * step
  }
  for (let question = 0; question < 150; question++) {
    const path = pick(PATHS)
    const zone = pick([{}, ...ZONES.map((timezone) => ({ timezone }))])
    const filter = pick([{}, {}, ...FILTERS, { user: [pick(users)] }, { user: [pick(users), pick(users)], assistant: ['ubotu'] }])
    const from = moment()
    const to = pick([from + 1, from + Math.floor(next() * 5e8), from + Math.floor(next() * 9e9), moment(), moment()])
    const [startDate, endDate] = [Math.min(from, to), Math.max(from, to, from + 1)].map((at) => new Date(at).toISOString()) as [
      string,
      string,
    ]
    const period = pick(['day', 'week', 'month'] as const)
    const asked: Asked = {
      ...zone,
      ...filter,
      ...(path === 'overview' ? { endDate, period } : {}),
      ...(path === 'rolling' ? { endDate, window: 1 + Math.floor(next() * 90) } : {}),
      ...(path === 'overview' || path === 'rolling' ? {} : { startDate, endDate }),
      ...(path === 'metrics' || path === 'snapshots' ? { period } : {}),
      ...(path === 'users/top' ? { limit: 1 + Math.floor(next() * 30) } : {}),
      ...(path === 'events' ? { limit: 1 + Math.floor(next() * 60), skip: Math.floor(next() * 100) } : {}),
    }
    await compare(service, reference, path, asked, `(TEST_SEED=${SEED}, question ${question})`)
  }
})

// Last, because everything before it would answer twice as much if it failed.
test('sending all of it again is only duplicates, and changes no figure anywhere', async () => {
  const before = await sums()
  const receipts = await service.submit(events.toReversed())
  expect(receipts.reduce((sum, { duplicates }) => sum + duplicates, 0)).toBe(events.length)
  expect(receipts.filter(({ accepted, rejected }) => accepted > 0 || rejected.length > 0)).toEqual([])
  expect(await sums()).toEqual(before)
  for (const path of PATHS) {
    const asked: Asked = path === 'overview' || path === 'rolling' ? { endDate: '2008-01-04' } : { ...ALL, period: 'month' }
    const { period: _, ...rest } = asked
    await check(path, path === 'metrics' || path === 'snapshots' ? asked : rest)
  }
})

/** Everything that is stored, added up. */
async function sums() {
  const figures = `sum(incoming_messages), sum(outgoing_messages), sum(tasks_initiated), sum(tasks_completed),
    sum(cost_nanos), sum(input_tokens), sum(output_tokens), toString(max(last_at))`
  return Promise.all([
    service.rows('SELECT count(), uniqExact(id), sum(cost_nanos), sum(input_tokens), sum(output_tokens) FROM events'),
    service.rows(`SELECT level, assistant_no, ${figures}, groupBitmapMerge(users),
        length(groupUniqArrayArray(assistants)) FROM activity GROUP BY ALL ORDER BY ALL`),
    service.rows(`SELECT level, ${figures}, sum(events), uniqExact(user_no), length(groupUniqArrayArray(assistants))
      FROM user_activity GROUP BY ALL ORDER BY ALL`),
    service.rows('SELECT kind, count(), uniqExact(name), max(number) FROM names GROUP BY ALL ORDER BY ALL'),
    service.rows('SELECT level, toString(max(sealed_until)) FROM seals GROUP BY ALL ORDER BY ALL'),
  ])
}
