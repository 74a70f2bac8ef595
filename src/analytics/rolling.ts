/** GET /analytics/rolling: the last `window` × 24 hours, the same before it, how each figure moved, and a daily series. */
import { periodsBetween, toIso } from '../time/calendar.ts'
import { endpoint } from './endpoint.ts'
import { common, endDate, window } from './parameters.ts'
import { NOTHING, toChange, toMetrics, totalsOf } from './totals.ts'

const DAY_MS = 86_400_000

export const rolling = endpoint({
  parameters: { window, endDate, ...common },

  async answer({ store, scope, now, parameters }) {
    const { timezone } = parameters
    const to = parameters.endDate ?? now
    const from = to - parameters.window * DAY_MS
    const before = from - parameters.window * DAY_MS
    const days = periodsBetween('day', from, to, timezone)
    const [[earlier, current], series] = await Promise.all([
      totalsOf(store, scope, 'rolling', [
        { from: before, to: from },
        { from, to },
      ]),
      totalsOf(store, scope, 'rolling_series', days),
    ])
    const [metrics, previous] = [toMetrics(current), toMetrics(earlier)]
    return {
      covers: { from: before, to: parameters.endDate ?? Infinity },
      data: {
        window: parameters.window,
        startDate: toIso(from),
        endDate: toIso(to),
        ...metrics,
        previous: { startDate: toIso(before), endDate: toIso(from), ...previous },
        change: toChange(metrics, previous),
        series: days.map((day, at) => ({
          periodKey: day.key,
          startDate: toIso(day.from),
          endDate: toIso(day.to),
          ...toMetrics(series[at] ?? NOTHING),
        })),
      },
    }
  },
})
