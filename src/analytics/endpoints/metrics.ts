/** GET /analytics/metrics: one entry per calendar day, ISO week or month that the range touches, zeros included. */
import * as v from 'valibot'
import { badRequest } from '../../domain/errors.ts'
import { answerOf } from '../../domain/response-fields.ts'
import { toIso } from '../../time/iso8601.ts'
import { periodsBetween } from '../../time/periods.ts'
import { endpoint } from '../endpoint.ts'
import { toMetrics } from '../figures.ts'
import { common, range, requiredPeriod } from '../parameters.ts'
import { FIGURES, metricFields, periodField, periodKeyField, rangeFields } from '../response-fields.ts'
import { NOTHING, totalsOf } from '../totals.ts'

/** 27 years of days: 100 queries and 3 MB. */
const MAX_ENTRIES = 10_000

export const MetricsEntry = v.strictObject({ period: periodField, periodKey: periodKeyField, ...rangeFields, ...metricFields })

export const metrics = endpoint({
  path: '/analytics/metrics',
  operationId: 'metrics',
  summary: 'Detailed metrics by period',
  description:
    'One entry for each calendar day, ISO week or month that the range touches, oldest first, zeros included. An entry at an edge covers only what lies in the range, so the entries add up to it.',
  agentHint: FIGURES,
  parameters: { period: requiredPeriod('One entry a calendar day, ISO week or calendar month.'), ...range, ...common },
  response: answerOf(v.array(MetricsEntry)),

  async handle({ store, scope, parameters }) {
    const { startDate, endDate, timezone } = parameters
    const entries = periodsBetween(parameters.period, startDate, endDate, timezone)
    if (entries.length > MAX_ENTRIES) {
      const message = `makes ${entries.length} entries of this range: at most ${MAX_ENTRIES} are answered at once; snapshots has no such limit`
      throw badRequest([{ parameter: 'period', message }])
    }
    const totals = await totalsOf(store, scope, 'metrics', entries)
    return {
      covers: { from: startDate, to: endDate },
      data: entries.map((entry, at) => ({
        period: parameters.period,
        periodKey: entry.key,
        startDate: toIso(entry.from),
        endDate: toIso(entry.to),
        ...toMetrics(totals[at] ?? NOTHING),
      })),
    }
  },
})
