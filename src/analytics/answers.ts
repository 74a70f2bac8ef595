/**
 * What every answer holds, field by field, and nothing else: the reference and the client's types come from here, and
 * the tests hold real answers against it.
 */
import * as v from 'valibot'
import { EVENT_TYPES } from '../domain/event.ts'
import { answerOf, count, flag, instant, orNull, text, usd, whatIs } from '../domain/response-fields.ts'
import { jsonObject } from '../domain/schemas.ts'
import { PERIODS } from '../time/periods.ts'
import type { ENDPOINTS } from './endpoints/index.ts'
import { METRICS, type Severity } from './regressions/baseline.ts'

const counts = {
  incomingMessages: count('Messages received from users.'),
  outgoingMessages: count('Messages sent by assistants.'),
  tasksInitiated: count('Tasks created and started.'),
  tasksCompleted: count('Tasks that reached completion.'),
  total: count('All four together.'),
}

const costs = {
  completionRate: orNull(
    v.pipe(v.number(), v.minValue(0)),
    'tasksCompleted / tasksInitiated; null where none was initiated. Above 1 where tasks of before were completed.',
  ),
  cost: usd('USD.'),
  inputTokens: count('Tokens read by models.'),
  outputTokens: count('Tokens written by models.'),
}

const activeUsers = { activeUsers: count('Distinct users with an event, exact.') }
const metrics = { ...activeUsers, ...counts, ...costs }
const span = { startDate: instant('First moment, UTC.'), endDate: instant('End, not part of it.') }
const periodKey = text('2026-02-22, 2026-W08 or 2026-02, by the period.')
const period = whatIs(PERIODS, 'As asked.')

const moved = (what: string) =>
  orNull(v.number(), `${what}: (now - before) / before; null where there is nothing to divide by.`)
export const Change = v.pipe(
  v.strictObject({
    activeUsers: moved('activeUsers'),
    incomingMessages: moved('incomingMessages'),
    outgoingMessages: moved('outgoingMessages'),
    tasksInitiated: moved('tasksInitiated'),
    tasksCompleted: moved('tasksCompleted'),
    total: moved('total'),
    completionRate: moved('completionRate'),
    cost: moved('cost'),
    inputTokens: moved('inputTokens'),
    outputTokens: moved('outputTokens'),
  }),
  v.description('How each figure moved against the range of the same length before.'),
)

export const Overview = v.strictObject({
  period,
  ...span,
  ...activeUsers,
  ...costs,
  events: v.pipe(v.strictObject(counts), v.description('Events of the period.')),
  resources: v.pipe(
    v.strictObject({
      assistants: count('Distinct assistants with an event.'),
      users: count('Distinct users with an event.'),
    }),
    v.description('Who was there in the period.'),
  ),
  realtime: v.pipe(
    v.strictObject({
      ...span,
      ...metrics,
      lastEventAt: orNull(instant('UTC.'), 'When the last event happened; null where none did.'),
    }),
    v.description('The last five minutes.'),
  ),
  computedAt: instant('When this was answered.'),
})

export const MetricsEntry = v.strictObject({ period, periodKey, ...span, ...metrics })

export const Rolling = v.strictObject({
  window: count('Days of 24 hours, as asked.'),
  ...span,
  ...metrics,
  previous: v.pipe(v.strictObject({ ...span, ...metrics }), v.description('The window before it.')),
  change: Change,
  series: v.pipe(
    v.array(v.strictObject({ periodKey, ...span, ...metrics })),
    v.description('A calendar day each, oldest first; the first and the last cover only what lies in the window.'),
  ),
})

export const Event = v.strictObject({
  id: text('As it was sent, or made up.'),
  eventType: whatIs(EVENT_TYPES, 'What happened.'),
  timestamp: instant('When it happened.'),
  assistant: text('Which assistant.'),
  user: orNull(v.pipe(v.string(), v.minLength(1)), 'Which user; null where it was removed.'),
  cost: usd('USD; 0 where none was sent.'),
  inputTokens: count('0 where none were sent.'),
  outputTokens: count('0 where none were sent.'),
  model: orNull(v.string(), 'The model that was called.'),
  traceId: orNull(v.string(), 'Its trace in AGNT Traces.'),
  metadata: orNull(jsonObject, 'Whatever was sent with it.'),
})

export const Pagination = v.strictObject({
  limit: count('Events a page.'),
  skip: count('Events passed over.'),
  total: count('Events of the range, after the filters.'),
  nextCursor: orNull(v.string(), '`cursor` of the next page; null on the last.'),
})

