import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startService, type TestService } from '../../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
})
afterAll(() => service.close())

const event = (id: string, timestamp: string) => ({
  id,
  eventType: 'incomingMessages',
  timestamp,
  assistant: 'Rex',
  user: 'ann',
})
const idsOf = ({ data }: { data: Array<{ id: string }> }) => data.map(({ id }) => id)
/** A cursor as the service writes them. */
const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

const DAY = { startDate: '2026-02-22', endDate: '2026-02-23' }

test('every field comes back as it was sent, and null, 0 or a made-up id where it was not', async () => {
  const org = 'fields'
  await service.store(
    [
      {
        id: 'evt-1',
        eventType: 'outgoingMessages',
        timestamp: '2026-02-22T10:00:30.123+05:45',
        assistant: 'Rex',
        user: 'ann',
        cost: 0.001234567,
        inputTokens: 1200,
        outputTokens: 34,
        model: 'small-1',
        traceId: 'trace-9',
        metadata: { channel: 'mail', tries: 2, nested: { list: [1, null, 'ü', '\u2028', '\ud83d\ude00'] }, empty: {} },
      },
      { eventType: 'tasksInitiated', timestamp: '2026-02-22T00:00:00Z', assistant: 'Rex', user: 'ann', metadata: {} },
    ],
    { org },
  )
  expect(await service.whole('events', DAY, { org })).toEqual({
    success: true,
    data: [
      {
        id: 'evt-1',
        eventType: 'outgoingMessages',
        timestamp: '2026-02-22T04:15:30.123Z',
        assistant: 'Rex',
        user: 'ann',
        cost: 0.001234567,
        inputTokens: 1200,
        outputTokens: 34,
        model: 'small-1',
        traceId: 'trace-9',
        metadata: { channel: 'mail', tries: 2, nested: { list: [1, null, 'ü', '\u2028', '\ud83d\ude00'] }, empty: {} },
      },
      {
        id: expect.stringMatching(/^.{1,256}$/),
        eventType: 'tasksInitiated',
        timestamp: '2026-02-22T00:00:00.000Z',
        assistant: 'Rex',
        user: 'ann',
        cost: 0,
        inputTokens: 0,
        outputTokens: 0,
        model: null,
        traceId: null,
        metadata: {},
      },
    ],
    pagination: { limit: 50, skip: 0, total: 2, nextCursor: null },
  })
})

test('events of one millisecond are in one order, whatever the page', async () => {
  const org = 'ties'
  // By bytes of UTF-8, the larger first; UTF-16 would have the last two the other way round.
  const ids = ['b', 'a', 'B', 'é', '～', '\ud835\udcb3']
  await service.store(
    ids.map((id) => event(id, '2026-02-22T10:00:00Z')),
    { org },
  )
  const wanted = ['\ud835\udcb3', '～', 'é', 'b', 'a', 'B']
  expect(idsOf(await service.whole('events', DAY, { org }))).toEqual(wanted)

  const bySkip = []
  for (let skip = 0; skip < 6; skip++) bySkip.push(...idsOf(await service.whole('events', { ...DAY, limit: 1, skip }, { org })))
  expect(bySkip).toEqual(wanted)

  const byCursor = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const page = await service.whole('events', { ...DAY, limit: 1, ...(cursor ? { cursor } : {}) }, { org })
    byCursor.push(...idsOf(page))
    cursor = page.pagination.nextCursor
  }
  expect(byCursor).toEqual(wanted)
})

test('events that come while somebody pages by cursor do not move the pages', async () => {
  const org = 'moving'
  await service.store(
    [event('1', '2026-02-22T10:00:00Z'), event('2', '2026-02-22T11:00:00Z'), event('3', '2026-02-22T12:00:00Z')],
    { org },
  )
  const first = await service.whole('events', { ...DAY, limit: 2 }, { org })
  await service.store([event('new', '2026-02-22T13:00:00Z'), event('late', '2026-02-22T10:30:00Z')], { org })
  const second = await service.whole('events', { ...DAY, limit: 2, cursor: first.pagination.nextCursor }, { org })
  expect([idsOf(first), idsOf(second)]).toEqual([
    ['3', '2'],
    ['late', '1'],
  ])
  expect(second.pagination).toEqual({ limit: 2, skip: 0, total: 5, nextCursor: null })
})

test('the total is that of the filter, the page is not', async () => {
  const org = 'totals'
  const type = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted']
  await service.store(
    Array.from({ length: 12 }, (_, index) => ({
      id: String(index).padStart(2, '0'),
      eventType: type[index % 4],
      timestamp: '2026-02-22T10:00:00Z',
      assistant: index % 2 ? 'Rex' : 'Ada',
      user: index % 3 ? 'ann' : 'bob',
    })),
    { org },
  )
  const page = async (params: object) => {
    const { data, pagination } = await service.whole('events', { ...DAY, ...params }, { org })
    return [pagination.total, data.map(({ id }: { id: string }) => id)]
  }
  expect(await page({ eventType: 'tasksCompleted', limit: 2 })).toEqual([3, ['11', '07']])
  expect(await page({ eventType: 'tasksCompleted', assistant: 'Ada' })).toEqual([0, []])
  expect(await page({ eventType: 'incomingMessages', user: 'bob', limit: 1 })).toEqual([1, ['00']])
  expect(await page({ user: 'bob', assistant: ['Rex', 'Ada'], limit: 1, skip: 1 })).toEqual([4, ['06']])
  expect(await page({ skip: 12 })).toEqual([12, []])
})

describe('cursors that this endpoint did not hand out', () => {
  test.each([
    ['no base64', '%%%'],
    ['no JSON', Buffer.from('hello').toString('base64url')],
    ['another shape', encoded({ at: 1, id: 'x' })],
    ['too few', encoded([1])],
    ['too many', encoded([1, 'x', 2])],
    ['a time before there was any', encoded([-1, 'x'])],
    ['a time beyond any', encoded([2 ** 53, 'x'])],
    ['a fraction of a time', encoded([1.5, 'x'])],
    ['no text for an id', encoded([1, 2])],
  ])('%s', async (_, cursor) => {
    const { status, body } = await service.get('events', { ...DAY, cursor })
    expect([status, body.error.details]).toEqual([400, [{ parameter: 'cursor', message: expect.any(String) }]])
  })

  test.each([
    ['a lone surrogate', '\ud800'],
    ['NUL', 'a\0b'],
    ['line ends, tabs and quotes', "a\n\t\r'\\N"],
    ['SQL', "') OR 1 = 1 --"],
  ])('an id with %s is no server error', async (_, id) => {
    const { status } = await service.get('events', { ...DAY, cursor: encoded([Date.parse('2026-02-22'), id]) })
    expect([200, 400]).toContain(status)
  })

  test('one of another range finds nothing that is outside this one', async () => {
    const org = 'ranges'
    await service.store(
      [event('1', '2026-02-21T10:00:00Z'), event('2', '2026-02-22T11:00:00Z'), event('3', '2026-02-24T12:00:00Z')],
      { org },
    )
    const { data } = await service.whole('events', { ...DAY, cursor: encoded([Date.parse('2026-02-25'), 'x']) }, { org })
    expect(data.map(({ id }: { id: string }) => id)).toEqual(['2'])
  })

  test('a cursor and skip together are refused: what they mean together is not defined', async () => {
    const { status, body } = await service.get('events', { ...DAY, skip: 1, cursor: encoded([1, 'x']) })
    expect([status, body.error.details[0].parameter]).toEqual([400, 'skip'])
  })
})
