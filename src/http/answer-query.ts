/** From a GET endpoint's definition to its handler: the cache, one query slot, the answer. */
import type { Handler } from 'hono'
import type { Endpoint } from '../analytics/endpoint.ts'
import { readParameters } from '../analytics/parameters.ts'
import type { AnswerCache } from '../analytics/result-cache.ts'
import { type Filters, scopeOf, type ScopeDeps } from '../analytics/scope.ts'
import type { UserRanks } from '../analytics/user-ranks.ts'
import type { FinishedQuery } from '../clickhouse/query-log.ts'
import type { Store } from '../clickhouse/store.ts'
import { tenantKey } from '../domain/tenant.ts'
import type { Limits } from '../limits/index.ts'
import { conditional } from './conditional.ts'
import type { Env } from './environment.ts'
import { exportResponse } from './export-stream.ts'

export interface QueryDeps extends ScopeDeps {
  readonly store: Store
  readonly ranks: UserRanks
  readonly cache: AnswerCache
  readonly limits: Limits
  /** Epoch milliseconds; read once a request. */
  readonly clock: () => number
}

/** Answers requests to an endpoint, after `authenticate` and `countRequest`. Throws ApiError. */
export function answerQuery(endpoint: Endpoint, deps: QueryDeps): Handler<Env> {
  const { cache, limits } = deps
  return async (c) => {
    const principal = c.get('principal')
    const now = deps.clock()
    const { pathname, search } = new URL(c.req.url)
    const accept = c.req.header('Accept')
    const key = JSON.stringify([principal.tenant, principal.assistants, pathname, search, accept])
    const cached = cache.get(key, now)
    if (cached) return conditional(c, cached)

    const parameters = readParameters(endpoint.parameters, search)
    const { queries } = c.get('observed')
    const onQuery = (query: FinishedQuery) => void queries.push(query)
    const context = async (signal: AbortSignal) => {
      const scope = await scopeOf(principal, parameters as Filters, { signal, onQuery }, deps)
      return { store: deps.store, names: deps.names, ranks: deps.ranks, scope, now, parameters, accept }
    }
    /** Aborted when this caller hangs up. */
    const callerSignal = c.req.raw.signal

    if (endpoint.export?.wanted({ parameters, accept })) {
      const { open } = endpoint.export
      const close = limits.exports.open(principal.tenant)
      const opened = () => limits.slots.run(principal.tenant, async () => open(await context(callerSignal)), callerSignal)
      return exportResponse(c, opened, close)
    }
    // Only what asks ClickHouse takes a slot of the tenant. Ids are looked up after the cache has noted the tenant's last
    // write: one that is written in between must not be cached as unknown.
    const found = await cache.find(key, tenantKey(principal.tenant), now, callerSignal, (querySignal) =>
      // `querySignal` is aborted when every caller that waits for this query has hung up.
      limits.slots.run(
        principal.tenant,
        async () => {
          const { covers, ...rest } = await endpoint.handle(await context(querySignal))
          return { covers, body: JSON.stringify({ success: true, ...rest }) }
        },
        querySignal,
      ),
    )
    return conditional(c, found)
  }
}
