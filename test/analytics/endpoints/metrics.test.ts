import { afterAll, beforeAll, expect, test } from 'vitest'
import { NOTHING, startService, type TestService } from '../../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
})
afterAll(() => service.close())

const event = (id: string, eventType: string, timestamp: string, rest: object = {}) => ({
  id,
  eventType,
  timestamp,
  assistant: 'Rex',
  user: 'ann',
  ...rest,
})

const seen = (rows: Array<Record<string, unknown>>) =>
  rows.map(({ periodKey, startDate, total, activeUsers }) => [periodKey, startDate, total, activeUsers])

test('a day without events is there with zeros, and what ends a range is not in it', async () => {
  const org = 'days'
  await service.store(
    [
      event('1', 'incomingMessages', '2026-02-22T10:00:00Z', { cost: 0.1, inputTokens: 10 }),
      event('2', 'outgoingMessages', '2026-02-22T10:00:00Z', { cost: 0.2, outputTokens: 5, user: 'bob' }),
      event('3', 'tasksInitiated', '2026-02-24T23:59:59.999Z'),
      event('4', 'tasksCompleted', '2026-02-25T00:00:00Z'),
    ],
    { org },
  )
  const range = { startDate: '2026-02-22', endDate: '2026-02-25' }
  expect(await service.whole('metrics', { period: 'day', ...range }, { org })).toEqual({
    success: true,
    data: [
      {
        period: 'day',
        periodKey: '2026-02-22',
        startDate: '2026-02-22T00:00:00.000Z',
        endDate: '2026-02-23T00:00:00.000Z',
        activeUsers: 2,
        incomingMessages: 1,
        outgoingMessages: 1,
        tasksInitiated: 0,
        tasksCompleted: 0,
        total: 2,
        completionRate: null,
        // Not 0.30000000000000004: costs are added as whole nano-dollars.
        cost: 0.3,
        inputTokens: 10,
        outputTokens: 5,
      },
      {
        period: 'day',
        periodKey: '2026-02-23',
        startDate: '2026-02-23T00:00:00.000Z',
        endDate: '2026-02-24T00:00:00.000Z',
        ...NOTHING,
      },
      {
        period: 'day',
        periodKey: '2026-02-24',
        startDate: '2026-02-24T00:00:00.000Z',
        endDate: '2026-02-25T00:00:00.000Z',
        ...NOTHING,
        activeUsers: 1,
        tasksInitiated: 1,
        total: 1,
        completionRate: 0,
      },
    ],
  })
})

test('entries at the edges cover only what is inside the range, and say so', async () => {
  const org = 'edges'
  await service.store(
    [
      event('1', 'incomingMessages', '2026-02-27T10:29:59.999Z'),
      event('2', 'incomingMessages', '2026-02-27T10:30:00.000Z'),
      event('3', 'incomingMessages', '2026-03-01T08:00:00.122Z'),
      event('4', 'incomingMessages', '2026-03-01T08:00:00.123Z'),
    ],
    { org },
  )
  const range = { startDate: '2026-02-27T10:30', endDate: '2026-03-01T08:00:00.123Z' }
  const one = { ...NOTHING, activeUsers: 1, incomingMessages: 1, total: 1 }
  expect(await service.data('metrics', { period: 'month', ...range }, { org })).toEqual([
    {
      period: 'month',
      periodKey: '2026-02',
      startDate: '2026-02-27T10:30:00.000Z',
      endDate: '2026-03-01T00:00:00.000Z',
      ...one,
    },
    {
      period: 'month',
      periodKey: '2026-03',
      startDate: '2026-03-01T00:00:00.000Z',
      endDate: '2026-03-01T08:00:00.123Z',
      ...one,
    },
  ])
  expect(await service.data('metrics', { period: 'week', ...range }, { org })).toEqual([
    {
      period: 'week',
      periodKey: '2026-W09',
      startDate: '2026-02-27T10:30:00.000Z',
      endDate: '2026-03-01T08:00:00.123Z',
      ...NOTHING,
      activeUsers: 1,
      incomingMessages: 2,
      total: 2,
    },
  ])
})

test('an hour that comes twice belongs to one day of 25 hours, the hour that is missing to one of 23', async () => {
  const org = 'clocks'
  await service.store(
    [
      // 01:30 in New York, before and after the clocks go back.
      event('1', 'incomingMessages', '2025-11-02T05:30:00Z'),
      event('2', 'incomingMessages', '2025-11-02T06:30:00Z'),
      event('3', 'incomingMessages', '2025-11-03T04:59:59.999Z', { user: 'bob' }),
      event('4', 'incomingMessages', '2025-11-03T05:00:00Z'),
    ],
    { org },
  )
  const zone = { period: 'day', timezone: 'America/New_York' }
  expect(await service.data('metrics', { ...zone, startDate: '2025-11-02', endDate: '2025-11-03' }, { org })).toEqual([
    {
      period: 'day',
      periodKey: '2025-11-02',
      startDate: '2025-11-02T04:00:00.000Z',
      endDate: '2025-11-03T05:00:00.000Z',
      ...NOTHING,
      activeUsers: 2,
      incomingMessages: 3,
      total: 3,
    },
  ])
  expect(await service.data('metrics', { ...zone, startDate: '2026-03-08', endDate: '2026-03-09' }, { org })).toEqual([
    {
      period: 'day',
      periodKey: '2026-03-08',
      startDate: '2026-03-08T05:00:00.000Z',
      endDate: '2026-03-09T04:00:00.000Z',
      ...NOTHING,
    },
  ])
})

