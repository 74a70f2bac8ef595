import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { NOTHING, startService, type TestService } from '../../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
})
afterAll(() => service.close())

const { activeUsers: _, ...NO_FIGURES } = NOTHING
const RANGE = { startDate: '2026-02-01', endDate: '2026-03-01' }

const event = (id: string, user: string, timestamp = '2026-02-22T10:00:00Z', rest: object = {}) => ({
  id,
  eventType: 'incomingMessages',
  timestamp,
  assistant: 'Rex',
  user,
  ...rest,
})

test('the most active first, each with all figures, its assistants and when it was last seen', async () => {
  const org = 'users'
  await service.store(
    [
      event('1', 'early', '2026-01-31T23:59:59.999Z'),
      event('2', 'ann', '2026-02-01T00:00:00.000Z', { eventType: 'tasksInitiated', cost: 0.1, inputTokens: 5 }),
      event('3', 'ann', '2026-02-10T00:00:00.000Z', {
        eventType: 'tasksCompleted',
        assistant: 'Ada',
        cost: 0.2,
        outputTokens: 6,
      }),
      event('4', 'bob', '2026-02-28T23:59:59.999Z'),
      event('5', 'late', '2026-03-01T00:00:00.000Z'),
    ],
    { org },
  )
  expect(await service.whole('users/top', RANGE, { org })).toEqual({
    success: true,
    data: [
      {
        user: 'ann',
        ...NO_FIGURES,
        tasksInitiated: 1,
        tasksCompleted: 1,
        total: 2,
        completionRate: 1,
        cost: 0.3,
        inputTokens: 5,
        outputTokens: 6,
        assistants: 2,
        lastActiveAt: '2026-02-10T00:00:00.000Z',
      },
      {
        user: 'bob',
        ...NO_FIGURES,
        incomingMessages: 1,
        total: 1,
        assistants: 1,
        lastActiveAt: '2026-02-28T23:59:59.999Z',
      },
    ],
  })
})

test('nobody', async () => {
  expect(await service.whole('users/top', RANGE, { org: 'nobody yet' })).toEqual({ success: true, data: [] })
})

test('with a filter, the figures are those of what it lets through', async () => {
  const org = 'filtered'
  await service.store(
    [
      event('1', 'ann'),
      event('2', 'ann', '2026-02-22T11:00:00Z', { assistant: 'Ada' }),
      event('3', 'ann', '2026-02-22T12:00:00Z', { assistant: 'Ada' }),
      event('4', 'bob', '2026-02-22T10:00:00Z'),
      event('5', 'bob', '2026-02-22T10:00:00Z'),
    ],
    { org },
  )
  const top = async (params: object) => {
    const data = await service.data('users/top', { ...RANGE, ...params }, { org })
    return data.map(({ user, total, assistants, lastActiveAt }: Record<string, unknown>) => [
      user,
      total,
      assistants,
      lastActiveAt,
    ])
  }
  expect(await top({ assistant: 'Rex' })).toEqual([
    ['bob', 2, 1, '2026-02-22T10:00:00.000Z'],
    ['ann', 1, 1, '2026-02-22T10:00:00.000Z'],
  ])
  expect(await top({ user: 'ann' })).toEqual([['ann', 3, 2, '2026-02-22T12:00:00.000Z']])
  expect(await top({ user: ['ann', 'bob'], assistant: ['Ada'] })).toEqual([['ann', 2, 1, '2026-02-22T12:00:00.000Z']])
})

describe('ties at the end of the list', () => {
  // In the order of their bytes in UTF-8; in UTF-16 the last two are the other way round.
  const names = ['B', 'a', 'b', 'é', '～', '\ud835\udcb3']
  beforeAll(() =>
    service.store([event('0', 'zz'), event('00', 'zz'), ...names.toReversed().map((name) => event(name, name))], {
      org: 'ties',
    }),
  )

  test.each([1, 2, 3, 5, 6, 7, 8])('limit %i', async (limit) => {
    const data = await service.data('users/top', { ...RANGE, limit }, { org: 'ties' })
    expect(data.map(({ user }: { user: string }) => user)).toEqual(['zz', ...names].slice(0, limit))
  })

  test('of more users than are ranked at first', async () => {
    const org = 'crowd'
    // Written in another order than that of their names.
    const crowd = Array.from({ length: 2_500 }, (_unused, index) => `user ${String((index * 1_009) % 2_500).padStart(4, '0')}`)
    await service.store([event('first', 'zz'), event('second', 'zz'), ...crowd.map((name) => event(name, name))], {
      org,
    })
    for (const limit of [1, 2, 100, 1_000]) {
      const data = await service.data('users/top', { ...RANGE, limit }, { org })
      expect(data.map(({ user }: { user: string }) => user)).toEqual(['zz', ...crowd.toSorted()].slice(0, limit))
      expect(data.slice(1).every(({ total }: { total: number }) => total === 1)).toBe(true)
    }
  })
})
