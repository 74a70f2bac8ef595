import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addDays, sameTime } from '../../../src/time/periods.ts'
import { comparedRanges } from '../../../src/analytics/regressions/ranges.ts'
import { startService, type Caller, type Params, type TestService } from '../../support.ts'

/** A Sunday morning. */
const NOW = '2026-03-01T09:20:31.456Z'
const TO = Date.parse('2026-03-01T09:15:00.000Z')
const HOUR = 3_600_000
const WEEK = 7 * 24 * HOUR

let service: TestService
beforeAll(async () => {
  service = await startService({ now: NOW })
  await service.store(fleet(6), { org: 'fleet' })
}, 120_000)
afterAll(() => service.close())

interface Hourly {
  readonly assistant: string
  /** In an hour that begins at the instant. */
  readonly messages: (from: number) => number
  readonly tasks: (from: number) => number
  readonly completion?: (from: number) => number
  /** USD a message. */
  readonly cost?: (from: number) => number
}

/** The events of an hour, evenly spread over it, with ids of their own. */
function* hourOf({ assistant, messages, tasks, completion = () => 0.9, cost = () => 0.01 }: Hourly, from: number) {
  const list: Array<[eventType: string, count: number, cost?: number]> = [
    ['incomingMessages', messages(from)],
    ['outgoingMessages', messages(from), cost(from)],
    ['tasksInitiated', tasks(from)],
    ['tasksCompleted', Math.round(tasks(from) * completion(from))],
  ]
  for (const [eventType, count, usd] of list) {
    for (let n = 0; n < count; n++) {
      const at = from + Math.floor(((n + 0.5) / count) * HOUR)
      yield {
        id: `${assistant} ${eventType} ${at}`,
        eventType,
        timestamp: new Date(at).toISOString(),
        assistant,
        user: `user ${n % 7}`,
        ...(usd ? { cost: usd } : {}),
      }
    }
  }
}

/** Since 02:15 of the last day. */
const BROKEN_AT = Date.parse('2026-03-01T02:15:00.000Z')
const LOOP_AT = Date.parse('2026-02-28T20:15:00.000Z')
const LOOP_END = Date.parse('2026-03-01T01:15:00.000Z')
const DEAR_AT = Date.parse('2026-02-28T15:15:00.000Z')

const FLEET: Hourly[] = [
  { assistant: 'steady', messages: () => 12, tasks: () => 10 },
  { assistant: 'failing', messages: () => 8, tasks: () => 10, completion: (at) => (at >= BROKEN_AT ? 0.2 : 0.9) },
  { assistant: 'looping', messages: (at) => (at >= LOOP_AT && at < LOOP_END ? 80 : 8), tasks: () => 1 },
  { assistant: 'dear', messages: () => 15, tasks: () => 1, cost: (at) => (at >= DEAR_AT ? 0.04 : 0.01) },
  { assistant: 'idle', messages: (at) => (at >= Date.parse('2026-02-27T09:15:00.000Z') ? 0 : 5), tasks: () => 0 },
  { assistant: 'new', messages: (at) => (at >= TO - 24 * HOUR ? 20 : 0), tasks: () => 0 },
]

/** The fleet in the 26 hours up to TO and in the same hours of the weeks before it, and the idle one two days ago. */
function fleet(weeks: number) {
  const events: object[] = []
  for (let week = weeks; week >= 0; week--) {
    for (let from = TO - week * WEEK - 26 * HOUR; from < TO - week * WEEK; from += HOUR) {
      for (const one of FLEET) events.push(...hourOf(one, from))
    }
  }
  events.push(...hourOf(FLEET.find(({ assistant }) => assistant === 'idle') as Hourly, TO - 50 * HOUR))
  return events
}

const ask = (params: Params = {}, caller: Caller = { org: 'fleet' }) => service.data('regressions', params, caller)
const brief = (data: { findings: Array<Record<string, unknown>> }) =>
  data.findings.map(({ assistant, metric, severity, direction, since, until }) => [
    assistant,
    metric,
    severity,
    direction,
    since,
    until,
  ])

