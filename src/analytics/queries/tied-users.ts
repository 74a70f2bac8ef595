/** The users with at least so many events, ordered by id where they have as many. */
import type { Query } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import type { Parts } from '../../rollups/plan.ts'
import type { Scope } from '../../rollups/scope.ts'
import { eventsByUser, type Ranked, rankedRow } from './ranked-users.ts'

export function tiedUsers(scope: Scope, parts: Parts, tied: number, limit: number): Query<Ranked> {
  const { totals, params } = eventsByUser(scope, parts)
  return {
    name: 'users_top_tied',
    sql: tenantSql(`SELECT user, total FROM (${totals} HAVING total >= {tied:UInt64}) AS ranked
       INNER JOIN (SELECT number, min(name) AS name FROM names
                   WHERE tenant = {tenant:UUID} AND kind = 'user' GROUP BY number) AS named ON named.number = ranked.user
       ORDER BY total DESC, name LIMIT {limit:UInt32}`),
    params: { ...params, tied, limit },
    row: rankedRow,
  }
}
