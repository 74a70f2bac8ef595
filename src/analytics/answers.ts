/**
 * What every answer holds, field by field, and nothing else: the reference and the client's types come from here, and
 * the tests hold real answers against it.
 */
import * as v from 'valibot'
import { jsonObject } from '../ingest/sent-event.ts'
import type { ENDPOINTS } from './endpoints.ts'
import { EVENT_TYPES, PERIODS } from './parameters.ts'

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
  user: text('Which user.'),
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

export const Receipt = v.strictObject({
  accepted: count('Events stored.'),
  duplicates: count('Events that were stored before, by their id.'),
  rejected: v.pipe(
    v.array(v.strictObject({ index: count('Position in the request, from 0.'), message: text('What is wrong.') })),
    v.description('Events that cannot be stored; the others are.'),
  ),
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

export const Liveness = v.strictObject({ status: v.literal('ok') })

export const Readiness = v.strictObject({
  status: whatIs(['ok', 'unavailable'], 'Whether requests can be answered.'),
  clickhouse: whatIs(['ok', 'out of reach'], 'The store.'),
  ingestion: whatIs(['ok', 'events cannot be stored'], 'The lane through which events are stored.'),
  queuedEvents: count('Events that wait to be stored.'),
  drift: orNull(
    v.strictObject({ days: count('Days that differ.'), checkedAt: instant('When they were compared.') }),
    'The last comparison of rollups with the log; null before the first.',
  ),
})

/** What `error.code` says, and of which status. */
export const ERROR_CODES = {
  bad_request: 400,
  too_expensive: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  not_acceptable: 406,
  too_slow: 408,
  in_progress: 409,
  too_large: 413,
  too_many_events: 413,
  unsupported_media_type: 415,
  expectation_failed: 417,
  key_reused: 422,
  too_many_requests: 429,
  headers_too_large: 431,
  internal: 500,
  unavailable: 503,
} as const
export type ErrorCode = keyof typeof ERROR_CODES

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
} as const satisfies Record<keyof typeof ENDPOINTS, v.GenericSchema>

export const RECEIVED = of(Receipt)
export const RECONCILED = of(Reconciliation)

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
  Change,
  Receipt,
  Reconciliation,
  Liveness,
  Readiness,
  Failure,
}
