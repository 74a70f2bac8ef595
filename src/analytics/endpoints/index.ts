import { assistants } from './assistants.ts'
import { events } from './events.ts'
import { metrics } from './metrics.ts'
import { overview } from './overview.ts'
import { regressions } from './regressions.ts'
import { rolling } from './rolling.ts'
import { snapshots } from './snapshots.ts'
import { usersTop } from './users-top.ts'

/** The seven endpoints of the product page, and what it tells agents to work out from them; in the order of the reference. */
export const ENDPOINTS = {
  [overview.path]: overview,
  [metrics.path]: metrics,
  [rolling.path]: rolling,
  [events.path]: events,
  [assistants.path]: assistants,
  [usersTop.path]: usersTop,
  [snapshots.path]: snapshots,
  [regressions.path]: regressions,
} as const

export type EndpointPath = keyof typeof ENDPOINTS
