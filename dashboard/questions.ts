/** Which request answers which panel, and the summary that the cards and charts share. No I/O. */
import type { AnalyticsClient, AssistantActivity, Rolling } from '../src/client.ts'
import { addDays, daysOf, PRESETS, type State } from './state.ts'

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000

/** The longest window of /analytics/rolling, days. */
const MAX_WINDOW = 90
/** A range of a day has no trend: its charts show the days that lead up to it. */
const TREND_DAYS = 7
export const EVENTS_A_PAGE = 50
export const TOP_USERS = 10

/**
 * The end of a range that ends now: the next full minute, so that the address of a question, and with it its ETag, holds
 * for a minute.
 */
export const endOf = (now: number): string =>
  new Date((Math.floor(now / MINUTE_MS) + 1) * MINUTE_MS).toISOString().replace('.000Z', 'Z')

/** The methods of the client that the page uses. */
export type Method = 'overview' | 'metrics' | 'rolling' | 'assistants' | 'usersTop' | 'events'

/** A call of the client. */
export interface Question<M extends Method = Method> {
  readonly method: M
  readonly query: NonNullable<Parameters<AnalyticsClient[M]>[0]>
}

export type AnswerTo<M extends Method> = Awaited<ReturnType<AnalyticsClient[M]>>

/** The same for the same question. */
export const nameOf = ({ method, query }: Question): string => JSON.stringify([method, query])

export interface Questions {
  /** For the cards. */
  summary: Question<'rolling' | 'metrics'>
  /** For the charts; the same object as `summary` unless the range is too short to chart. */
  trend: Question<'rolling' | 'metrics'>
  assistants: Question<'assistants'>
  users: Question<'usersTop'>
  events: Question<'events'>
}

/**
 * The request of each panel.
 * @param end where a range ends that ends now, see endOf
 */
export function questionsOf(state: State, end: string): Questions {
  const { assistant, user, timezone, type, cursor } = state
  const range = rangeOf(state, end)
  const ofAssistant = assistant && { assistant }
  const ofUser = user && { user }
  const filters = { ...ofAssistant, ...ofUser, timezone }
  const { endDate } = range
  const rolling = (window: number) => ({ method: 'rolling', query: { window, endDate, ...filters } }) as const
  const summary =
    range.window > 0
      ? rolling(range.window)
      : ({ method: 'metrics', query: { period: 'day', startDate: range.before, endDate, ...filters } } as const)
  const dates = { startDate: range.startDate, endDate }
  return {
    summary,
    trend: range.window === 1 ? rolling(TREND_DAYS) : summary,
    // Both lists are there to choose from, so neither is narrowed by what is chosen from it.
    assistants: { method: 'assistants', query: { ...dates, ...ofUser, timezone } },
    users: { method: 'usersTop', query: { ...dates, limit: TOP_USERS, ...ofAssistant, timezone } },
    events: {
      method: 'events',
      query: { ...dates, ...(type && { eventType: type }), limit: EVENTS_A_PAGE, ...(cursor && { cursor }), ...filters },
    },
  }
}

/** Dates as the API takes them; `window` is days, 0 where /analytics/rolling does not fit the range. */
function rangeOf({ range, from, to, timezone }: State, end: string) {
  if (range !== 'custom') {
    const window: number = PRESETS[range]
    return { startDate: new Date(Date.parse(end) - window * DAY_MS).toISOString(), endDate: end, before: '', window }
  }
  const days = daysOf(from, to)
  const endDate = addDays(to, 1)
  // A window is a number of 24 hours, so where the clocks change within the days or the days before it would be off.
  const before = addDays(from, -days)
  const even = offsetAt(before, timezone) === offsetAt(from, timezone) && offsetAt(from, timezone) === offsetAt(endDate, timezone)
  return { startDate: from, endDate, before, window: even && days <= MAX_WINDOW ? days : 0 }
}

/** Such as GMT+01:00, around the beginning of a day. */
function offsetAt(date: string, timezone: string): string {
  const format = new Intl.DateTimeFormat('en', { timeZone: timezone, timeZoneName: 'longOffset' })
  const nameAt = (instant: number) => format.formatToParts(instant).find(({ type }) => type === 'timeZoneName')?.value ?? ''
  // Midnight UTC is at most 14 hours from the local one; a second look with the offset found there is exact.
  const guess = nameAt(Date.parse(date))
  const [, sign, hours = '0', minutes = '0'] = /([+-])(\d+):(\d+)/.exec(guess) ?? []
  const offset = (Number(hours) * 60 + Number(minutes)) * MINUTE_MS * (sign === '-' ? -1 : 1)
  return nameAt(Date.parse(date) - offset)
}

export type Metrics = AssistantActivity['previous']
/** A calendar day, or the part of one that lies in the range. */
export type Day = Rolling['series'][number]

export interface Summary {
  metrics: Metrics
  previous: Metrics
  series: Day[]
  /** Where false, `activeUsers` is the mean of the days: distinct users of days cannot be added up. */
  distinctUsers: boolean
  startDate: string
  endDate: string
}

/** @param from first day of a custom range, which divides the days of an answer of /analytics/metrics */
export function summaryOf(answer: Rolling | Day[], from: string): Summary {
  if (!Array.isArray(answer)) {
    const { previous, series, startDate, endDate } = answer
    return { metrics: answer, previous, series, distinctUsers: true, startDate, endDate }
  }
  const series = answer.filter(({ periodKey }) => periodKey >= from)
  const earlier = answer.filter(({ periodKey }) => periodKey < from)
  return {
    metrics: sumOf(series),
    previous: sumOf(earlier),
    series,
    distinctUsers: false,
    startDate: series[0]?.startDate ?? '',
    endDate: series.at(-1)?.endDate ?? '',
  }
}

function sumOf(days: readonly Day[]): Metrics {
  const sum = (name: Exclude<keyof Metrics, 'completionRate'>) => days.reduce((total, day) => total + day[name], 0)
  const [tasksInitiated, tasksCompleted] = [sum('tasksInitiated'), sum('tasksCompleted')]
  return {
    activeUsers: days.length === 0 ? 0 : Math.round(sum('activeUsers') / days.length),
    incomingMessages: sum('incomingMessages'),
    outgoingMessages: sum('outgoingMessages'),
    tasksInitiated,
    tasksCompleted,
    total: sum('total'),
    completionRate: tasksInitiated === 0 ? null : tasksCompleted / tasksInitiated,
    cost: sum('cost'),
    inputTokens: sum('inputTokens'),
    outputTokens: sum('outputTokens'),
  }
}

/** Whether a day lies in the range, or in the past, in part only. Days on which clocks change have 23 hours at least. */
export const isPartial = ({ startDate, endDate }: Day, now: number): boolean =>
  Date.parse(endDate) - Date.parse(startDate) < 23 * 3_600_000 || Date.parse(endDate) > now + MINUTE_MS
