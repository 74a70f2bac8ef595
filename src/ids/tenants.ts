/**
 * The names behind the keys of tenants (clickhouse/001_names.sql), for operators alone: nothing that a tenant is answered
 * goes through here.
 */
import { LRUCache } from 'lru-cache'
import { slices } from '../clickhouse/parameters.ts'
import type { Store } from '../clickhouse/store.ts'
import { tenantKey, type TenantKey } from '../domain/tenant.ts'

export class Tenants {
  readonly #store: Store
  /** Keys whose row this process has written. One that falls out is written once more, which changes nothing. */
  readonly #recorded = new LRUCache<TenantKey, true>({ max: 100_000 })

  constructor(store: Store) {
    this.#store = store
  }

  /**
   * Writes the names of those tenants that this process has not recorded yet; to be called before their first event is
   * stored. Other instances may write the same at the same time.
   * @throws where ClickHouse did not take it; it is written with the next call then
   */
  async record(names: readonly string[]): Promise<void> {
    const rows = new Map<TenantKey, string>()
    for (const name of names) {
      const tenant = tenantKey(name)
      if (!this.#recorded.has(tenant)) rows.set(tenant, name)
    }
    if (rows.size === 0) return
    await this.#store.writer.insert({
      table: 'tenants',
      values: [...rows].map(([tenant, name]) => ({ tenant, name })),
      format: 'JSONEachRow',
      // The same rows again are harmless; a token that ClickHouse kept without its rows would not be.
      clickhouse_settings: { async_insert: 0, insert_deduplicate: 0, wait_end_of_query: 1 },
    })
    for (const tenant of rows.keys()) this.#recorded.set(tenant, true)
  }

  /** The name of each key; of a tenant without a row there is none. */
  async names(tenants: readonly TenantKey[]): Promise<Map<TenantKey, string>> {
    const found = new Map<TenantKey, string>()
    for (const slice of slices(tenants)) {
      const rows = await this.#store.readInternal<{ tenant: TenantKey; name: string }>(
        'tenants_by_key',
        `SELECT DISTINCT tenant, name FROM tenants WHERE tenant IN {tenants:Array(UUID)}`,
        { tenants: slice },
      )
      for (const { tenant, name } of rows) found.set(tenant, name)
    }
    return found
  }
}
