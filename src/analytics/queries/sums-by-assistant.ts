/** The sums of every assistant over each of some adjacent ranges. */
import * as v from 'valibot'
import { MANY_ROWS } from '../../clickhouse/query-settings.ts'
import type { Query } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import type { Range } from '../../domain/time-range.ts'
import { ACROSS_LEVELS } from '../../rollups/granularities.ts'
import { filters, RAW_ENTRY, RAW_SUMMED, rawEdges, rollupRows, rowsOf, SPAN_ENTRY, SUMMED, SUMS } from '../../rollups/plan-sql.ts'
import { entryOf, partsOf } from '../../rollups/plan.ts'
import type { Scope } from '../../rollups/scope.ts'
import { count, sums } from './row-fields.ts'

const row = v.strictObject({
  /** First millisecond of the range. */
  entry: count,
  /** Number of the assistant. */
  assistant: count,
  ...sums,
})
const rowWithUsers = v.strictObject({ ...row.entries, activeUsers: count })
export type AssistantSums = v.InferOutput<typeof row>
export type AssistantSumsAndUsers = v.InferOutput<typeof rowWithUsers>

/**
 * A row for each range and assistant with an event in it.
 * @param ranges ascending and adjacent: what has to be read from raw events is then one stretch
 */
export const sumsByAssistant = (scope: Scope, name: string, ranges: readonly Range[]): Query<AssistantSums> => ({
  ...statement(scope, name, ranges, NO_USERS),
  row,
})

/** The same with the number of distinct users. */
export const sumsAndUsersByAssistant = (scope: Scope, name: string, ranges: readonly Range[]): Query<AssistantSumsAndUsers> => ({
  ...statement(scope, name, ranges, USERS),
  row: rowWithUsers,
})

/** Columns of the sets of users: from raw events, from rows of the rollup, and of the result. */
const NO_USERS = { raw: '', rows: '', total: '' }
const USERS = {
  raw: ', groupBitmapState(user_no) AS users',
  rows: ', users',
  total: ', groupBitmapMerge(users) AS activeUsers',
}

function statement(scope: Scope, name: string, ranges: readonly Range[], users: typeof USERS) {
  const parts = partsOf(scope, 'activity', ranges, scope.users ? [] : ACROSS_LEVELS)
  const edges = rawEdges(parts, scope)
  const rows = rollupRows(parts, 'assistants')
  const raw = `
    SELECT ${RAW_ENTRY}, assistant_no, ${RAW_SUMMED}${users.raw}
    FROM events
    WHERE tenant = {tenant:UUID} AND ${edges.where}
    GROUP BY entry, assistant_no` as const
  const spans = `
    SELECT ${SPAN_ENTRY}, assistant_no, ${SUMMED}${users.rows}
    FROM activity
    WHERE tenant = {tenant:UUID} AND ${rows.where} AND assistant_no > 0${filters({ ...scope, users: null })}` as const
  const source = rowsOf(parts, spans, raw)
  return {
    name,
    sql: tenantSql(`SELECT entry, assistant_no AS assistant, ${SUMS}${users.total}
     FROM (${source}) GROUP BY entry, assistant_no`),
    params: { ...edges.params, ...rows.params, entries: ranges.map(entryOf) },
    settings: scope.users ? {} : MANY_ROWS,
  }
}
