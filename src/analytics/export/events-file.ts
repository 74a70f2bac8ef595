/** The events of a range as a file, newest first as everywhere, written by ClickHouse and passed on as it comes. */
import { dateTime64 } from '../../clickhouse/parameters.ts'
import type { Store } from '../../clickhouse/store.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import type { EventType } from '../../domain/event.ts'
import { filters } from '../../rollups/plan-sql.ts'
import type { Scope } from '../../rollups/scope.ts'
import type { Instant } from '../../time/instant.ts'
import type { FileFormat } from './formats.ts'

/** Which events; `size` undefined means all of them. */
export interface Cutting {
  readonly from: Instant
  readonly to: Instant
  readonly type: EventType | undefined
  readonly size: number | undefined
  readonly skipped: number
  readonly cursor: Position | null
}

/** The events that are meant, newest first; its parameters come from `selectionParams`. */
export function selection({ type, cursor }: Cutting, scope: Scope) {
  // `timestamp <=` lets the index skip to the cursor. The index does not see through the pair, which settles events of the
  // same millisecond: with OR in its place every mark before the cursor was looked at, 43 ms at 100 million events and not 15.
  const after = cursor
    ? ` AND timestamp <= {at:DateTime64(3, 'UTC')} AND (timestamp, id) < ({at:DateTime64(3, 'UTC')}, {id:String})`
    : ''
  const ofType = type ? ` AND event_type = {type:String}` : ''
  return `FROM events
     WHERE tenant = {tenant:UUID}
       AND timestamp >= {from:DateTime64(3, 'UTC')} AND timestamp < {to:DateTime64(3, 'UTC')}
       ${after as ''}${ofType as ''}${filters(scope)}
     ORDER BY timestamp DESC, id DESC` as const
}

export const selectionParams = ({ from, to, type, cursor, skipped }: Cutting, scope: Scope) => ({
  from: dateTime64(Math.max(from, scope.horizon)),
  to: dateTime64(to),
  at: dateTime64(cursor?.at ?? 0),
  id: cursor?.id ?? '',
  type: type ?? '',
  skipped,
  assistants: scope.assistants ?? [],
  users: scope.users ?? [],
})

/** @throws ApiError where the query fails before its first byte */
export function eventsFile(store: Store, scope: Scope, as: FileFormat, wanted: Cutting) {
  const { size, skipped } = wanted
  const part = size === undefined ? (skipped > 0 ? ' OFFSET {skipped:UInt64}' : '') : ' LIMIT {size:UInt32} OFFSET {skipped:UInt64}'
  const columns = as === 'ndjson' ? LINE : COLUMNS
  return store.stream(
    scope,
    'events_file',
    tenantSql(`SELECT ${columns as ''} ${selection(wanted, scope)}${part as ''}`),
    ({ ndjson: 'TSVRaw', csv: 'CSVWithNames', parquet: 'Parquet' } as const)[as],
    { ...selectionParams(wanted, scope), size: size ?? 0 },
  )
}

/** What was not sent, and who was removed, is null, as in JSON; `metadata` is the text of a JSON object. */
const COLUMNS = `id, CAST(event_type, 'String') AS eventType, timestamp, CAST(assistant, 'String') AS assistant,
  nullIf(user, '') AS user,
  cost_nanos / 1e9 AS cost, input_tokens AS inputTokens, output_tokens AS outputTokens,
  nullIf(CAST(model, 'String'), '') AS model, nullIf(trace_id, '') AS traceId, nullIf(metadata, '') AS metadata`

/**
 * The same as a JSON object a line, which POST /analytics/events takes as it is, but for events of nobody. Written here because `metadata` is JSON
 * already: JSONEachRow would make a text of it.
 */
const LINE = `concat(
  '{"id":', toJSONString(id),
  ',"eventType":"', CAST(event_type, 'String'),
  '","timestamp":', toJSONString(timestamp),
  ',"assistant":', toJSONString(CAST(assistant, 'String')),
  ',"user":', if(user = '', 'null', toJSONString(user)),
  ',"cost":', toJSONString(cost_nanos / 1e9),
  ',"inputTokens":', toString(input_tokens),
  ',"outputTokens":', toString(output_tokens),
  ',"model":', if(model = '', 'null', toJSONString(CAST(model, 'String'))),
  ',"traceId":', if(trace_id = '', 'null', toJSONString(trace_id)),
  ',"metadata":', if(metadata = '', 'null', metadata), '}')`

/** The last event of a page; the next page begins after it in (timestamp, id) order. */
export interface Position {
  at: Instant
  id: string
}
