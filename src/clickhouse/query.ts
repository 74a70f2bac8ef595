/** A named statement, as data: what it is called, what is sent, and what one row of its result is. */
import type { ClickHouseSettings } from '@clickhouse/client'
import type * as v from 'valibot'
import type { TenantSql } from './tenant-filter.ts'

export interface Statement {
  /** In logs, metrics, traces and the query id. */
  readonly name: string
  readonly sql: TenantSql
  /** By name; `tenant` is added by the store. */
  readonly params: Record<string, unknown>
}

/** A statement that is read row by row. */
export interface Query<Row> extends Statement {
  readonly settings?: ClickHouseSettings
  /** One row. Tests hold every row of every query against it; production does not check. */
  readonly row: v.GenericSchema<unknown, Row>
}

/** A statement whose result is passed on as ClickHouse writes it. */
export interface FileQuery extends Statement {
  readonly format: 'CSVWithNames' | 'Parquet' | 'TSVRaw'
}
