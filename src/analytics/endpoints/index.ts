import { assistants } from './assistants.ts'
import { events } from './events.ts'
import { metrics } from './metrics.ts'
import { overview } from './overview.ts'
import { regressions } from './regressions.ts'
import { rolling } from './rolling.ts'
import { snapshots } from './snapshots.ts'
import { usersTop } from './users-top.ts'

/** The seven endpoints of the product page, and what it tells agents to work out from them. */
export const ENDPOINTS = {
  '/analytics/overview': overview,
  '/analytics/metrics': metrics,
  '/analytics/rolling': rolling,
  '/analytics/events': events,
  '/analytics/assistants': assistants,
  '/analytics/users/top': usersTop,
  '/analytics/snapshots': snapshots,
  '/analytics/regressions': regressions,
} as const
