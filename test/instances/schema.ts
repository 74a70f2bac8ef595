/** The one place of this suite that knows tables and columns. Everything else works from outside, over HTTP. */
import type { EventType } from '../reference.ts'
import type { Sql } from './clickhouse.ts'

/** The text of a statement that stores events, and of one that gives names their numbers. */
export const STORES_EVENTS = /^\s*INSERT INTO (\w+\.)?events\b/i
export const STORES_NAMES = /^\s*INSERT INTO (\w+\.)?names\b/i

/** A row of the raw log. */
export interface StoredRow {
  /** What the rows of one tenant have in common, and those of no other. */
  tenantKey: string
  id: string
  eventType: EventType
  /** Epoch milliseconds. */
  at: number
  assistant: string
  /** '' where the user was removed; `traceId` and `metadata` are '' then too. */
  user: string
  assistantNo: number
  userNo: number
  /** 1e-9 USD. */
  nanos: number
  inputTokens: number
  outputTokens: number
  model: string
  traceId: string
  /** A JSON object as text, or ''. */
  metadata: string
}

/** Every row of the raw log, in no order. */
export const storedRows = (sql: Sql): Promise<StoredRow[]> =>
  sql(`SELECT toString(tenant) AS tenantKey, id, event_type AS eventType, toUnixTimestamp64Milli(timestamp) AS at, assistant, user,
         assistant_no AS assistantNo, user_no AS userNo, cost_nanos AS nanos, input_tokens AS inputTokens,
         output_tokens AS outputTokens, model, trace_id AS traceId, metadata
       FROM events`)

/** An entry of the dictionary of names; `tenantKey` is '' for the names of tenants. */
export interface NameRow {
  tenantKey: string
  kind: 'tenant' | 'assistant' | 'user'
  name: string
  /** The number, or whatever stands for the name in rollups. */
  key: string
}

/** Every different entry of the dictionary. */
export const nameRows = (sql: Sql): Promise<NameRow[]> =>
  sql(`SELECT DISTINCT toString(tenant) AS tenantKey, kind, name, toString(number) AS key FROM names
       UNION ALL
       SELECT DISTINCT '', 'tenant', name, toString(tenant) FROM tenants`)
