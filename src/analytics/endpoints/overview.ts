/** GET /analytics/overview: one summary of the last complete day, 7 days or 30 days. */
import * as v from 'valibot'
import { answerOf, count, instant, orNull } from '../../domain/response-fields.ts'
import { toIso } from '../../time/iso8601.ts'
import { addDays, startOfPeriod } from '../../time/periods.ts'
import { endpoint } from '../endpoint.ts'
import { toMetrics } from '../figures.ts'
import { common, endDate, period } from '../parameters.ts'
import { activeUsersField, costFields, countFields, FIGURES, metricFields, periodField, rangeFields } from '../response-fields.ts'
import { totalsOf } from '../totals.ts'

const COMPLETE_DAYS = { day: 1, week: 7, month: 30 }

/** `realtime` looks back this far. */
const REALTIME_MS = 5 * 60_000

export const Overview = v.strictObject({
  period: periodField,
  ...rangeFields,
  ...activeUsersField,
  ...costFields,
  events: v.pipe(v.strictObject(countFields), v.description('Events of the period.')),
  resources: v.pipe(
    v.strictObject({
      assistants: count('Distinct assistants with an event.'),
      users: count('Distinct users with an event.'),
    }),
    v.description('Who was there in the period.'),
  ),
  realtime: v.pipe(
    v.strictObject({
      ...rangeFields,
      ...metricFields,
      lastEventAt: orNull(instant('UTC.'), 'When the last event happened; null where none did.'),
    }),
    v.description('The last five minutes.'),
  ),
  computedAt: instant('When this was answered.'),
})

export const overview = endpoint({
  path: '/analytics/overview',
  operationId: 'overview',
  summary: 'Overview metrics',
  description: 'One summary of the last complete day, 7 days or 30 days, and of the last five minutes.',
  agentHint: FIGURES,
  parameters: { period: period('week', 'The last complete day, 7 days or 30 days.'), endDate, ...common },
  response: answerOf(Overview),

  async handle({ store, scope, now, parameters }) {
    const { timezone } = parameters
    const to = startOfPeriod('day', parameters.endDate ?? now, timezone)
    const from = addDays(to, -COMPLETE_DAYS[parameters.period], timezone)
    const complete = { from, to }
    const present = { from: now - REALTIME_MS, to: now }
    // One call for both, unless they overlap: in the first minutes of a day, or where endDate is ahead.
    const [[whole], [recent]] =
      present.from >= to
        ? await totalsOf(store, scope, 'overview', [complete, present], 'figures and assistants').then(
            ([a, b]) => [[a], [b]] as const,
          )
        : await Promise.all([
            totalsOf(store, scope, 'overview', [complete], 'figures and assistants'),
            totalsOf(store, scope, 'overview_realtime', [present]),
          ])
    const { incomingMessages, outgoingMessages, tasksInitiated, tasksCompleted, total, ...rest } = toMetrics(whole)
    return {
      // `realtime` and `computedAt` move on: the answer is never about a closed range.
      covers: { from: Math.min(from, now - REALTIME_MS), to: Infinity },
      data: {
        period: parameters.period,
        startDate: toIso(from),
        endDate: toIso(to),
        ...rest,
        events: { incomingMessages, outgoingMessages, tasksInitiated, tasksCompleted, total },
        resources: { assistants: whole.assistants, users: rest.activeUsers },
        realtime: {
          startDate: toIso(present.from),
          endDate: toIso(present.to),
          ...toMetrics(recent),
          lastEventAt: recent.lastAt === 0 ? null : toIso(recent.lastAt),
        },
        computedAt: toIso(now),
      },
    }
  },
})
