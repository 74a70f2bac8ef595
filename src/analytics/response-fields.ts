/**
 * Fields that several responses share, with the words that the reference says of them. The schema of a response is beside its
 * endpoint: the reference and the client's types come from there, and tests hold real answers against it.
 */
import * as v from 'valibot'
import { count, instant, orNull, text, usd, whatIs } from '../domain/response-fields.ts'
import { PERIODS } from '../time/periods.ts'

/** Said to agents of every endpoint that answers with activity metrics. */
export const FIGURES = 'Figures: messages, tasks, completionRate, cost in USD, tokens.'

export const countFields = {
  incomingMessages: count('Messages received from users.'),
  outgoingMessages: count('Messages sent by assistants.'),
  tasksInitiated: count('Tasks created and started.'),
  tasksCompleted: count('Tasks that reached completion.'),
  total: count('All four together.'),
}

export const costFields = {
  completionRate: orNull(
    v.pipe(v.number(), v.minValue(0)),
    'tasksCompleted / tasksInitiated; null where none was initiated. Above 1 where tasks of before were completed.',
  ),
  cost: usd('USD.'),
  inputTokens: count('Tokens read by models.'),
  outputTokens: count('Tokens written by models.'),
}

export const activeUsersField = { activeUsers: count('Distinct users with an event, exact.') }
export const metricFields = { ...activeUsersField, ...countFields, ...costFields }
export const rangeFields = { startDate: instant('First moment, UTC.'), endDate: instant('End, not part of it.') }
export const periodKeyField = text('2026-02-22, 2026-W08 or 2026-02, by the period.')
export const periodField = whatIs(PERIODS, 'As asked.')

const moved = (what: string) => orNull(v.number(), `${what}: (now - before) / before; null where there is nothing to divide by.`)
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
