/** GET /analytics/overview: one summary of the last complete day, 7 days or 30 days. */
import { addDays, startOfPeriod, toIso } from '../time/calendar.ts'
import { endpoint } from './endpoint.ts'
import { common, endDate, period } from './parameters.ts'
import { toMetrics, totalsOf } from './totals.ts'
import { assistantsSeen } from './assistants.ts'

const COMPLETE_DAYS = { day: 1, week: 7, month: 30 }

/** `realtime` looks back this far. */
const REALTIME_MS = 5 * 60_000

export const overview = endpoint({
  parameters: { period: period('week'), endDate, ...common },

  async answer({ store, scope, now, parameters }) {
    const { timezone } = parameters
    const to = startOfPeriod('day', parameters.endDate ?? now, timezone)
    const from = addDays(to, -COMPLETE_DAYS[parameters.period], timezone)
    const [[whole], [recent], assistants] = await Promise.all([
      totalsOf(store, scope, 'overview', [{ from, to }]),
      totalsOf(store, scope, 'overview_realtime', [{ from: now - REALTIME_MS, to: now }]),
      assistantsSeen(store, scope, { from, to }),
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
        resources: { assistants, users: rest.activeUsers },
        realtime: {
          startDate: toIso(now - REALTIME_MS),
          endDate: toIso(now),
          ...toMetrics(recent),
          lastEventAt: recent.lastAt === 0 ? null : toIso(recent.lastAt),
        },
        computedAt: toIso(now),
      },
    }
  },
})
