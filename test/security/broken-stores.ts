/** Stores that do not keep companies apart: what checks the isolation has to notice each of them. */
import { Store, type Asker } from '../../src/clickhouse/store.ts'
import type { TenantSql } from '../../src/clickhouse/tenant-filter.ts'

/** What every query about a tenant has in it. */
export const FILTER = 'tenant = {tenant:UUID}'
/** What a query says of itself wins over what it is sent with. */
const UNFILTERED = ' SETTINGS additional_table_filters = {}'

/** Without the tenant in the text of the queries; what ClickHouse is told to add by itself is still there. */
export class WithoutPredicate extends Store {
  override read<Row>(asker: Asker, name: string, sql: TenantSql, ...rest: [Record<string, unknown>?]): Promise<Row[]> {
    return super.read(asker, name, sql.replaceAll(FILTER, '1') as TenantSql, ...rest)
  }

  override stream(...[asker, name, sql, ...rest]: Parameters<Store['stream']>) {
    return super.stream(asker, name, sql.replaceAll(FILTER, '1') as TenantSql, ...rest)
  }
}

/** With the predicate in the text of the queries alone. */
export class WithoutTableFilters extends Store {
  override read<Row>(asker: Asker, name: string, sql: TenantSql, params = {}): Promise<Row[]> {
    return this.readInternal(name, sql, { tenant: asker.tenant, ...params })
  }

  override stream(...[asker, name, sql, ...rest]: Parameters<Store['stream']>) {
    return super.stream(asker, name, `${sql}${UNFILTERED}` as TenantSql, ...rest)
  }
}

/** With neither of the two. */
export class WithoutTenant extends Store {
  override read<Row>(asker: Asker, name: string, sql: TenantSql, params = {}): Promise<Row[]> {
    return this.readInternal(name, sql.replaceAll(FILTER, '1'), { tenant: asker.tenant, ...params })
  }

  override stream(...[asker, name, sql, ...rest]: Parameters<Store['stream']>) {
    return super.stream(asker, name, `${sql.replaceAll(FILTER, '1')}${UNFILTERED}` as TenantSql, ...rest)
  }
}
