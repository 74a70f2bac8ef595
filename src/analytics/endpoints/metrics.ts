/** GET /analytics/metrics: one entry per calendar day, ISO week or month that the range touches, zeros included. */
import { badRequest } from '../../domain/errors.ts'
import { NOTHING, totalsOf } from '../../rollups/sums.ts'
import { toIso } from '../../time/iso8601.ts'
import { periodsBetween } from '../../time/periods.ts'
import { endpoint } from '../endpoint.ts'
import { toMetrics } from '../figures.ts'
import { common, range, requiredPeriod } from '../parameters.ts'

/** 27 years of days: 100 queries and 3 MB. */
const MAX_ENTRIES = 10_000

export const metrics = endpoint({
  parameters: { period: requiredPeriod('One entry a calendar day, ISO week or calendar month.'), ...range, ...common },

  async answer({ store, scope, parameters }) {
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
