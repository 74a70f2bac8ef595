/** What the answers of routes beside the analytics endpoints hold, and every schema that has a name in the reference. */
import * as v from 'valibot'
import {
  AssistantActivity,
  Change,
  Comparison,
  Event,
  Finding,
  MetricsEntry,
  Overview,
  Pagination,
  Regressions,
  Rolling,
  Snapshot,
  TopUser,
} from '../analytics/answers.ts'
import { ERROR_CODES, type ErrorCode } from '../domain/errors.ts'
import { answerOf, count, instant, orNull, text, whatIs } from '../domain/response-fields.ts'

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
  status: whatIs(['complete', 'running'], 'running where it takes longer than a request may: ask again.'),
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
  identitiesRepaired: count('Entries of the three lists below that were put right.'),
  duplicateIds: v.pipe(
    v.array(
      v.strictObject({
        tenant: text('The company.'),
        id: text('Of an event.'),
        copies: count('How often it is stored.'),
        contents: count('How many of the copies are different events; a repair keeps the one that was stored first.'),
      }),
    ),
    v.description('Ids that are stored more than once, at most 10,000.'),
  ),
  sharedNumbers: v.pipe(
    v.array(
      v.strictObject({
        tenant: text('The company.'),
        kind: whatIs(['assistant', 'user'], 'What the names are of.'),
        number: count('The number.'),
        names: v.pipe(v.array(text('A name.')), v.description('At most 10 of those that have it.')),
      }),
    ),
    v.description('Numbers that several names share, at most 10,000.'),
  ),
  splitNames: v.pipe(
    v.array(
      v.strictObject({
        tenant: text('The company.'),
        kind: whatIs(['assistant', 'user'], 'What the name is of.'),
        name: text('The name.'),
        numbers: v.pipe(v.array(count('A number.')), v.description('At most 10 of its numbers.')),
      }),
    ),
    v.description('Names with several numbers, at most 10,000.'),
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

export const RECEIVED = answerOf(Receipt)
export const RECONCILED = answerOf(Reconciliation)
export const REMOVED = answerOf(Removal)
export const BACKED_UP = answerOf(Backup)

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
