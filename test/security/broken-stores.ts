/** Stores that do not keep companies apart: what checks the isolation has to notice each of them. */
import type { FileQuery, Query } from '../../src/clickhouse/query.ts'
import { Store, type Asker } from '../../src/clickhouse/store.ts'
import type { TenantSql } from '../../src/clickhouse/tenant-filter.ts'

/** What every query about a tenant has in it. */
export const FILTER = 'tenant = {tenant:UUID}'
/** What a query says of itself wins over what it is sent with. */
const UNFILTERED = ' SETTINGS additional_table_filters = {}'

/** Without the tenant in the text of the queries; what ClickHouse is told to add by itself is still there. */
export class WithoutPredicate extends Store {
  override read<Row>(asker: Asker, query: Query<Row>): Promise<Row[]> {
    return super.read(asker, { ...query, sql: query.sql.replaceAll(FILTER, '1') as TenantSql })
  }

  override stream(asker: Asker, query: FileQuery) {
    return super.stream(asker, { ...query, sql: query.sql.replaceAll(FILTER, '1') as TenantSql })
  }
}

/** With the predicate in the text of the queries alone. */
export class WithoutTableFilters extends Store {
  override read<Row>(asker: Asker, query: Query<Row>): Promise<Row[]> {
    return this.readInternal(query.name, query.sql, { tenant: asker.tenant, ...query.params })
  }

  override stream(asker: Asker, query: FileQuery) {
    return super.stream(asker, { ...query, sql: `${query.sql}${UNFILTERED}` as TenantSql })
  }
}

/** With neither of the two. */
export class WithoutTenant extends Store {
  override read<Row>(asker: Asker, query: Query<Row>): Promise<Row[]> {
    return this.readInternal(query.name, query.sql.replaceAll(FILTER, '1'), { tenant: asker.tenant, ...query.params })
  }

  override stream(asker: Asker, query: FileQuery) {
    return super.stream(asker, { ...query, sql: `${query.sql.replaceAll(FILTER, '1')}${UNFILTERED}` as TenantSql })
  }
}
