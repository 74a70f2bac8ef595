/** Which events a page or a file holds, newest first. */
import { dateTime64 } from '../../clickhouse/parameters.ts'
import type { EventType } from '../../domain/event.ts'
import { filterParams, filters } from '../../rollups/plan-sql.ts'
import type { Scope } from '../../rollups/scope.ts'
import type { Instant } from '../../time/instant.ts'

/** The last event of a page; the next page begins after it in (timestamp, id) order. */
export interface Position {
  at: Instant
  id: string
}

/** Which events; `size` undefined means all of them. */
export interface Selection {
  readonly from: Instant
  readonly to: Instant
  readonly type: EventType | undefined
  readonly size: number | undefined
  readonly skipped: number
  readonly cursor: Position | null
}

/** FROM, WHERE and ORDER BY of the events that are meant; its parameters come from `selectionParams`. */
export function selectionSql({ type, cursor }: Selection, scope: Scope) {
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

export const selectionParams = ({ from, to, type, cursor, skipped }: Selection, scope: Scope) => ({
  from: dateTime64(Math.max(from, scope.horizon)),
  to: dateTime64(to),
  ...(cursor ? { at: dateTime64(cursor.at), id: cursor.id } : {}),
  ...(type ? { type } : {}),
  skipped,
  ...filterParams(scope),
})
