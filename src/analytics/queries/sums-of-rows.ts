/** The sums of ranges from rows of the rollup `activity`. */
import { AS_WRITTEN, SPLIT_EARLY } from '../../clickhouse/query-settings.ts'
import type { Query } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import type { Range } from '../../domain/time-range.ts'
import { COUNTS, isOneRun, rollupRows, SPAN_ENTRY, TOKENS_AND_LAST } from '../../rollups/plan-sql.ts'
import { entryOf, type Parts } from '../../rollups/plan.ts'
import type { Scope } from '../../rollups/scope.ts'
import { columnsOf, groupsOf, type SumsOptions, type SumsRow, sumsRow } from './sums-row.ts'

/** The rows of all assistants together carry this instead of an assistant. */
const ALL_ASSISTANTS = 0

/** @param options.sets condition for the rows that come with their set of users */
export function sumsOfRows(
  scope: Scope,
  name: string,
  ranges: readonly Range[],
  parts: Parts,
  options: SumsOptions & { sets: string | false },
): Query<SumsRow> {
  const { wanted = 'figures', sets } = options
  const of = scope.assistants ? 'assistants' : 'fleet'
  const assistants = scope.assistants ?? [ALL_ASSISTANTS]
  const entries = ranges.map(entryOf)
  const { where, params } = rollupRows(parts, of)
  // Every expression and every list takes its tenths of a millisecond.
  const isSpanEach = parts.spans.length === entries.length && parts.spans.every(([, start], at) => start * 1000 === entries[at])
  const sums = `
    ${COUNTS}${wanted === 'counts' ? '' : `, ${COSTS}, ${sets ? `${USERS}, if(${sets}, ${USER_SET}, '') AS userSet` : USERS}`}`
  // The rows of all assistants carry the set of them; a row of one assistant is its own.
  const listed = scope.assistants ? 'groupUniqArray(assistant_no)' : 'groupUniqArrayArray(assistants)'
  return {
    name,
    sql: tenantSql(`
      SELECT ${columnsOf(isSpanEach ? SPAN_START_ENTRY : SPAN_ENTRY, options)}, ${sums}${wanted === 'figures and assistants' ? `, ${listed} AS assistantList` : ''}
      FROM activity
      ${isOneRun(parts.spans) ? 'WHERE' : 'PREWHERE'} tenant = {tenant:UUID} AND ${where}
        AND ${assistants.length === 1 ? 'assistant_no = {rows:UInt32}' : 'assistant_no IN {rows:Array(UInt32)}'}
      GROUP BY ${groupsOf(options)}`),
    params: {
      ...params,
      ...(isSpanEach ? {} : { entries }),
      ...options.params,
      rows: assistants.length === 1 ? assistants[0] : assistants,
    },
    settings: parts.spans.length > ONE_THREAD ? { ...AS_WRITTEN, ...SPLIT_EARLY, max_threads: 2 } : AS_WRITTEN,
    row: sumsRow,
  }
}

/** More spans than this have so many users to put together that two threads are faster: 67 ms instead of 86 for 1,800. */
const ONE_THREAD = 500

/** `entry` where every range is a span. */
const SPAN_START_ENTRY = `toUInt64(toUnixTimestamp(start)) * 1000 AS entry`

const COSTS = `toString(sum(cost_nanos)) AS costNanos, ${TOKENS_AND_LAST}`

const USERS = 'bitmapCardinality(groupBitmapMergeState(users)) AS activeUsers'
const USER_SET = 'base64Encode(toString(groupBitmapMergeState(users)))'
