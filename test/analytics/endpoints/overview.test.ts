import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { NOTHING, startService, type TestService } from '../../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
  await service.store([
    // The first and the last millisecond of the seven days before 2026-03-01, and one more on either side.
    { id: '1', eventType: 'tasksInitiated', timestamp: '2026-02-21T23:59:59.999Z', assistant: 'Rex', user: 'ann' },
    { id: '2', eventType: 'incomingMessages', timestamp: '2026-02-22T00:00:00.000Z', assistant: 'Rex', user: 'ann' },
    {
      id: '3',
      eventType: 'tasksInitiated',
      timestamp: '2026-02-28T23:59:59.999Z',
      assistant: 'Ada',
      user: 'bob',
      cost: 0.25,
      inputTokens: 7,
      outputTokens: 2,
    },
    { id: '4', eventType: 'tasksCompleted', timestamp: '2026-03-01T00:00:00.000Z', assistant: 'Rex', user: 'ann' },
    // The five minutes before now.
    { id: '5', eventType: 'outgoingMessages', timestamp: '2026-03-01T11:54:59.999Z', assistant: 'Rex', user: 'cid' },
    {
      id: '6',
      eventType: 'incomingMessages',
      timestamp: '2026-03-01T11:55:00.000Z',
      assistant: 'Rex',
      user: 'ann',
      cost: 0.1,
    },
    {
      id: '7',
      eventType: 'incomingMessages',
      timestamp: '2026-03-01T11:59:59.999Z',
      assistant: 'Rex',
      user: 'ann',
      cost: 0.2,
    },
    { id: '8', eventType: 'incomingMessages', timestamp: '2026-03-01T12:00:00.000Z', assistant: 'Rex', user: 'bob' },
  ])
})
afterAll(() => service.close())

const REALTIME = { startDate: '2026-03-01T11:55:00.000Z', endDate: '2026-03-01T12:00:00.000Z' }
const { incomingMessages: _, outgoingMessages, tasksInitiated, tasksCompleted, total, ...QUIET } = NOTHING
const NO_EVENTS = { incomingMessages: 0, outgoingMessages, tasksInitiated, tasksCompleted, total }

test('the week is seven whole days up to the last midnight, and realtime the last five minutes', async () => {
  expect(await service.whole('overview')).toEqual({
    success: true,
    data: {
      period: 'week',
      startDate: '2026-02-22T00:00:00.000Z',
      endDate: '2026-03-01T00:00:00.000Z',
      activeUsers: 2,
      completionRate: 0,
      cost: 0.25,
      inputTokens: 7,
      outputTokens: 2,
      events: { incomingMessages: 1, outgoingMessages: 0, tasksInitiated: 1, tasksCompleted: 0, total: 2 },
      resources: { assistants: 2, users: 2 },
      realtime: {
        ...REALTIME,
        ...NOTHING,
        activeUsers: 1,
        incomingMessages: 2,
        total: 2,
        cost: 0.3,
        lastEventAt: '2026-03-01T11:59:59.999Z',
      },
      computedAt: '2026-03-01T12:00:00.000Z',
    },
  })
})

test('a company without events gets zeros, and null where there is nothing to divide or to date', async () => {
  expect(await service.data('overview', { period: 'day' }, { org: 'nobody yet' })).toEqual({
    period: 'day',
    startDate: '2026-02-28T00:00:00.000Z',
    endDate: '2026-03-01T00:00:00.000Z',
    ...QUIET,
    events: NO_EVENTS,
    resources: { assistants: 0, users: 0 },
    realtime: { ...REALTIME, ...NOTHING, lastEventAt: null },
    computedAt: '2026-03-01T12:00:00.000Z',
  })
})

describe('the days it is about', () => {
  test.each([
    ['day', {}, '2026-02-28T00:00:00.000Z', '2026-03-01T00:00:00.000Z', 1],
    ['month', {}, '2026-01-30T00:00:00.000Z', '2026-03-01T00:00:00.000Z', 3],
    ['day', { timezone: 'Asia/Kathmandu' }, '2026-02-27T18:15:00.000Z', '2026-02-28T18:15:00.000Z', 0],
    ['day', { timezone: 'Pacific/Kiritimati' }, '2026-02-28T10:00:00.000Z', '2026-03-01T10:00:00.000Z', 2],
    ['day', { endDate: '2026-02-22T23:59:59.999Z' }, '2026-02-21T00:00:00.000Z', '2026-02-22T00:00:00.000Z', 1],
    ['day', { endDate: '2026-02-23' }, '2026-02-22T00:00:00.000Z', '2026-02-23T00:00:00.000Z', 1],
    ['day', { endDate: '2026-03-10', timezone: 'America/New_York' }, '2026-03-09T04:00:00.000Z', '2026-03-10T04:00:00.000Z', 0],
    ['day', { endDate: '2026-03-09', timezone: 'America/New_York' }, '2026-03-08T05:00:00.000Z', '2026-03-09T04:00:00.000Z', 0],
    ['week', { endDate: '2025-11-03', timezone: 'America/New_York' }, '2025-10-27T04:00:00.000Z', '2025-11-03T05:00:00.000Z', 0],
  ])('%s %j', async (period, params, startDate, endDate, count) => {
    const data = await service.data('overview', { period, ...params })
    expect({ startDate: data.startDate, endDate: data.endDate, total: data.events.total }).toEqual({
      startDate,
      endDate,
      total: count,
    })
  })
})

test('filters hold for the whole answer, realtime and resources included', async () => {
  const data = await service.data('overview', { assistant: 'Ada' })
  expect(data.resources).toEqual({ assistants: 1, users: 1 })
  expect(data.events.total).toBe(1)
  expect(data.realtime).toEqual({ ...REALTIME, ...NOTHING, lastEventAt: null })
  const ofBoth = await service.data('overview', { user: 'ann', assistant: ['Rex', 'Ada'], period: 'month' })
  expect(ofBoth.resources).toEqual({ assistants: 1, users: 1 })
  expect(ofBoth.events).toEqual({ ...NO_EVENTS, incomingMessages: 1, tasksInitiated: 1, total: 2 })
})

test('the first minutes of a day, when the last five minutes reach into the period', async () => {
  service.setNow('2026-03-01T00:02:00.000Z')
  const data = await service.data('overview', { period: 'day' })
  service.setNow('2026-03-01T12:00:00.000Z')
  expect(data.events).toEqual({ ...NO_EVENTS, tasksInitiated: 1, total: 1 })
  expect(data.realtime).toEqual({
    startDate: '2026-02-28T23:57:00.000Z',
    endDate: '2026-03-01T00:02:00.000Z',
    ...NOTHING,
    activeUsers: 2,
    tasksInitiated: 1,
    tasksCompleted: 1,
    total: 2,
    completionRate: 1,
    cost: 0.25,
    inputTokens: 7,
    outputTokens: 2,
    lastEventAt: '2026-03-01T00:00:00.000Z',
  })
})
