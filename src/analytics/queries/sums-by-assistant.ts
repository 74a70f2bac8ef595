/** The sums of every assistant over ranges of time, and over the gaps between them. */
import { MANY_ROWS } from '../../clickhouse/query-settings.ts'
import type { Store } from '../../clickhouse/store.ts'
import { tenantSql } from '../../clickhouse/tenant-filter.ts'
import type { Range } from '../../domain/time-range.ts'
import { ACROSS_LEVELS } from '../../rollups/granularities.ts'
import {
  filters,
  inRaw,
  inSpans,
  partParams,
  RAW_ENTRY,
  RAW_SUMMED,
  rowsOf,
  SPAN_ENTRY,
  spanParams,
  SUMMED,
  SUMS,
} from '../../rollups/plan-sql.ts'
import { entryOf, partsOf } from '../../rollups/plan.ts'
import type { Scope } from '../../rollups/scope.ts'
import type { Figures } from '../../rollups/sums.ts'
import { MIN_INSTANT } from '../../time/instant.ts'

type Row = Omit<Figures, 'activeUsers'> & { entry: number; assistant: number }

/** The sums of every assistant over each of the ranges and over the gaps between them, which tell when it was last seen. */
export async function sumsByAssistant(store: Store, scope: Scope, name: string, wanted: readonly Range[]): Promise<Row[]> {
  const ranges = unbroken(wanted).filter((range) => range.to > MIN_INSTANT)
  if (ranges.length === 0) return []
  const parts = partsOf(scope, 'activity', ranges, scope.users ? [] : ACROSS_LEVELS)
  const raw = `
    SELECT ${RAW_ENTRY}, assistant_no, ${RAW_SUMMED}
    FROM events
    WHERE tenant = {tenant:UUID} AND ${inRaw(parts, scope)}${filters(scope)}
    GROUP BY entry, assistant_no` as const
  const spans = `
    SELECT ${SPAN_ENTRY}, assistant_no, ${SUMMED}
    FROM activity
    WHERE tenant = {tenant:UUID} AND ${inSpans(parts, 'assistants')} AND assistant_no > 0${filters({ ...scope, users: null })}` as const
  const source = rowsOf(parts, spans, raw)
  return store.read<Row>(
    scope,
    name,
    tenantSql(`SELECT entry, assistant_no AS assistant, ${SUMS} FROM (${source}) GROUP BY entry, assistant_no`),
    { ...partParams(parts, scope), ...spanParams(parts, 'assistants'), entries: ranges.map(entryOf) },
    scope.users ? {} : MANY_ROWS,
  )
}

/** What a row calls the range; what ends before 1970 has no rows. */
export const entryIn = (range: Range) => (range.to > MIN_INSTANT ? entryOf(range) : null)

/**
 * The ranges and the gaps between them. What has to be read from raw events is then one stretch instead of many; and a
 * gap costs little, as it is made of whole days.
 */
export function unbroken(ranges: readonly Range[]): Range[] {
  return ranges.flatMap((range, at) => {
    const before = ranges[at - 1]?.to ?? range.from
    return before < range.from ? [{ from: before, to: range.from }, range] : [range]
  })
}
