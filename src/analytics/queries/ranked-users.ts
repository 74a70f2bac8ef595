/** The users with most events of a range, from all of its users. */
import * as v from 'valibot'
import { MANY_ROWS } from '../../clickhouse/query-settings.ts'
import type { Query } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import { rawEdges, rollupRows, rowsOf } from '../../rollups/plan-sql.ts'
import type { Parts } from '../../rollups/plan.ts'
import type { Scope } from '../../rollups/scope.ts'
import { count } from './row-fields.ts'

export const rankedRow = v.strictObject({
  /** Number of the user. */
  user: count,
  /** Events */
  total: count,
})
export type Ranked = v.InferOutput<typeof rankedRow>

/** @param limit rows at most; of users with as many events, any */
export function rankedUsers(scope: Scope, parts: Parts, limit: number): Query<Ranked> {
  const { totals, params } = eventsByUser(scope, parts)
  return {
    name: 'users_top',
    sql: tenantSql(`${totals} ORDER BY total DESC LIMIT {limit:UInt32}`),
    params: { ...params, limit },
    settings: scope.users ? {} : MANY_ROWS,
    row: rankedRow,
  }
}

/** The events of each user; users who were removed have none. */
export function eventsByUser(scope: Scope, parts: Parts) {
  const edges = rawEdges(parts, scope)
  const rows = rollupRows(parts, 'users')
  const raw = `
    SELECT user_no, toUInt64(1) AS events FROM events
    WHERE tenant = {tenant:UUID} AND ${edges.where} AND user != ''` as const
  const spans = `
    SELECT user_no, events
    FROM user_activity
    WHERE tenant = {tenant:UUID} AND ${rows.where}` as const
  const source = rowsOf(parts, spans, raw)
  return {
    totals: `SELECT user_no AS user, sum(events) AS total FROM (${source}) GROUP BY user_no` as const,
    params: { ...edges.params, ...rows.params },
  }
}
