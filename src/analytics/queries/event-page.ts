/** One page of the log, and one row more, which tells whether there is another page. */
import * as v from 'valibot'
import { FEW_ROWS } from '../../clickhouse/query-settings.ts'
import type { Query } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import { EVENT_TYPES } from '../../domain/event.ts'
import type { Scope } from '../../rollups/scope.ts'
import { type Selection, selectionParams, selectionSql } from './event-selection.ts'
import { count } from './row-fields.ts'

/** Optional fields that were not sent hold '' or 0; `user` is '' too where the user was removed. */
const row = v.strictObject({
  id: v.string(),
  eventType: v.picklist(EVENT_TYPES),
  /** Epoch milliseconds. */
  at: count,
  assistant: v.string(),
  user: v.string(),
  /** USD */
  cost: v.pipe(v.number(), v.minValue(0)),
  inputTokens: count,
  outputTokens: count,
  model: v.string(),
  traceId: v.string(),
  /** JSON, or ''. */
  metadata: v.string(),
})

export function eventPage(scope: Scope, wanted: Selection & { readonly size: number }): Query<v.InferOutput<typeof row>> {
  return {
    name: 'events',
    sql: tenantSql(`SELECT id, event_type AS eventType, toUnixTimestamp64Milli(timestamp) AS at, assistant, user,
       cost_nanos / 1e9 AS cost, input_tokens AS inputTokens, output_tokens AS outputTokens, model,
       trace_id AS traceId, metadata
     ${selectionSql(wanted, scope)}
     LIMIT {size:UInt32} OFFSET {skipped:UInt64}`),
    params: { ...selectionParams(wanted, scope), size: wanted.size + 1 },
    settings: scope.users ? {} : FEW_ROWS,
    row,
  }
}
