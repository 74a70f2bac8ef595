/** Two locks on the same door: SQL that does not filter by the tenant does not compile, and ClickHouse adds the filter itself. */
import { SettingsMap } from '@clickhouse/client'
import { keyLiteral, type TenantKey } from '../domain/tenant.ts'
import { localTable, type Cluster } from './cluster-config.ts'

/** SQL that filters by the tenant; only `tenantSql` makes it. */
export type TenantSql = string & { readonly __filtersByTenant: true }

/** Lets SQL through that filters by the tenant; a text that does not contain the filter does not compile. */
export const tenantSql = <const S extends string>(
  sql: S & (S extends `${string}tenant = {tenant:UUID}${string}` ? unknown : 'SQL must filter by tenant'),
): TenantSql => sql as string as TenantSql

/** Tables that hold rows of several tenants, with the filter that ClickHouse adds to every read of them. */
const TENANT_TABLES = ['events', 'activity', 'user_activity', 'user_ranks', 'answers', 'names', 'removals', 'tenants'] as const

/** The setting `additional_table_filters`: ClickHouse itself adds the tenant to every table that the query reads. */
export function tenantFilters(tenant: TenantKey, sql: TenantSql, database: string, cluster: Cluster | undefined): SettingsMap {
  // Each costs ClickHouse 0.1 ms, so only those the text names.
  const named = TENANT_TABLES.filter((table) => sql.includes(table))
  // On a cluster in both places, where rows are gathered and where they lie: either would do.
  const tables = cluster ? named.flatMap((table) => [table, localTable(table)]) : named
  const filter = `tenant = ${keyLiteral(tenant)}`
  return tableFilters(Object.fromEntries(tables.map((table) => [`${database}.${table}`, filter])))
}

/** The setting `additional_table_filters`, by table. The client writes a map without escaping what is in it. */
export const tableFilters = (filters: Readonly<Record<string, string>>): SettingsMap =>
  SettingsMap.from(
    Object.fromEntries(Object.entries(filters).map(([table, filter]) => [table, filter.replace(/[\\']/g, '\\$&')])),
  )