describe('planted regressions', () => {
  test('each is found once, with its severity and when it began and ended; the new and the steady one are not', async () => {
    const data = await ask()
    expect(data).toMatchObject({
      status: 'regressed',
      hours: 24,
      weeks: 6,
      startDate: '2026-02-28T09:15:00.000Z',
      endDate: '2026-03-01T09:15:00.000Z',
      assistants: 6,
    })
    expect(data.baseline).toHaveLength(6)
    expect(data.baseline[0]).toEqual({ startDate: '2026-01-17T09:15:00.000Z', endDate: '2026-01-18T09:15:00.000Z' })
    expect(data.baseline[5]).toEqual({ startDate: '2026-02-21T09:15:00.000Z', endDate: '2026-02-22T09:15:00.000Z' })
    const end = '2026-03-01T09:15:00.000Z'
    expect(
      brief(data)
        .filter(([assistant]) => assistant !== null)
        .sort(),
    ).toEqual([
      ['dear', 'costPerMessage', 'critical', 'up', '2026-02-28T15:15:00.000Z', end],
      ['failing', 'completionRate', 'critical', 'down', '2026-03-01T02:15:00.000Z', end],
      ['idle', 'idle', 'critical', 'down', '2026-02-27T08:09:00.000Z', end],
      ['looping', 'incomingMessages', 'warning', 'up', '2026-02-28T20:15:00.000Z', '2026-03-01T01:15:00.000Z'],
    ])
  })

  test('a whole finding', async () => {
    const data = await ask()
    const finding = data.findings.find(
      ({ metric, assistant }: { metric: string; assistant: string }) => metric === 'completionRate' && assistant === 'failing',
    )
    expect(finding).toEqual({
      metric: 'completionRate',
      scope: 'assistant',
      assistant: 'failing',
      severity: 'critical',
      direction: 'down',
      hours: 6,
      current: 0.2,
      median: 0.9,
      spread: 0,
      weeks: 6,
      change: expect.closeTo(-7 / 9),
      score: expect.closeTo(-9.696, 3),
      normal: { low: expect.closeTo(0.68, 1), high: expect.closeTo(0.99, 1) },
      since: '2026-03-01T02:15:00.000Z',
      until: '2026-03-01T09:15:00.000Z',
      run: { current: 0.2, expected: 0.9 },
      summary:
        'Completion rate of assistant "failing" fell since 2026-03-01T02:15Z: 20.0 % in the last 6 h, −78 %; usual are 90.0 % (median of 6 weeks).',
      evidence:
        '/analytics/events?startDate=2026-03-01T02%3A15%3A00.000Z&endDate=2026-03-01T09%3A15%3A00.000Z&eventType=tasksInitiated&assistant=failing',
    })
  })

  test('docs/regressions.md shows a real finding', async () => {
    const page = readFileSync(new URL('../../../docs/regressions.md', import.meta.url), 'utf8')
    const example = JSON.parse(/```json\n([^`]*)```/.exec(page)?.[1] ?? '') as object
    const finding = (await ask()).findings.find(({ assistant }: { assistant: string }) => assistant === 'failing')
    // Rounded, to be read.
    const rounded = JSON.parse(JSON.stringify(finding), (_, value: unknown) =>
      typeof value === 'number' ? Number(value.toFixed(3)) : value,
    ) as object
    expect(example).toEqual(rounded)
  })

  test('the evidence is exactly the events of the finding', async () => {
    const data = await ask()
    const totals: Record<string, number> = {}
    for (const { evidence, assistant, metric } of data.findings) {
      const reply = await service.request('GET', evidence, { org: 'fleet' })
      expect(reply.status).toBe(200)
      totals[`${assistant} ${metric}`] = reply.body.pagination.total
      for (const event of reply.body.data) if (assistant !== null) expect(event.assistant).toBe(assistant)
      if (metric === 'idle')
        expect(reply.body.data).toMatchObject([
          { timestamp: '2026-02-27T08:09:00.000Z' },
          { timestamp: '2026-02-27T08:09:00.000Z' },
        ])
    }
    expect(totals).toMatchObject({
      'failing completionRate': 7 * 10,
      'looping incomingMessages': 5 * 80,
      'dear costPerMessage': 18 * (15 + 15 + 1 + 1),
      'idle idle': 2,
    })
  })

  test('the order and the answer are the same every time: the severe first, then the one that is furthest off', async () => {
    const [one, ...others] = await Promise.all(Array.from({ length: 5 }, () => service.get('regressions', {}, { org: 'fleet' })))
    for (const other of others) expect(other.body).toEqual(one?.body)
    const findings = one?.body.data.findings as Array<{ severity: string; score: number }>
    const ranks = findings.map(({ severity, score }) => (severity === 'critical' ? 1e6 : 0) + Math.abs(score))
    expect(ranks).toEqual([...ranks].sort((a, b) => b - a))
    expect((await ask({ limit: 1 })).findings).toEqual(findings.slice(0, 1))
    expect((await ask({ limit: 1 })).total).toBe(findings.length)
  })

  test('asked about one assistant, of one assistant', async () => {
    const data = await ask({ assistant: 'failing' })
    expect(brief(data)).toEqual([
      ['failing', 'completionRate', 'critical', 'down', '2026-03-01T02:15:00.000Z', '2026-03-01T09:15:00.000Z'],
    ])
    expect(data.assistants).toBe(1)
    expect((await ask({ assistant: 'steady' })).status).toBe('ok')
    expect((await ask({ assistant: 'nobody' })).status).toBe('insufficient_data')
  })

  test('asked about users, from the events themselves', async () => {
    const everyone = Array.from({ length: 7 }, (_, n) => `user ${n}`)
    // The users’ filter is part of the evidence.
    const { findings, ...rest } = await ask({ user: everyone })
    const { findings: expected, ...others } = await ask()
    expect(rest).toEqual(others)
    expect(findings).toEqual(expected.map((one: object) => ({ ...one, evidence: expect.any(String) })))
    for (const { evidence } of findings) expect(evidence).toMatch(/&user=user\+0&.*&user=user\+6$/)
    const [some, all] = await Promise.all([ask({ user: 'user 6', hours: 1, minVolume: 1 }), ask({ hours: 1 })])
    // Of 12, 8, 8, 15 and 20 messages in an hour, every seventh.
    expect([messages(some), messages(all)]).toEqual([1 + 1 + 1 + 2 + 2, 63])
  })

  test('a token that sees one assistant is told of that one alone, and its fleet is that', async () => {
    const caller = { org: 'fleet', assistants: ['failing'] }
    expect(await ask({}, caller)).toEqual(await ask({ assistant: 'failing' }))
    const two = await ask({}, { org: 'fleet', assistants: ['failing', 'dear', 'never was'] })
    expect(two.assistants).toBe(2)
    expect(JSON.stringify(two)).not.toMatch(/looping|idle"|steady/)
    expect((await ask({ assistant: 'looping' }, caller)).findings).toEqual([])
    expect(await ask({}, { org: 'another' })).toMatchObject({ status: 'insufficient_data', findings: [], assistants: 0 })
  })
})

const messages = ({ fleet: list }: { fleet: Array<{ metric: string; current: number }> }) =>
  list.find(({ metric }) => metric === 'incomingMessages')?.current

describe('what was compared', () => {
  test('a week of history, or two, is none', async () => {
    for (const weeks of [1, 2]) {
      const org = `history ${weeks}`
      await service.store(fleet(weeks), { org })
      expect(await ask({}, { org })).toMatchObject({ status: 'insufficient_data', findings: [], fleet: [], total: 0 })
    }
  })

  test('another moment, before anything broke, is quiet', async () => {
    const data = await ask({ endDate: '2026-02-22T09:15:00Z', weeks: 5 })
    expect(data).toMatchObject({ status: 'ok', findings: [], endDate: '2026-02-22T09:15:00.000Z' })
    expect(data.fleet.map(({ metric }: { metric: string }) => metric)).toEqual([
      'completionRate',
      'incomingMessages',
      'outgoingMessages',
      'tasksInitiated',
      'costPerMessage',
      'cost',
    ])
  })

  test('never the future: an hour that has not passed would look like silence', async () => {
    expect(await ask({ endDate: '2026-03-05' })).toEqual(await ask())
  })

  test('the end is the last quarter of an hour that is over', async () => {
    expect((await ask({ endDate: '2026-03-01T09:14:59.999Z' })).endDate).toBe('2026-03-01T09:00:00.000Z')
  })

  test.each([1, 2, 3, 5, 7, 24, 48, 49, 100, 168])('a window of %i hours', async (window) => {
    const data = await ask({ hours: window, weeks: 3 })
    expect(Date.parse(data.endDate) - Date.parse(data.startDate)).toBe(window * HOUR)
    for (const { hours, since } of data.findings) {
      expect(hours).toBeLessThanOrEqual(window)
      expect(Date.parse(since)).toBeLessThan(TO)
    }
    const found = data.findings.map(({ assistant }: { assistant: string }) => assistant)
    if (window > 1 && window <= 24) expect(found).toContain('failing')
  })

  test('the beginning of time', async () => {
    for (const endDate of ['1970-01-01', '1970-01-01T00:15:00Z', '1970-01-20']) {
      expect(await ask({ endDate, hours: 168, weeks: 12 })).toMatchObject({ status: 'insufficient_data', findings: [] })
    }
  })

  test('a range before 1972 in a zone of its own, all of it raw', async () => {
    const data = await ask({ endDate: '1971-06-01T00:00', timezone: 'Africa/Monrovia' })
    expect(data.status).toBe('insufficient_data')
  })
})

describe('the same hours of the weeks before', () => {
  test.each([
    // Clocks go forward on 2026-03-29 and back on 2026-10-25.
    ['Europe/Berlin', '2026-03-30T09:00', 24],
    ['Europe/Berlin', '2026-03-29T09:00', 24],
    ['Europe/Berlin', '2026-03-29T03:15', 1],
    ['Europe/Berlin', '2026-10-26T09:00', 24],
    ['Europe/Berlin', '2026-10-25T02:30', 1],
    ['Europe/Berlin', '2026-11-02T09:00', 168],
    ['Europe/Berlin', '2026-04-02T09:00', 168],
    ['America/New_York', '2026-03-10T00:00', 6],
    ['Australia/Lord_Howe', '2026-04-06T10:00', 168],
    ['Asia/Kathmandu', '2026-03-30T09:00', 24],
    ['Pacific/Apia', '2012-01-05T09:00', 168],
  ])('%s, up to %s, %i hours: the same weekday and time of day', (zone, local, window) => {
    const to = sameTime(Date.parse(`${local}Z`), 0, 'UTC') - offset(zone, Date.parse(`${local}Z`))
    const ranges = comparedRanges(to, window * HOUR, 6, zone)
    expect(ranges).toHaveLength(7)
    const clock = (at: number) =>
      new Intl.DateTimeFormat('en-GB', { timeZone: zone, weekday: 'long', hour: '2-digit', minute: '2-digit' }).format(at)
    for (const [at, range] of ranges.entries()) {
      expect(clock(range.to)).toBe(clock(to))
      expect(range.from).toBeLessThan(range.to)
      expect(range.from).toBeGreaterThanOrEqual(ranges[at - 1]?.to ?? -Infinity)
      if (window < 100) expect(range.to - range.from).toBe(window * HOUR)
    }
  })

  test('the answer says so: an hour earlier in UTC after the clocks went forward', async () => {
    const data = await ask({ endDate: '2026-04-01T09:00', timezone: 'Europe/Berlin', weeks: 3 }, { org: 'another' })
    // The clock of the service stands before that.
    expect(data.endDate).toBe('2026-03-01T09:15:00.000Z')
    service.setNow('2026-06-01T00:00:00Z')
    const later = await ask({ endDate: '2026-04-01T09:00', timezone: 'Europe/Berlin', weeks: 3 }, { org: 'another' })
    service.setNow(NOW)
    expect(later).toMatchObject({ startDate: '2026-03-31T07:00:00.000Z', endDate: '2026-04-01T07:00:00.000Z' })
    expect(later.baseline.map(({ endDate }: { endDate: string }) => endDate)).toEqual([
      '2026-03-11T08:00:00.000Z',
      '2026-03-18T08:00:00.000Z',
      '2026-03-25T08:00:00.000Z',
    ])
  })

  test('traffic that follows the clock on the wall is quiet in its zone when the clocks change, and not in UTC', async () => {
    const org = 'wall'
    const zone = 'Europe/Berlin'
    const events: object[] = []
    const one: Hourly = { assistant: 'desk', messages: () => 400, tasks: () => 0 }
    // Open from 8 to 10 on Mondays, local time.
    for (let week = 0; week <= 6; week++) {
      const midnight = addDays(Date.parse('2026-03-30T12:00:00Z'), -7 * week, zone)
      for (const hour of [8, 9]) events.push(...hourOf(one, midnight + hour * HOUR))
    }
    service.setNow('2026-03-30T22:00:00Z')
    await service.store(events, { org })
    const question = { endDate: '2026-03-30T08:00:00Z', hours: 3 }
    const inZone = await ask({ ...question, timezone: zone }, { org })
    const inUtc = await ask(question, { org })
    service.setNow(NOW)
    expect(inZone).toMatchObject({ status: 'ok', findings: [] })
    expect(inUtc.status).toBe('regressed')
  })
})

/** What Intl says the zone is ahead of UTC by, around a local time. */
function offset(zone: string, wall: number): number {
  const parts = (at: number) =>
    Object.fromEntries(
      new Intl.DateTimeFormat('en-US', {
        timeZone: zone,
        hourCycle: 'h23',
        year: 'numeric',
        month: 'numeric',
        day: 'numeric',
        hour: 'numeric',
        minute: 'numeric',
      })
        .formatToParts(at)
        .map(({ type, value }) => [type, Number(value)]),
    )
  const shown = (at: number) => {
    const { year, month, day, hour, minute } = parts(at) as Record<string, number>
    return Date.UTC(year as number, (month as number) - 1, day, hour, minute) - at
  }
  return shown(wall - shown(wall))
}

test('when all are silent, that is one finding', async () => {
  const org = 'silent'
  const events: object[] = []
  for (let week = 1; week <= 4; week++) {
    for (let from = TO - week * WEEK - 3 * HOUR; from < TO - week * WEEK; from += HOUR) {
      for (const assistant of ['a', 'b', 'c']) events.push(...hourOf({ assistant, messages: () => 40, tasks: () => 5 }, from))
    }
  }
  await service.store(events, { org })
  const data = await ask({ hours: 3 }, { org })
  expect(data.findings).toMatchObject([
    {
      metric: 'idle',
      scope: 'fleet',
      assistant: null,
      severity: 'critical',
      since: '2026-02-22T09:14:15.000Z',
      summary: 'The fleet has been silent since 2026-02-22T09:14Z; in its last 3 h usual are 810 (median of 4 weeks) events.',
      evidence: '/analytics/events?startDate=2026-02-22T09%3A14%3A15.000Z&endDate=2026-03-01T09%3A15%3A00.000Z',
    },
  ])
})

describe('bad input', () => {
  test.each([
    [{ hours: 0 }, 'hours', /1 to 168/],
    [{ hours: 169 }, 'hours', /1 to 168/],
    [{ hours: '1.5' }, 'hours', /1 to 168/],
    [{ weeks: 2 }, 'weeks', /3 to 12/],
    [{ weeks: 13 }, 'weeks', /3 to 12/],
    [{ minVolume: 0 }, 'minVolume', /1 to 1000000/],
    [{ limit: 1_001 }, 'limit', /1 to 1000/],
    [{ endDate: 'yesterday' }, 'endDate', /cannot be read/],
    [{ startDate: '2026-01-01' }, 'startDate', /not a parameter/],
    [{ timezone: 'Mars/Olympus' }, 'timezone', /IANA/],
    [{ period: 'day' }, 'period', /not a parameter/],
    [{ hours: ['1', '2'] }, 'hours', /only once/],
  ] as Array<[Params, string, RegExp]>)('%j', async (params, parameter, message) => {
    const reply = await service.get('regressions', params, { org: 'fleet' })
    expect(reply.status).toBe(400)
    expect(reply.body.error.details).toEqual([{ parameter, message: expect.stringMatching(message) }])
  })

  test('no token, one that cannot read, another method', async () => {
    expect((await service.app.request('/analytics/regressions')).status).toBe(401)
    expect((await service.get('regressions', {}, { scope: 'analytics:write' })).status).toBe(403)
    expect((await service.request('POST', '/analytics/regressions', {})).status).toBe(405)
  })
})

test('a late event inside the range changes the kept answer at once', async () => {
  const kept = await startService({ now: NOW, config: { CACHE_MB: '4' } })
  try {
    await kept.store(fleet(3), { org: 'kept' })
    const question = { endDate: '2026-03-01T09:15:00Z', assistant: 'steady' }
    const first = await kept.data('regressions', question, { org: 'kept' })
    expect(first.status).toBe('ok')
    const loop: Hourly = { assistant: 'steady', messages: () => 900, tasks: () => 0 }
    await kept.store(
      [...hourOf(loop, TO - HOUR)].map((event) => ({ ...event, id: `late ${event.id}` })),
      { org: 'kept' },
    )
    expect((await kept.data('regressions', question, { org: 'kept' })).status).toBe('regressed')
  } finally {
    await kept.close()
  }
})
