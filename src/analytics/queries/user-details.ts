/** All sums of some users over a range. */
import * as v from 'valibot'
import type { Query } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import { RAW_SUMMED, rawEdges, rollupRows, rowsOf, SUMMED, SUMS } from '../../rollups/plan-sql.ts'
import type { Parts } from '../../rollups/plan.ts'
import type { Scope } from '../../rollups/scope.ts'
import { count, sums } from './row-fields.ts'

const row = v.strictObject({
  /** Number of the user. */
  user: count,
  ...sums,
  /** Distinct assistants with an event of the user. */
  assistants: count,
})

/** @param listed numbers of the users */
export function userDetails(scope: Scope, parts: Parts, listed: readonly number[]): Query<v.InferOutput<typeof row>> {
  const edges = rawEdges(parts, scope)
  const rows = rollupRows(parts, 'users')
  const raw = `
    SELECT user_no, ${RAW_SUMMED}, groupUniqArray(assistant_no) AS assistants
    FROM events
    WHERE tenant = {tenant:UUID} AND ${edges.where} AND user_no IN {listed:Array(UInt32)}
    GROUP BY user_no` as const
  const spans = `
    SELECT user_no, ${SUMMED}, assistants
    FROM user_activity
    WHERE tenant = {tenant:UUID} AND ${rows.where} AND user_no IN {listed:Array(UInt32)}` as const
  const source = rowsOf(parts, spans, raw)
  return {
    name: 'users_top_details',
    sql: tenantSql(
      `SELECT user_no AS user, ${SUMS}, length(groupUniqArrayArray(assistants)) AS assistants FROM (${source}) GROUP BY user_no`,
    ),
    params: { ...edges.params, ...rows.params, listed },
    // With ragged ends it takes 35 ms to find these users there by projection, and 10 to read everybody's events.
    settings: { use_uncompressed_cache: 1, ...(scope.users ? {} : { optimize_use_projections: 0 }) },
    row,
  }
}
