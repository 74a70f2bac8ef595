/**
 * GET /analytics/users/top: the most active users of the range; ties break by user id. Who may be on the list comes from
 * lists of the spans' most active (../user-ranks.ts), or else from all users; then the figures of those few are read.
 */
import * as v from 'valibot'
import type { Store } from '../../clickhouse/store.ts'
import { answerOf, count, instant, text } from '../../domain/response-fields.ts'
import { USER_LEVELS } from '../../rollups/granularities.ts'
import { type Parts, partsOf } from '../../rollups/plan.ts'
import type { Scope } from '../../rollups/scope.ts'
import { toIso } from '../../time/iso8601.ts'
import { endpoint } from '../endpoint.ts'
import { toMetrics } from '../figures.ts'
import { common, limit, range } from '../parameters.ts'
import { rankedUsers } from '../queries/ranked-users.ts'
import { tiedUsers } from '../queries/tied-users.ts'
import { userDetails } from '../queries/user-details.ts'
import { costFields, countFields, FIGURES } from '../response-fields.ts'

export const TopUser = v.strictObject({
  user: text('Its id.'),
  ...countFields,
  ...costFields,
  assistants: count('Distinct assistants the user was active with.'),
  lastActiveAt: instant('Its last event in the range.'),
})

export const usersTop = endpoint({
  path: '/analytics/users/top',
  operationId: 'usersTop',
  summary: 'Top users by activity',
  description: 'The users with most events in the range, largest first; ties break by user id.',
  agentHint: FIGURES,
  parameters: { ...range, limit: limit(10, 'Users on the list.'), ...common },
  response: answerOf(v.array(TopUser)),

  async handle({ store, names, ranks, scope, now, parameters }) {
    const { startDate, endDate, limit: places } = parameters
    // Users are pre-summed over all assistants: with a filter by assistant, or by user, the raw log is the source.
    const levels = scope.assistants || scope.users ? [] : USER_LEVELS
    const parts = partsOf(scope, 'user_activity', [{ from: startDate, to: endDate }], levels)
    const candidates = (await ranks.shortlist(scope, parts, places, now)) ?? (await ranking(store, scope, parts, places))
    const rows = candidates.length === 0 ? [] : await store.read(scope, userDetails(scope, parts, candidates))
    const top = rows
      .map(({ user, assistants, lastAt, ...sums }) => {
        const { activeUsers: _, ...metrics } = toMetrics({ ...sums, lastAt, activeUsers: 1 })
        return { user, ...metrics, assistants, lastActiveAt: toIso(lastAt) }
      })
      .sort((a, b) => b.total - a.total)
    const least = top[places - 1]?.total ?? 0
    const listed = top.filter(({ total }) => total >= least)
    const nameOf = await names.names(
      scope.tenant,
      'user',
      listed.map(({ user }) => user),
      scope.onQuery,
    )
    return {
      covers: { from: startDate, to: endDate },
      data: listed
        // Who is being removed right now has no name any more.
        .flatMap((entry) => (nameOf.has(entry.user) ? [{ ...entry, user: nameOf.get(entry.user) as string }] : []))
        .sort((a, b) => b.total - a.total || Buffer.compare(Buffer.from(a.user), Buffer.from(b.user)))
        .slice(0, places),
    }
  },
})

/** So many users more than asked are ranked at first, to see whether a tie at the end of the list is complete. */
const TIE_MARGIN = 1_000

/** Who is on the list and who ties for its last place, from all users of the range; in no order. */
async function ranking(store: Store, scope: Scope, parts: Parts, places: number): Promise<number[]> {
  let rows = await store.read(scope, rankedUsers(scope, parts, places + TIE_MARGIN))
  const tied = rows[places - 1]?.total ?? 0
  if (rows.length === places + TIE_MARGIN && rows.at(-1)?.total === tied) {
    // More users tie for the last places than were read: let ClickHouse order them by name.
    rows = await store.read(scope, tiedUsers(scope, parts, tied, places))
  }
  return rows.filter(({ total }) => total >= tied).map(({ user }) => user)
}
