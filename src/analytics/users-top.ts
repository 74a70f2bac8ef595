/** GET /analytics/users/top: the most active users of the range; ties break by user id. */
import { tenantSql, type Store } from '../clickhouse/store.ts'
import type { Names } from '../names.ts'
import { toIso } from '../time/calendar.ts'
import { endpoint } from './endpoint.ts'
import { USER_LEVELS, type Parts } from './levels.ts'
import { common, limit, range } from './parameters.ts'
import {
  filters,
  IN_RAW,
  inSpans,
  partParams,
  partsOf,
  RAW_SUMMED,
  rowsOf,
  spanParams,
  SUMMED,
  SUMS,
  toMetrics,
  type Scope,
  type TotalsRow,
} from './totals.ts'

export const usersTop = endpoint({
  parameters: { ...range, limit: limit(10, 'Users on the list.'), ...common },

  async answer({ store, names, scope, parameters }) {
    const { startDate, endDate } = parameters
    // Users are pre-summed over all assistants: with a filter by assistant, or by user, the raw log is the source.
    const levels = scope.assistants || scope.users ? [] : USER_LEVELS
    const parts = partsOf(scope, 'user_activity', [{ from: startDate, to: endDate }], levels)
    const top = await ranking(store, names, scope, parts, parameters.limit)
    const rows = top.length === 0 ? [] : await details(store, scope, parts, top)
    const byUser = new Map(rows.map((row) => [row.user, row]))
    return {
      covers: { from: startDate, to: endDate },
      data: top.flatMap(({ user, name }) => {
        const row = byUser.get(user)
        if (!row) return []
        const { activeUsers: _, ...metrics } = toMetrics({ ...row, activeUsers: 1 })
        return [{ user: name, ...metrics, assistants: row.assistants, lastActiveAt: toIso(row.lastAt) }]
      }),
    }
  },
})

interface Ranked {
  user: number
  total: number
}

/** So many users more than asked are ranked at first, to see whether a tie at the end of the list is complete. */
const TIE_MARGIN = 1_000

/** Who is on the list, in order. */
async function ranking(store: Store, names: Names, scope: Scope, parts: Parts, places: number) {
  const raw = `
    SELECT user_no, toUInt64(1) AS events FROM events
    WHERE tenant = {tenant:UInt32} AND ${IN_RAW} AND user != ''${filters(scope)}` as const
  const spans = `
    SELECT user_no, events
    FROM user_activity
    WHERE tenant = {tenant:UInt32} AND ${inSpans(parts, 'user_activity')}` as const
  const source = rowsOf(parts, spans, raw)
  const totals = `SELECT user_no AS user, sum(events) AS total FROM (${source}) GROUP BY user_no` as const
  const params = { ...partParams(parts, scope), ...spanParams(parts, 'users'), limit: places, margin: places + TIE_MARGIN }
  const rows = await store.read<Ranked>(
    scope,
    'users_top',
    tenantSql(`${totals} ORDER BY total DESC LIMIT {margin:UInt32}`),
    params,
  )
  const tied = rows[places - 1]?.total
  if (rows.length === places + TIE_MARGIN && rows.at(-1)?.total === tied) {
    // More users tie for the last places than were read: let ClickHouse order them by name.
    return store.read<Ranked & { name: string }>(
      scope,
      'users_top_tied',
      tenantSql(`SELECT user, total, name FROM (${totals} HAVING total >= {tied:UInt64}) AS ranked
       INNER JOIN (SELECT number, min(name) AS name FROM names
                   WHERE tenant = {tenant:UInt32} AND kind = 'user' GROUP BY number) AS named ON named.number = ranked.user
       ORDER BY total DESC, name LIMIT {limit:UInt32}`),
      { ...params, tied },
    )
  }
  const listed = tied === undefined ? rows : rows.filter((row) => row.total >= tied)
  const nameOf = await names.names(scope.tenant, 'user', listed.map(({ user }) => user))
  return listed
    // Who is being removed right now has no name any more.
    .flatMap((row) => (nameOf.has(row.user) ? [{ ...row, name: nameOf.get(row.user) as string }] : []))
    .sort((a, b) => b.total - a.total || Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)))
    .slice(0, places)
}

/** All figures of the users on the list. */
function details(store: Store, scope: Scope, parts: Parts, top: readonly Ranked[]) {
  const raw = `
    SELECT user_no, ${RAW_SUMMED}, groupUniqArray(assistant_no) AS assistants
    FROM events
    WHERE tenant = {tenant:UInt32} AND ${IN_RAW} AND user_no IN {listed:Array(UInt32)}${filters(scope)}
    GROUP BY user_no` as const
  const spans = `
    SELECT user_no, ${SUMMED}, assistants
    FROM user_activity
    WHERE tenant = {tenant:UInt32} AND ${inSpans(parts, 'user_activity')} AND user_no IN {listed:Array(UInt32)}` as const
  const source = rowsOf(parts, spans, raw)
  return store.read<Omit<TotalsRow, 'activeUsers'> & { user: number; assistants: number }>(
    scope,
    'users_top_details',
    tenantSql(`SELECT user_no AS user, ${SUMS}, length(groupUniqArrayArray(assistants)) AS assistants FROM (${source}) GROUP BY user_no`),
    { ...partParams(parts, scope), ...spanParams(parts, 'users'), listed: top.map(({ user }) => user) },
  )
}