export const AssistantActivity = v.strictObject({
  assistant: text('Its id.'),
  ...metrics,
  share: v.pipe(v.number(), v.minValue(0), v.maxValue(1), v.description('Its part of all events of the range.')),
  idle: flag('No event in the range, though there were some in the range before.'),
  lastActiveAt: instant('Its last event in the range, or in the one before.'),
  previous: v.pipe(v.strictObject(metrics), v.description('The range of the same length before.')),
  change: Change,
})

export const TopUser = v.strictObject({
  user: text('Its id.'),
  ...counts,
  ...costs,
  assistants: count('Distinct assistants the user was active with.'),
  lastActiveAt: instant('Its last event in the range.'),
})

export const Snapshot = v.strictObject({
  period,
  periodKey,
  ...span,
  final: flag('The period is over: only a late event can still change the row.'),
  ...metrics,
})

const atLeastZero = (description: string) => v.pipe(v.number(), v.minValue(0), v.description(description))
const severity = v.picklist(['warning', 'critical'] satisfies Severity[])

const compared = {
  metric: whatIs(METRICS, 'The figure; `idle` counts all events of what fell silent, `costPerMessage` divides by messages both ways.'),
  hours: atLeastZero('How many of the last hours are compared: the window, or the half, quarter or eighth of it that shows it best.'),
  current: atLeastZero('In those hours.'),
  median: atLeastZero('Of the same hours of the weeks before.'),
  spread: atLeastZero('1.4826 × the median absolute deviation of the weeks, in the unit of the figure.'),
  weeks: count('How many weeks that rests on: those with enough volume, since the first with an event.'),
  change: orNull(v.number(), '(current - median) / median; null where the median is 0.'),
  score: v.pipe(v.number(), v.description('How far it is off, in standard deviations of what is usual; negative where it fell.')),
  normal: v.pipe(
    v.strictObject({ low: atLeastZero('From here on.'), high: atLeastZero('Up to here.') }),
    v.description('Between which values it would be no finding.'),
  ),
}

export const Comparison = v.strictObject({
  ...compared,
  severity: orNull(severity, 'null where all is well.'),
})

export const Finding = v.strictObject({
  ...compared,
  severity: v.pipe(severity, v.description('From a score of 4 on a warning, from 8 on critical.')),
  scope: whatIs(['fleet', 'assistant'], 'Of whom.'),
  assistant: orNull(v.pipe(v.string(), v.minLength(1)), 'Its id; null for the fleet.'),
  direction: whatIs(['up', 'down'], 'Which way it went.'),
  since: instant('When it began, by the slots of a quarter of an hour to four hours that the window has; of what is idle, its last event.'),
  until: instant('When it ended; the end of the window where it goes on.'),
  run: v.pipe(
    v.strictObject({
      current: atLeastZero('What the figure was.'),
      expected: atLeastZero('What it was to be.'),
    }),
    v.description('The figure from `since` until `until`; of what is idle, over `hours`.'),
  ),
  summary: text('All of it in a sentence.'),
  evidence: text('The events behind it: path and query of a GET of this service. Of what is idle, its last event and the silence after it.'),
})

export const Regressions = v.strictObject({
  status: whatIs(
    ['ok', 'regressed', 'insufficient_data'],
    'regressed where there is a finding; insufficient_data where nothing could be compared for want of weeks or volume.',
  ),
  window: count('Hours, as asked.'),
  weeks: count('As asked.'),
  ...span,
  baseline: v.pipe(v.array(v.strictObject(span)), v.description('What it was compared with, a range for each week, oldest first.')),
  assistants: count('Assistants with an event in any of the ranges or between them.'),
  total: count('Findings, those beyond `limit` too.'),
  findings: v.pipe(v.array(Finding), v.description('The critical ones first, then by how far they are off.')),
  fleet: v.pipe(v.array(Comparison), v.description('Every figure of the whole fleet that could be compared, whether out of line or not.')),
})

/** The JSON answer of each endpoint, whole. */
export const ANSWERS = {
  '/analytics/overview': answerOf(Overview),
  '/analytics/metrics': answerOf(v.array(MetricsEntry)),
  '/analytics/rolling': answerOf(Rolling),
  '/analytics/events': v.strictObject({ success: v.literal(true), data: v.array(Event), pagination: Pagination }),
  '/analytics/assistants': answerOf(v.array(AssistantActivity)),
  '/analytics/users/top': answerOf(v.array(TopUser)),
  '/analytics/snapshots': answerOf(v.array(Snapshot)),
  '/analytics/regressions': answerOf(Regressions),
} as const satisfies Record<keyof typeof ENDPOINTS, v.GenericSchema>
