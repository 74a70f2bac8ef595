/** From the filters of a request and the reach of its token to the rows that may be read. */
import type { Principal } from '../auth/principal.ts'
import type { Asker } from '../clickhouse/store.ts'
import { tenantKey } from '../domain/tenant.ts'
import type { Names } from '../ids/dictionary.ts'
import type { Rebuilds } from '../maintenance/backfill.ts'
import type { Seals } from '../maintenance/compaction.ts'
import type { Retention } from '../maintenance/retention.ts'
import type { Scope } from '../rollups/scope.ts'

/** Ids as they were given; undefined where there is no such filter. */
export interface Filters {
  readonly assistant?: readonly string[] | undefined
  readonly user?: readonly string[] | undefined
}

export interface ScopeDeps {
  readonly names: Names
  readonly seals: Seals
  readonly rebuilds: Rebuilds
  readonly retention: Retention
}

/**
 * What a query is about: the ids of its filters as numbers, and of assistants only those that the token may see. Asks
 * ClickHouse for numbers that are not in memory.
 * @throws ApiError 503 where ClickHouse is out of reach
 */
export async function scopeOf(
  principal: Principal,
  { assistant, user }: Filters,
  { signal, onQuery }: Pick<Asker, 'signal' | 'onQuery'>,
  { names, seals, rebuilds, retention }: ScopeDeps,
): Promise<Scope> {
  const tenant = tenantKey(principal.tenant)
  const reach = principal.assistants
  const visible = reach ? (assistant ?? reach).filter((id) => reach.includes(id)) : assistant
  const [assistantNumbers, userNumbers] = await Promise.all([
    visible && names.numbers(tenant, 'assistant', visible, onQuery),
    user && names.numbers(tenant, 'user', user, onQuery),
  ])
  return {
    tenant,
    assistants: filterOf(assistantNumbers),
    users: filterOf(userNumbers),
    userCount: names.userCount(tenant),
    sealedUntil: seals.sealedUntil,
    pending: rebuilds.pending,
    horizon: retention.horizon,
    signal,
    onQuery,
  }
}

/** No event carries this number, so a filter by it finds nothing. */
const NO_SUCH_ID = 0xffff_ffff

/** Ids that no event has are left out; where none is left, the filter stays and matches nothing. */
function filterOf(numbers: number[] | undefined): number[] | null {
  if (!numbers) return null
  const known = numbers.filter((number) => number > 0)
  return known.length > 0 ? known : [NO_SUCH_ID]
}
