/** The events of a range as a file, newest first as everywhere, written by ClickHouse and passed on as it comes. */
import type { FileQuery } from '../../clickhouse/query.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import type { Scope } from '../../rollups/scope.ts'
import type { FileFormat } from '../export/formats.ts'
import { type Selection, selectionParams, selectionSql } from './event-selection.ts'

export function eventsFile(scope: Scope, as: FileFormat, wanted: Selection): FileQuery {
  const { size, skipped } = wanted
  const part =
    size === undefined ? (skipped > 0 ? ' OFFSET {skipped:UInt64}' : '') : ' LIMIT {size:UInt32} OFFSET {skipped:UInt64}'
  const columns = as === 'ndjson' ? LINE : COLUMNS
  return {
    name: 'events_file',
    sql: tenantSql(`SELECT ${columns as ''} ${selectionSql(wanted, scope)}${part as ''}`),
    params: { ...selectionParams(wanted, scope), ...(size === undefined ? {} : { size }) },
    format: ({ ndjson: 'TSVRaw', csv: 'CSVWithNames', parquet: 'Parquet' } as const)[as],
  }
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
