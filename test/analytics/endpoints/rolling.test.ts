import { afterAll, beforeAll, expect, test } from 'vitest'
import { NO_CHANGE, NOTHING, startService, type TestService } from '../../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
  await service.store([
    {
      id: '1',
      eventType: 'tasksInitiated',
      timestamp: '2026-02-25T12:00:00.000Z',
      assistant: 'Rex',
      user: 'ann',
      cost: 4,
      inputTokens: 100,
    },
    { id: '2', eventType: 'tasksInitiated', timestamp: '2026-02-26T10:00:00.000Z', assistant: 'Rex', user: 'bob' },
    { id: '3', eventType: 'tasksCompleted', timestamp: '2026-02-27T11:59:59.999Z', assistant: 'Rex', user: 'ann' },
    {
      id: '4',
      eventType: 'tasksInitiated',
      timestamp: '2026-02-27T12:00:00.000Z',
      assistant: 'Rex',
      user: 'ann',
      cost: 3,
      inputTokens: 50,
    },
    { id: '5', eventType: 'tasksCompleted', timestamp: '2026-03-01T11:59:59.999Z', assistant: 'Ada', user: 'ann' },
    { id: '6', eventType: 'incomingMessages', timestamp: '2026-03-01T12:00:00.000Z', assistant: 'Rex', user: 'ann' },
  ])
})
afterAll(() => service.close())

test('48 hours up to now, the 48 before, how each figure moved, and a row for each day touched', async () => {
  expect(await service.whole('rolling', { window: 2 })).toEqual({
    success: true,
    data: {
      window: 2,
      startDate: '2026-02-27T12:00:00.000Z',
      endDate: '2026-03-01T12:00:00.000Z',
      ...NOTHING,
      activeUsers: 1,
      tasksInitiated: 1,
      tasksCompleted: 1,
      total: 2,
      completionRate: 1,
      cost: 3,
      inputTokens: 50,
      previous: {
        startDate: '2026-02-25T12:00:00.000Z',
        endDate: '2026-02-27T12:00:00.000Z',
        ...NOTHING,
        activeUsers: 2,
        tasksInitiated: 2,
        tasksCompleted: 1,
        total: 3,
        completionRate: 0.5,
        cost: 4,
        inputTokens: 100,
      },
      change: {
        activeUsers: -0.5,
        // Null, not 0: before, there was nothing to compare with.
        incomingMessages: null,
        outgoingMessages: null,
        tasksInitiated: -0.5,
        tasksCompleted: 0,
        total: -1 / 3,
        completionRate: 1,
        cost: -0.25,
        inputTokens: -0.5,
        outputTokens: null,
      },
      series: [
        {
          periodKey: '2026-02-27',
          startDate: '2026-02-27T12:00:00.000Z',
          endDate: '2026-02-28T00:00:00.000Z',
          ...NOTHING,
          activeUsers: 1,
          tasksInitiated: 1,
          total: 1,
          completionRate: 0,
          cost: 3,
          inputTokens: 50,
        },
        {
          periodKey: '2026-02-28',
          startDate: '2026-02-28T00:00:00.000Z',
          endDate: '2026-03-01T00:00:00.000Z',
          ...NOTHING,
        },
        {
          periodKey: '2026-03-01',
          startDate: '2026-03-01T00:00:00.000Z',
          endDate: '2026-03-01T12:00:00.000Z',
          ...NOTHING,
          activeUsers: 1,
          tasksCompleted: 1,
          total: 1,
        },
      ],
    },
  })
})

test('a user of several days is one active user of the window', async () => {
  const { activeUsers, series } = await service.data('rolling', { window: 7, user: 'ann' })
  expect(activeUsers).toBe(1)
  expect(series.map((day: { activeUsers: number }) => day.activeUsers)).toEqual([0, 0, 0, 1, 0, 1, 0, 1])
})

test('a company without events', async () => {
  const data = await service.data('rolling', { window: 1, endDate: '2026-02-01' }, { org: 'nobody yet' })
  expect(data).toEqual({
    window: 1,
    startDate: '2026-01-31T00:00:00.000Z',
    endDate: '2026-02-01T00:00:00.000Z',
    ...NOTHING,
    previous: { startDate: '2026-01-30T00:00:00.000Z', endDate: '2026-01-31T00:00:00.000Z', ...NOTHING },
    change: NO_CHANGE,
    series: [
      {
        periodKey: '2026-01-31',
        startDate: '2026-01-31T00:00:00.000Z',
        endDate: '2026-02-01T00:00:00.000Z',
        ...NOTHING,
      },
    ],
  })
})

test('windows are of 24 hours: over a change of the clocks the series has a short day, part of another', async () => {
  const data = await service.data('rolling', { window: 2, endDate: '2026-03-09', timezone: 'America/New_York' })
  expect(data.startDate).toBe('2026-03-07T04:00:00.000Z')
  expect(data.series.map(({ periodKey, startDate, endDate }: Record<string, string>) => [periodKey, startDate, endDate])).toEqual(
    [
      ['2026-03-06', '2026-03-07T04:00:00.000Z', '2026-03-07T05:00:00.000Z'],
      ['2026-03-07', '2026-03-07T05:00:00.000Z', '2026-03-08T05:00:00.000Z'],
      ['2026-03-08', '2026-03-08T05:00:00.000Z', '2026-03-09T04:00:00.000Z'],
    ],
  )
})

test('windows that reach back beyond 1970', async () => {
  const org = 'old'
  await service.store(
    [{ id: '1', eventType: 'incomingMessages', timestamp: '1970-01-02T05:00:00Z', assistant: 'Rex', user: 'ann' }],
    { org },
  )
  for (const [window, endDate] of [
    [1, '1970-01-03'],
    [2, '1970-01-03T00:00:00.001Z'],
    [90, '1970-01-03T06:07Z'],
  ] as const) {
    const { total, previous, series } = await service.data('rolling', { window, endDate }, { org })
    expect({ window, total, before: previous.total }).toEqual({ window, total: 1, before: 0 })
    expect(series.reduce((sum: number, day: { total: number }) => sum + day.total, 0)).toBe(1)
  }
  const beyond = await service.data('rolling', { window: 7, endDate: '1970-01-01T00:00:00.000Z' }, { org })
  expect([beyond.total, beyond.series.length, beyond.startDate]).toEqual([0, 7, '1969-12-25T00:00:00.000Z'])
})