test('weeks have the year of their Thursday', async () => {
  const weeks = await service.data(
    'metrics',
    { period: 'week', startDate: '2020-12-27', endDate: '2021-01-05' },
    { org: 'weeks' },
  )
  expect(weeks.map(({ periodKey, startDate }: Record<string, string>) => [periodKey, startDate])).toEqual([
    ['2020-W52', '2020-12-27T00:00:00.000Z'],
    ['2020-W53', '2020-12-28T00:00:00.000Z'],
    ['2021-W01', '2021-01-04T00:00:00.000Z'],
  ])
})

test('a day that a zone skipped is not in the list', async () => {
  const days = await service.data(
    'metrics',
    { period: 'day', startDate: '2011-12-29', endDate: '2012-01-01', timezone: 'Pacific/Apia' },
    { org: 'islands' },
  )
  expect(days.map(({ periodKey }: { periodKey: string }) => periodKey)).toEqual(['2011-12-29', '2011-12-31'])
})

test('the first day there is, and an offset of 44 minutes and a half', async () => {
  const org = 'old'
  await service.store(
    [
      event('1', 'incomingMessages', '1970-01-01T00:00:00.000Z'),
      event('2', 'incomingMessages', '1970-01-02T00:44:29.999Z', { user: 'bob' }),
      event('3', 'outgoingMessages', '1970-01-02T00:44:30.000Z'),
      event('4', 'outgoingMessages', '1970-01-02T00:15:00.000Z', { assistant: 'Ada' }),
    ],
    { org },
  )
  const asked = {
    period: 'day',
    startDate: '1970-01-01T00:00Z',
    endDate: '1970-01-03T00:44:30Z',
    timezone: 'Africa/Monrovia',
  }
  const entries = await service.data('metrics', asked, { org })
  expect(seen(entries)).toEqual([
    ['1969-12-31', '1970-01-01T00:00:00.000Z', 1, 1],
    ['1970-01-01', '1970-01-01T00:44:30.000Z', 2, 2],
    ['1970-01-02', '1970-01-02T00:44:30.000Z', 1, 1],
  ])
  expect(seen(await service.data('metrics', { ...asked, assistant: 'Ada' }, { org }))).toEqual([
    ['1969-12-31', '1970-01-01T00:00:00.000Z', 0, 0],
    ['1970-01-01', '1970-01-01T00:44:30.000Z', 1, 1],
    ['1970-01-02', '1970-01-02T00:44:30.000Z', 0, 0],
  ])
})

test('more tasks completed than initiated, as of tasks that began earlier, is a rate above one', async () => {
  const org = 'rates'
  await service.store(
    [
      event('1', 'tasksInitiated', '2026-02-22T10:00:00Z'),
      event('2', 'tasksCompleted', '2026-02-22T10:00:00Z'),
      event('3', 'tasksCompleted', '2026-02-22T10:00:00Z'),
    ],
    { org },
  )
  const [day] = await service.data('metrics', { period: 'day', startDate: '2026-02-22', endDate: '2026-02-23' }, { org })
  expect(day.completionRate).toBe(2)
})

test('the largest figures an event can have add up exactly', async () => {
  const org = 'large'
  const large = { cost: 999_999.999999999, inputTokens: 4_294_967_295, outputTokens: 4_294_967_295 }
  await service.store(
    Array.from({ length: 8 }, (_, index) => event(String(index), 'incomingMessages', '2026-02-22T10:00:00Z', large)),
    { org },
  )
  const [day] = await service.data('metrics', { period: 'day', startDate: '2026-02-22', endDate: '2026-02-23' }, { org })
  expect(day).toMatchObject({ cost: 7_999_999.999999992, inputTokens: 34_359_738_360, outputTokens: 34_359_738_360 })
})

test('so many entries that an answer would take seconds are refused, with the way out', async () => {
  const range = { startDate: '1970-01-01', endDate: '2099-12-31' }
  const { status, body } = await service.request(
    'GET',
    '/analytics/metrics?period=day&startDate=1970-01-01&endDate=2099-12-31',
    {},
  )
  expect(status).toBe(400)
  expect(body.error.details).toEqual([
    {
      parameter: 'period',
      message: 'makes 47481 entries of this range: at most 10000 are answered at once; snapshots has no such limit',
    },
  ])
  expect(await service.data('metrics', { ...range, period: 'month' })).toHaveLength(1_560)
  expect(await service.data('metrics', { ...range, period: 'day', endDate: '1997-05-19' })).toHaveLength(10_000)
})
