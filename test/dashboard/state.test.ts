import { describe, expect, it } from 'vitest'
import { endOf, isPartial, questionsOf, summaryOf, type Day } from '../../dashboard/questions.ts'
import { addDays, rangeFault, readState, writeState, type State } from '../../dashboard/state.ts'

const END = '2026-03-01T12:01:00Z'
const read = (search: string) => readState(search, 'Europe/Berlin')
const questions = (search: string) => questionsOf(read(search), END)

describe('the state in an address', () => {
  const states: State[] = [
    read(''),
    read('?range=24h&timezone=Asia/Tokyo'),
    read('?range=90d&assistant=a%20b%26c&user=%3D%2B%25&type=tasksCompleted&cursor=abc'),
    read('?from=2026-02-01&to=2026-02-28&timezone=UTC'),
  ]
  it.each(states)('is read as it was written: $range', (state) => expect(read(writeState(state))).toEqual(state))

  it('names the time zone, so that a link says the same everywhere', () => {
    expect(writeState(read(''))).toBe('?range=7d&timezone=Europe%2FBerlin')
  })

  it.each([
    '?range=1y',
    '?range=toString',
    '?from=2026-02-30&to=2026-03-01',
    '?from=2026-03-02&to=2026-03-01',
    '?from=2020-01-01&to=2026-03-01',
    '?from=2026-03-01',
    '?timezone=Mars/Olympus',
    '?type=other',
  ])('falls back where it makes no sense: %s', (search) => expect(read(search)).toEqual(read('')))

  it('takes up to a leap year of days', () => {
    expect(rangeFault('2024-01-01', '2024-12-31')).toBe('')
    expect(rangeFault('2024-01-01', '2025-01-01')).toMatch(/366/)
    expect(addDays('2024-02-28', 1)).toBe('2024-02-29')
  })
})

describe('the questions', () => {
  const filters = { assistant: 'a', user: 'u', timezone: 'UTC' }
  const dates = { startDate: '2026-02-22T12:01:00.000Z', endDate: END }

  it('are one for the cards and charts, and one for each list', () => {
    expect(questions('?range=7d&timezone=UTC&assistant=a&user=u&type=tasksInitiated&cursor=c')).toEqual({
      summary: { method: 'rolling', query: { window: 7, endDate: END, ...filters } },
      trend: { method: 'rolling', query: { window: 7, endDate: END, ...filters } },
      assistants: { method: 'assistants', query: { ...dates, user: 'u', timezone: 'UTC' } },
      users: { method: 'usersTop', query: { ...dates, limit: 10, assistant: 'a', timezone: 'UTC' } },
      events: { method: 'events', query: { ...dates, eventType: 'tasksInitiated', limit: 50, cursor: 'c', ...filters } },
    })
  })

  it('name no filter that is not set', () => {
    const { summary, trend, assistants, users, events } = questions('?range=7d&timezone=UTC')
    expect(trend).toBe(summary)
    const timezone = 'UTC'
    expect([summary, assistants, users, events].map(({ query }) => query)).toStrictEqual([
      { window: 7, endDate: END, timezone },
      { ...dates, timezone },
      { ...dates, limit: 10, timezone },
      { ...dates, limit: 50, timezone },
    ])
  })

  it('show the days that lead up to a range of one day', () => {
    const { summary, trend } = questions('?range=24h')
    expect(summary.query).toMatchObject({ window: 1 })
    expect(trend.query).toMatchObject({ window: 7 })
  })

  it('keep their addresses for a minute', () => {
    expect(endOf(Date.parse('2026-03-01T12:00:00.000Z'))).toBe(END)
    expect(endOf(Date.parse('2026-03-01T12:00:59.999Z'))).toBe(END)
    expect(endOf(Date.parse('2026-03-01T12:01:00.000Z'))).toBe('2026-03-01T12:02:00Z')
  })

  it.each([
    ['of whole days of 24 hours are windows', '?from=2026-02-01&to=2026-02-14', 'rolling', { window: 14, endDate: '2026-02-15' }],
    [
      'in which the clocks change are added up from days',
      '?from=2026-03-20&to=2026-03-30',
      'metrics',
      { period: 'day', startDate: '2026-03-09', endDate: '2026-03-31' },
    ],
    [
      'after one in which they change, too',
      '?from=2026-03-30&to=2026-04-02',
      'metrics',
      { period: 'day', startDate: '2026-03-26', endDate: '2026-04-03' },
    ],
    [
      'unless the zone has no such clocks',
      '?from=2026-03-20&to=2026-03-30&timezone=UTC',
      'rolling',
      { window: 11, endDate: '2026-03-31' },
    ],
    [
      'of exactly the day of the change as well',
      '?from=2026-03-29&to=2026-03-29',
      'metrics',
      { period: 'day', startDate: '2026-03-28', endDate: '2026-03-30' },
    ],
    [
      'longer than a window are added up from days',
      '?from=2026-01-01&to=2026-04-30&timezone=UTC',
      'metrics',
      { period: 'day', startDate: '2025-09-03', endDate: '2026-05-01' },
    ],
  ])('about custom ranges %s', (_, search, method, query) => {
    expect(questions(search).summary).toMatchObject({ method, query })
  })
})

const day = (periodKey: string, more: Partial<Day> = {}): Day => ({
  periodKey,
  startDate: `${periodKey}T00:00:00.000Z`,
  endDate: `${addDays(periodKey, 1)}T00:00:00.000Z`,
  activeUsers: 0,
  incomingMessages: 0,
  outgoingMessages: 0,
  tasksInitiated: 0,
  tasksCompleted: 0,
  total: 0,
  completionRate: null,
  cost: 0,
  inputTokens: 0,
  outputTokens: 0,
  ...more,
})

describe('the summary of days', () => {
  it('adds the range and the one before, and says that users are a mean', () => {
    const days = [
      day('2026-03-01', { total: 5, activeUsers: 4 }),
      day('2026-03-02', { total: 7, activeUsers: 6, tasksInitiated: 4, tasksCompleted: 1 }),
      day('2026-03-03', { total: 1, activeUsers: 1, tasksInitiated: 4, tasksCompleted: 4 }),
    ]
    const summary = summaryOf(days, '2026-03-02')
    expect(summary.metrics).toMatchObject({ total: 8, activeUsers: 4, tasksInitiated: 8, completionRate: 5 / 8 })
    expect(summary.previous).toMatchObject({ total: 5, activeUsers: 4, completionRate: null })
    expect(summary).toMatchObject({
      distinctUsers: false,
      startDate: '2026-03-02T00:00:00.000Z',
      endDate: '2026-03-04T00:00:00.000Z',
    })
    expect(summary.series).toEqual(days.slice(1))
  })

  it('tells a part of a day from a short day', () => {
    const now = Date.parse('2026-03-10T12:00:00Z')
    expect(isPartial(day('2026-03-01'), now)).toBe(false)
    expect(isPartial(day('2026-03-01', { startDate: '2026-03-01T01:00:00.000Z' }), now)).toBe(false)
    expect(isPartial(day('2026-03-01', { startDate: '2026-03-01T09:00:00.000Z' }), now)).toBe(true)
    expect(isPartial(day('2026-03-10'), now)).toBe(true)
  })
})
