/** Who may be among the most active users of a range, from the lists of `user_ranks` (../user-ranks.ts). */
import { TupleParam } from '@clickhouse/client'
import * as v from 'valibot'
import { MANY_ROWS } from '../../clickhouse/query-settings.ts'
import type { Query } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import { DAY } from '../../rollups/granularities.ts'
import { rawEdges, rollupRows } from '../../rollups/plan-sql.ts'
import type { Parts } from '../../rollups/plan.ts'
import { count } from './row-fields.ts'

/** Numbers that no user has: the row of the lists themselves, and the row of all assistants as they are now. */
export const LISTS = 0
export const FLEET = 0xffff_ffff

type Span = Parts['spans'][number]

const row = v.strictObject({
  /** Number of the user, or LISTS or FLEET. */
  user: count,
  /** Events that are known of. */
  least: count,
  /** Bounds of the lists that the user is on, less what the user may have done at the ragged ends of the range. */
  credit: v.pipe(v.number(), v.safeInteger()),
})
export type ShortlistRow = v.InferOutput<typeof row>

/**
 * @param rest what no list is used for: read from `user_activity` and raw events
 * @param listed spans whose lists are used
 * @param ends those of them that the range covers in part
 */
export function userShortlist(rest: Parts, listed: readonly Span[], ends: readonly Span[], limit: number): Query<ShortlistRow> {
  const edges = rawEdges(rest, { assistants: null, users: null })
  const rows = rollupRows(rest, 'users')
  const lists = `
    SELECT
        ranked.1 AS user,
        is_end AND user != ${LISTS} AS at_end,
        if(at_end, 0, ranked.2) AS events,
        toInt64(list.3) - if(at_end, ranked.2, 0) AS bound
    FROM
    (
        SELECT argMax((users, events, bound, total), version) AS list, level = ${DAY.id} AND start IN {ends:Array(UInt32)} AS is_end
        FROM user_ranks
        WHERE tenant = {tenant:UUID} AND (level, start) IN {listed:Array(Tuple(UInt8, DateTime))}
        GROUP BY level, start
    )
    ARRAY JOIN arrayPushBack(arrayZip(list.1, list.2), (toUInt32(${LISTS}), list.4)) AS ranked
    UNION ALL
    SELECT toUInt32(${FLEET}) AS user, 0 AS at_end, ${EVENTS} AS events, 0 AS bound
    FROM activity
    WHERE tenant = {tenant:UUID} AND (level, bucket, start) IN {totals:Array(Tuple(UInt8, DateTime, DateTime))}
      AND assistant_no = 0` as const
  const spans = `
    UNION ALL
    SELECT user_no AS user, 0 AS at_end, events, 0 AS bound
    FROM user_activity
    WHERE tenant = {tenant:UUID} AND ${rows.where}` as const
  const raw = `
    UNION ALL
    SELECT user_no AS user, 0 AS at_end, toUInt64(1) AS events, 0 AS bound
    FROM events
    WHERE tenant = {tenant:UUID} AND ${edges.where} AND events.user != ''` as const
  return {
    name: 'users_top_lists',
    sql: tenantSql(`
    SELECT user, sum(events) AS least, sum(bound) AS credit
    FROM (${lists}${rest.spans.length > 0 ? spans : ''}${rest.raw.length > 0 ? raw : ''})
    GROUP BY user
    ORDER BY user IN (${LISTS}, ${FLEET}) DESC, least - credit DESC
    LIMIT {limit:UInt32}`),
    params: {
      ...edges.params,
      ...rows.params,
      listed: listed.map((span) => new TupleParam(span)),
      ends: ends.map(([, start]) => start),
      totals: listed.map(([level, start]) => new TupleParam([level, 0, start])),
      limit,
    },
    settings: MANY_ROWS,
    row,
  }
}

/** Events of a row of `activity`. */
export const EVENTS = 'incoming_messages + outgoing_messages + tasks_initiated + tasks_completed' as const
