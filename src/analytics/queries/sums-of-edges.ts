/** The sums of what no row of a rollup covers, from raw events. */
import { AS_WRITTEN } from '../../clickhouse/query-settings.ts'
import type { Query } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import type { Range } from '../../domain/time-range.ts'
import { QUARTER } from '../../rollups/granularities.ts'
import { RAW_ENTRY, rawEdges } from '../../rollups/plan-sql.ts'
import { entryOf, type Parts } from '../../rollups/plan.ts'
import type { Scope } from '../../rollups/scope.ts'
import { columnsOf, groupsOf, type SumsOptions, type SumsRow, sumsRow } from './sums-row.ts'

/** @param options.sets whether each row comes with its set of users, to be added to those of rollup rows */
export function sumsOfEdges(
  scope: Scope,
  name: string,
  ranges: readonly Range[],
  parts: Parts,
  options: SumsOptions & { sets: boolean },
): Query<SumsRow> {
  const { wanted = 'figures', sets } = options
  const { where, params } = rawEdges(parts, scope)
  const sums = `
    ${COUNTS}${wanted === 'counts' ? '' : `, ${COSTS}, ${sets ? `${USERS}, ${USER_SET}` : USERS}`}`
  const milliseconds = parts.raw.reduce((sum, { from, to }) => sum + to - from, 0)
  const isEdges = !scope.users && milliseconds <= LONGEST_EDGES_MS
  return {
    name: `${name}_raw`,
    sql: tenantSql(`
      SELECT ${columnsOf(RAW_ENTRY, options)}, ${sums}${wanted === 'figures and assistants' ? ', groupUniqArray(assistant_no) AS assistantList' : ''}
      FROM events
      ${isEdges ? 'PREWHERE' : 'WHERE'} tenant = {tenant:UUID} AND ${where}
      GROUP BY ${groupsOf(options)}`),
    params: { ...params, entries: ranges.map(entryOf), ...options.params },
    // What some users did is read by projection, and may be much.
    settings: isEdges ? AS_WRITTEN : {},
    row: sumsRow,
  }
}

/** The ends of two ranges, each shorter than a span of the finest level, and the last five minutes. */
const LONGEST_EDGES_MS = 5 * QUARTER.seconds * 1000

const COUNTS = `countIf(event_type = 'incomingMessages') AS incomingMessages,
    countIf(event_type = 'outgoingMessages') AS outgoingMessages,
    countIf(event_type = 'tasksInitiated') AS tasksInitiated,
    countIf(event_type = 'tasksCompleted') AS tasksCompleted`

const COSTS = `toString(sum(cost_nanos)) AS costNanos,
    sum(input_tokens) AS inputTokens,
    sum(output_tokens) AS outputTokens,
    toUnixTimestamp64Milli(max(timestamp)) AS lastAt`

const USERS = 'bitmapCardinality(groupBitmapState(user_no)) AS activeUsers'
const USER_SET = 'base64Encode(toString(groupBitmapState(user_no))) AS userSet'
