/** GET /analytics/rolling: the last `window` × 24 hours, the same before it, how each figure moved, and a daily series. */
import * as v from 'valibot'
import { answerOf, count } from '../../domain/response-fields.ts'
import { toIso } from '../../time/iso8601.ts'
import { periodsBetween } from '../../time/periods.ts'
import { endpoint } from '../endpoint.ts'
import { toChange, toMetrics } from '../figures.ts'
import { common, endDate, window } from '../parameters.ts'
import { Change, FIGURES, metricFields, periodKeyField, rangeFields } from '../response-fields.ts'
import { NOTHING, seriesOf } from '../totals.ts'

const DAY_MS = 86_400_000

export const Rolling = v.strictObject({
  window: count('Days of 24 hours, as asked.'),
  ...rangeFields,
  ...metricFields,
  previous: v.pipe(v.strictObject({ ...rangeFields, ...metricFields }), v.description('The window before it.')),
  change: Change,
  series: v.pipe(
    v.array(v.strictObject({ periodKey: periodKeyField, ...rangeFields, ...metricFields })),
    v.description('A calendar day each, oldest first; the first and the last cover only what lies in the window.'),
  ),
})

export const rolling = endpoint({
  path: '/analytics/rolling',
  operationId: 'rolling',
  summary: 'Rolling window metrics',
  description:
    'The last `window` days up to `endDate`, the same of the window before it, how each figure moved, and a daily series. The earliest signal of a slow change.',
  agentHint: FIGURES,
  parameters: { window, endDate, ...common },
  response: answerOf(Rolling),

  async handle({ store, scope, now, parameters }) {
    const { timezone } = parameters
    const to = parameters.endDate ?? now
    const from = to - parameters.window * DAY_MS
    const before = { from: from - parameters.window * DAY_MS, to: from }
    const days = periodsBetween('day', from, to, timezone)
    const totals = await seriesOf(store, scope, 'rolling', before, days)
    const [metrics, previous] = [toMetrics(totals.whole), toMetrics(totals.before)]
    return {
      covers: { from: before.from, to: parameters.endDate ?? Infinity },
      data: {
        window: parameters.window,
        startDate: toIso(from),
        endDate: toIso(to),
        ...metrics,
        previous: { startDate: toIso(before.from), endDate: toIso(from), ...previous },
        change: toChange(metrics, previous),
        series: days.map((day, at) => ({
          periodKey: day.key,
          startDate: toIso(day.from),
          endDate: toIso(day.to),
          ...toMetrics(totals.series[at] ?? NOTHING),
        })),
      },
    }
  },
})
