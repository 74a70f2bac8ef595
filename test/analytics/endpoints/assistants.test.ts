import { afterAll, beforeAll, expect, test } from 'vitest'
import { NO_CHANGE, NOTHING, startService, type TestService } from '../../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
})
afterAll(() => service.close())

const event = (id: string, assistant: string, timestamp: string, rest: object = {}) => ({
  id,
  eventType: 'incomingMessages',
  timestamp,
  assistant,
  user: 'ann',
  ...rest,
})

test('the busiest first, and those that fell idle last, with zeros and when they were last seen', async () => {
  const org = 'fleet'
  await service.store(
    [
      event('1', 'gone', '2026-02-19T23:59:59.999Z'),
      event('2', 'idle', '2026-02-20T00:00:00.000Z', { cost: 2 }),
      event('3', 'Rex', '2026-02-21T00:00:00.000Z', { user: 'bob' }),
      event('4', 'Rex', '2026-02-22T00:00:00.000Z', { eventType: 'tasksInitiated' }),
      event('5', 'Rex', '2026-02-23T23:59:59.999Z', {
        eventType: 'tasksCompleted',
        user: 'bob',
        cost: 1.5,
        inputTokens: 3,
        outputTokens: 4,
      }),
      event('6', 'new', '2026-02-23T12:00:00.000Z'),
      event('7', 'later', '2026-02-24T00:00:00.000Z'),
    ],
    { org },
  )
  const range = { startDate: '2026-02-22', endDate: '2026-02-24' }
  expect(await service.whole('assistants', range, { org })).toEqual({
    success: true,
    data: [
      {
        assistant: 'Rex',
        ...NOTHING,
        activeUsers: 2,
        tasksInitiated: 1,
        tasksCompleted: 1,
        total: 2,
        completionRate: 1,
        cost: 1.5,
        inputTokens: 3,
        outputTokens: 4,
        share: 2 / 3,
        idle: false,
        lastActiveAt: '2026-02-23T23:59:59.999Z',
        previous: { ...NOTHING, activeUsers: 1, incomingMessages: 1, total: 1 },
        change: { ...NO_CHANGE, activeUsers: 1, incomingMessages: -1, total: 1 },
      },
      {
        assistant: 'new',
        ...NOTHING,
        activeUsers: 1,
        incomingMessages: 1,
        total: 1,
        share: 1 / 3,
        idle: false,
        lastActiveAt: '2026-02-23T12:00:00.000Z',
        previous: NOTHING,
        change: NO_CHANGE,
      },
      {
        assistant: 'idle',
        ...NOTHING,
        share: 0,
        idle: true,
        lastActiveAt: '2026-02-20T00:00:00.000Z',
        previous: { ...NOTHING, activeUsers: 1, incomingMessages: 1, total: 1, cost: 2 },
        change: { ...NO_CHANGE, activeUsers: -1, incomingMessages: -1, total: -1, cost: -1 },
      },
    ],
  })
})

test('assistants as busy as each other are in the order of the bytes of their names', async () => {
  const org = 'ties'
  const names = ['é', 'b', '\ud835\udcb3', 'a', '～', 'B']
  await service.store(
    names.map((name, index) => event(String(index), name, '2026-02-22T10:00:00Z')),
    { org },
  )
  const data = await service.data('assistants', { startDate: '2026-02-22', endDate: '2026-02-23' }, { org })
  expect(data.map(({ assistant }: { assistant: string }) => assistant)).toEqual(['B', 'a', 'b', 'é', '～', '\ud835\udcb3'])
})

test('shares are of what the filters let through', async () => {
  const org = 'shares'
  await service.store(
    [
      event('1', 'Rex', '2026-02-22T10:00:00Z'),
      event('2', 'Rex', '2026-02-22T10:00:00Z', { user: 'bob' }),
      event('3', 'Ada', '2026-02-22T10:00:00Z'),
      event('4', 'Ada', '2026-02-22T10:00:00Z', { user: 'bob' }),
      event('5', 'Eve', '2026-02-22T10:00:00Z', { user: 'cid' }),
    ],
    { org },
  )
  const shares = async (params: object) => {
    const data = await service.data('assistants', { startDate: '2026-02-22', endDate: '2026-02-23', ...params }, { org })
    return data.map(({ assistant, share }: { assistant: string; share: number }) => [assistant, share])
  }
  expect(await shares({ user: 'ann' })).toEqual([
    ['Ada', 0.5],
    ['Rex', 0.5],
  ])
  expect(await shares({ assistant: ['Rex', 'Eve'] })).toEqual([
    ['Rex', 2 / 3],
    ['Eve', 1 / 3],
  ])
  expect(await shares({ assistant: ['Rex', 'Eve'], user: ['bob'] })).toEqual([['Rex', 1]])
  expect(await shares({ user: 'nobody' })).toEqual([])
})

test('the range before the first of all ranges', async () => {
  const org = 'old'
  await service.store([event('1', 'Rex', '1970-01-01T00:00:00Z')], { org })
  const [rex, ...others] = await service.data('assistants', { startDate: '1970-01-01', endDate: '1970-01-02' }, { org })
  expect([rex.total, rex.previous, others]).toEqual([1, NOTHING, []])
})

test('an idle assistant whose range before reaches back beyond 1970', async () => {
  const org = 'older'
  await service.store([event('1', 'Rex', '1970-01-01T01:00:00Z')], { org })
  const [rex] = await service.data('assistants', { startDate: '1970-01-01T02:00Z', endDate: '1970-03-02' }, { org })
  expect([rex.total, rex.idle, rex.previous.total, rex.lastActiveAt]).toEqual([0, true, 1, '1970-01-01T01:00:00.000Z'])
})
