/**
 * Names and their numbers (clickhouse/001_names.sql). A number changes only where one is repaired (`learn`), so both
 * directions are cached for good, in bounded memory; only a name that is not known yet costs a query. People can be removed (src/maintenance/erasure.ts): their
 * number is then forgotten for good.
 */
import { LRUCache } from 'lru-cache'
import type { Asker, Store } from '../clickhouse/store.ts'
import { slices } from '../clickhouse/parameters.ts'
import type { TenantKey } from '../domain/tenant.ts'

export type NameKind = 'assistant' | 'user'

/** How old a count of users may be, milliseconds. */
const COUNT_MS = 600_000

interface NameRow {
  name: string
  number: number
}

export class Names {
  readonly #store: Store
  readonly #numbers = new LRUCache<string, number>({ max: 300_000 })
  readonly #names = new LRUCache<string, string>({ max: 50_000 })
  readonly #userCounts = new LRUCache<TenantKey, { count: number; askedAt: number }>({ max: 10_000 })
  /** Users that were removed, by tenant. A look-up that was under way meanwhile must not bring one back. */
  readonly #removed = new Map<TenantKey, Set<number>>()
  /** The last repair of numbers that this instance knows of, text of ClickHouse's clock. */
  #lastRepair = ''

  constructor(store: Store) {
    this.#store = store
  }

  /** The number of each name, in order; 0 where the name is unknown. */
  async numbers(tenant: TenantKey, kind: NameKind, names: readonly string[], onQuery?: Asker['onQuery']): Promise<number[]> {
    const missing = [...new Set(names.filter((name) => !this.known(tenant, kind, name)))]
    const found = new Map<string, number>()
    for (const slice of slices(missing)) {
      const rows = await this.#store.readInternal<NameRow>(
        'names_by_name',
        // Of two numbers the later one: the other is of somebody who was removed and came back meanwhile.
        `SELECT name, max(number) AS number FROM names
         WHERE tenant = {tenant:UUID} AND kind = {kind:String} AND name IN {names:Array(String)} GROUP BY name`,
        { tenant, kind, names: slice },
        onQuery,
      )
      for (const row of rows) {
        if (this.#isRemoved(tenant, kind, row.number)) continue
        this.remember(tenant, kind, row.name, row.number)
        found.set(row.name, row.number)
      }
    }
    return names.map((name) => found.get(name) ?? this.known(tenant, kind, name) ?? 0)
  }

  /** The name of each number, as a map; of users who were removed there is none. */
  async names(
    tenant: TenantKey,
    kind: NameKind,
    numbers: readonly number[],
    onQuery?: Asker['onQuery'],
  ): Promise<Map<number, string>> {
    const result = new Map<number, string>()
    const missing: number[] = []
    for (const number of numbers) {
      const name = this.#names.get(key(tenant, kind, number))
      if (name === undefined) missing.push(number)
      else result.set(number, name)
    }
    for (const slice of slices(missing)) {
      const rows = await this.#store.readInternal<NameRow>(
        'names_by_number',
        `SELECT name, number FROM names
         WHERE tenant = {tenant:UUID} AND kind = {kind:String} AND number IN {numbers:Array(UInt32)}`,
        { tenant, kind, numbers: slice },
        onQuery,
      )
      for (const row of rows) {
        if (this.#isRemoved(tenant, kind, row.number)) continue
        this.remember(tenant, kind, row.name, row.number)
        result.set(row.number, row.name)
      }
    }
    return result
  }

  /**
   * About how many users a tenant has had so far, at most COUNT_MS ago; 0 before the first look, which is not waited for.
   * Good for choosing how to read, and for nothing else.
   */
  userCount(tenant: TenantKey): number {
    const { count, askedAt } = this.#userCounts.get(tenant) ?? { count: 0, askedAt: -Infinity }
    if (askedAt + COUNT_MS < performance.now()) {
      this.#userCounts.set(tenant, { count, askedAt: performance.now() })
      void this.#store
        .readInternal<{ count: number }>(
          'users_count',
          `SELECT max(number) AS count FROM names WHERE tenant = {tenant:UUID} AND kind = 'user'`,
          { tenant },
        )
        .then(([row]) => this.#userCounts.set(tenant, { count: row?.count ?? 0, askedAt: performance.now() }))
        .catch(() => {}) // It is asked again in a while.
    }
    return count
  }

  /** The number of a name if it is in memory. */
  known(tenant: TenantKey, kind: NameKind, name: string): number | undefined {
    const number = this.#numbers.get(key(tenant, kind, name))
    return number === undefined || this.#isRemoved(tenant, kind, number) ? undefined : number
  }

  remember(tenant: TenantKey, kind: NameKind, name: string, number: number): void {
    this.#numbers.set(key(tenant, kind, name), number)
    this.#names.set(key(tenant, kind, number), name)
  }

  /** Finds out whether numbers were repaired, here or by another instance, and forgets what may be wrong since. */
  async learn(): Promise<void> {
    const [row] = await this.#store.readInternal<{ last: string; repairs: string }>(
      'name_repairs_last',
      'SELECT toString(max(at)) AS last, toString(count()) AS repairs FROM name_repairs',
    )
    // With the count: two repairs within a millisecond are two.
    const last = row ? `${row.last} ${row.repairs}` : ''
    if (last !== this.#lastRepair) this.forgetAll()
    this.#lastRepair = last
  }

  /** Forgets what it knows of any name, to read it again. Who was removed stays removed. */
  forgetAll(): void {
    this.#numbers.clear()
    this.#names.clear()
  }

  /** Forgets users for good: nothing may be stored under these numbers, or shown with their names, from now on. */
  removed(tenant: TenantKey, users: readonly number[]): void {
    const all = this.#removed.get(tenant) ?? new Set()
    this.#removed.set(tenant, all)
    const gone = new Set(users)
    for (const number of users) {
      all.add(number)
      this.#names.delete(key(tenant, 'user', number))
    }
    const prefix = key(tenant, 'user', '')
    for (const [name, number] of this.#numbers.entries()) {
      if (gone.has(number) && name.startsWith(prefix)) this.#numbers.delete(name)
    }
  }

  #isRemoved(tenant: TenantKey, kind: NameKind, number: number): boolean {
    return kind === 'user' && (this.#removed.get(tenant)?.has(number) ?? false)
  }
}

const key = (tenant: TenantKey, kind: NameKind, of: string | number) => `${tenant}\0${kind}\0${of}`
