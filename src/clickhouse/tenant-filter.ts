/** Two locks on the same door: SQL that does not filter by the tenant does not compile, and ClickHouse adds the filter itself. */
import { SettingsMap } from '@clickhouse/client'
import { localTable, type Cluster } from './cluster-config.ts'

/** SQL that filters by the tenant; only `tenantSql` makes it. */
export type TenantSql = string & { readonly __filtersByTenant: true }

/** Lets SQL through that filters by the tenant; a text that does not contain the filter does not compile. */
export const tenantSql = <const S extends string>(
  sql: S & (S extends `${string}tenant = {tenant:UInt32}${string}` ? unknown : 'SQL must filter by tenant'),
): TenantSql => sql as string as TenantSql

/** Tables that hold rows of several tenants, with the filter that ClickHouse adds to every read of them. */
const TENANT_TABLES = ['events', 'activity', 'user_activity', 'user_ranks', 'answers', 'names', 'removals'] as const

/** The setting `additional_table_filters`: ClickHouse itself adds the tenant to every table that the query reads. */
export function tenantFilters(tenant: number, sql: TenantSql, database: string, cluster: Cluster | undefined): SettingsMap {
  // Each costs ClickHouse 0.1 ms, so only those the text names.
  const named = TENANT_TABLES.filter((table) => sql.includes(table))
  // On a cluster in both places, where rows are gathered and where they lie: either would do.
  const tables = cluster ? named.flatMap((table) => [table, localTable(table)]) : named
  return SettingsMap.from(Object.fromEntries(tables.map((table) => [`${database}.${table}`, `tenant = ${Number(tenant)}`])))
}
