/**
 * What every answer holds, field by field, and nothing else: the reference and the client's types come from here, and
 * the tests hold real answers against it.
 */
import * as v from 'valibot'
import { jsonObject } from '../domain/schemas.ts'
import { METRICS, type Severity } from './regressions/baseline.ts'
import type { ENDPOINTS } from './endpoints/index.ts'
import { PERIODS } from '../time/periods.ts'
import { EVENT_TYPES } from '../domain/event.ts'
import { ERROR_CODES, type ErrorCode } from '../domain/errors.ts'

const instant = (description: string) =>
  v.pipe(
    v.string(),
    v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    v.metadata({ format: 'date-time', description }),
  )
const count = (description: string) => v.pipe(v.number(), v.integer(), v.minValue(0), v.description(description))
const usd = (description: string) => v.pipe(v.number(), v.minValue(0), v.description(description))
const text = (description: string) => v.pipe(v.string(), v.minLength(1), v.description(description))
const flag = (description: string) => v.pipe(v.boolean(), v.description(description))
const whatIs = <const T extends readonly string[]>(values: T, description: string) =>
  v.pipe(v.picklist(values), v.description(description))
/** The description of the schema that may be null. */
const orNull = <S extends v.GenericSchema>(schema: S, description: string) =>
  v.pipe(v.nullable(schema), v.description(description))

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

export const Receipt = v.strictObject({
  accepted: count('Events stored.'),
  duplicates: count('Events that were stored before, by their id.'),
  rejected: v.pipe(
    v.array(v.strictObject({ index: count('Position in the request, from 0.'), message: text('What is wrong.') })),
    v.description('Events that cannot be stored; the others are.'),
  ),
})

export const Removal = v.strictObject({
  receiptId: text('Names this removal.'),
  events: count('Events that were of the user, and are of nobody now.'),
  firstEventAt: orNull(instant('UTC.'), 'When the first of them happened; null where there were none.'),
  lastEventAt: orNull(instant('UTC.'), 'When the last of them happened.'),
  removedAt: instant('When nothing was left of the user.'),
})

export const Reconciliation = v.strictObject({
  days: count('Companies times days that were compared.'),
  repaired: count('Entries of `drift` that were written anew.'),
  drift: v.pipe(
    v.array(
      v.strictObject({
        tenant: text('The company.'),
        start: instant('First moment of the day or span.'),
        rollup: text('Which rollup.'),
        sourceEvents: count('Events by the source.'),
        rollupEvents: count('Events by the rollup.'),
      }),
    ),
    v.description('What differed, at most 10,000 entries.'),
  ),
})

export const Backup = v.strictObject({
  name: text('What it is kept as.'),
  status: whatIs(['complete', 'running'], 'running where it takes longer than a request may: ask again.'),
  bytes: count('What it takes; 0 while it runs.'),
  files: count('0 while it runs.'),
})

export const Liveness = v.strictObject({ status: v.literal('ok') })

export const Readiness = v.strictObject({
  status: whatIs(['ok', 'unavailable', 'draining'], 'Whether requests can be answered; draining once the service was told to stop.'),
  clickhouse: whatIs(['ok', 'out of reach'], 'The store.'),
  schema: whatIs(['ok', 'missing', 'unknown'], 'The tables of this build; unknown where the store does not say.'),
  ingestion: whatIs(['ok', 'events cannot be stored'], 'The lane through which events are stored.'),
  keys: whatIs(['ok', 'never fetched'], 'The keys that tokens are verified with.'),
  idFilter: whatIs(['ok', 'loading'], 'Memory of the ids stored; while it loads, events are stored more slowly.'),
  queuedEvents: count('Events that wait to be stored.'),
  rebuilding: v.pipe(
    v.array(
      v.strictObject({
        rollup: text('Which.'),
        done: v.pipe(v.number(), v.minValue(0), v.maxValue(1), v.description('How much of it is.')),
      }),
    ),
    v.description('Rollups that are made anew from the log after an upgrade; until then answers are as exact, and slow.'),
  ),
  drift: orNull(
    v.strictObject({ days: count('Days that differ.'), checkedAt: instant('When they were compared.') }),
    'The last comparison of rollups with the log; null before the first.',
  ),
})

export const Failure = v.strictObject({
  success: v.literal(false),
  error: v.strictObject({
    code: whatIs(Object.keys(ERROR_CODES) as ErrorCode[], 'For programs.'),
    message: text('For people.'),
    details: v.pipe(
      v.array(v.strictObject({ parameter: v.string(), message: v.string() })),
      v.description('Everything that is wrong with the request, parameter by parameter; may be empty.'),
    ),
  }),
  requestId: text('Names this request in the service’s log; also the header X-Request-Id.'),
})

const success = v.literal(true)
const of = <S extends v.GenericSchema>(data: S) => v.strictObject({ success, data })

/** The JSON answer of each endpoint, whole. */
export const ANSWERS = {
  '/analytics/overview': of(Overview),
  '/analytics/metrics': of(v.array(MetricsEntry)),
  '/analytics/rolling': of(Rolling),
  '/analytics/events': v.strictObject({ success, data: v.array(Event), pagination: Pagination }),
  '/analytics/assistants': of(v.array(AssistantActivity)),
  '/analytics/users/top': of(v.array(TopUser)),
  '/analytics/snapshots': of(v.array(Snapshot)),
  '/analytics/regressions': of(Regressions),
} as const satisfies Record<keyof typeof ENDPOINTS, v.GenericSchema>

export const RECEIVED = of(Receipt)
export const RECONCILED = of(Reconciliation)
export const REMOVED = of(Removal)
export const BACKED_UP = of(Backup)

/** Those that have a name in the reference. */
export const NAMED = {
  Overview,
  MetricsEntry,
  Rolling,
  Event,
  Pagination,
  AssistantActivity,
  TopUser,
  Snapshot,
  Regressions,
  Finding,
  Comparison,
  Change,
  Receipt,
  Removal,
  Reconciliation,
  Backup,
  Liveness,
  Readiness,
  Failure,
}
