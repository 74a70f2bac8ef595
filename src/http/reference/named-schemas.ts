/** Schemas that have a name in the reference. */
import { AssistantActivity } from '../../analytics/endpoints/assistants.ts'
import { Event, Pagination } from '../../analytics/endpoints/events.ts'
import { MetricsEntry } from '../../analytics/endpoints/metrics.ts'
import { Overview } from '../../analytics/endpoints/overview.ts'
import { Comparison, Finding, Regressions } from '../../analytics/endpoints/regressions.ts'
import { Rolling } from '../../analytics/endpoints/rolling.ts'
import { Snapshot } from '../../analytics/endpoints/snapshots.ts'
import { TopUser } from '../../analytics/endpoints/users-top.ts'
import { Change } from '../../analytics/response-fields.ts'
import { Failure } from '../error-response.ts'
import { Removal } from '../routes/delete-user.ts'
import { Liveness, Readiness } from '../routes/health.ts'
import { Backup, Reconciliation } from '../routes/operations.ts'
import { Receipt } from '../routes/post-events.ts'

/** Schemas under `#/components/schemas`, by name, in the order of the document. */
export const NAMED = {
  Overview,
  MetricsEntry,
  Rolling,
  Event,
  Pagination,
  AssistantActivity,
  TopUser,
  Snapshot,
  Regressions,
  Finding,
  Comparison,
  Change,
  Receipt,
  Removal,
  Reconciliation,
  Backup,
  Liveness,
  Readiness,
  Failure,
}
