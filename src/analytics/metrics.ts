/** GET /analytics/metrics: one entry per calendar day, ISO week or month that the range touches, zeros included. */
import { periodsBetween, toIso } from '../time/calendar.ts'
import { endpoint } from './endpoint.ts'
import { common, range, requiredPeriod } from './parameters.ts'
import { NOTHING, toMetrics, totalsOf } from './totals.ts'

export const metrics = endpoint({
  parameters: { period: requiredPeriod('One entry a calendar day, ISO week or calendar month.'), ...range, ...common },

  async answer({ store, scope, parameters }) {
    const { startDate, endDate, timezone } = parameters
    const entries = periodsBetween(parameters.period, startDate, endDate, timezone)
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
