/** Which ranges of time are compared, and into which pieces they are cut. */
import type { Range } from '../../domain/time-range.ts'
import { entryOf } from '../../rollups/plan.ts'
import { HOUR, type Instant, MIN_INSTANT, MINUTE } from '../../time/instant.ts'
import { sameTime } from '../../time/periods.ts'
import { addSums, type Span, type Sums } from './baseline.ts'

/** Ranges end at a multiple of this, so that they are sums of pre-summed rows in every time zone. */
export const QUARTER = 15 * MINUTE

/**
 * The range up to `to`, and before it, oldest first, one for each of the weeks before: each ends on the same weekday at
 * the same local time and is as long. Where a week is an hour short (clocks are put forward) and the range as long as a
 * week, the range begins where the one before it ends.
 */
export function comparedRanges(to: Instant, length: number, weeks: number, timezone: string): Range[] {
  const ends = Array.from({ length: weeks + 1 }, (_, at) => sameTime(to, 7 * (at - weeks), timezone))
  return ends.map((end, at) => ({ from: Math.max(end - length, ends[at - 1] ?? -Infinity), to: end }))
}

/** The window, its last half, quarter and eighth in whole quarters of an hour, none shorter than an hour; in hours. */
export const spansOf = (window: number) =>
  [1, 2, 4, 8].map((part) => Math.floor((window * 4) / part) / 4).filter((hours) => hours >= 1)

/** From `hours` before the end of a range until `after` hours before it, as far as the range reaches. */
export function tail({ from, to }: Range, hours: number, after = 0): Range {
  const start = Math.max(from, to - hours * HOUR)
  return { from: start, to: Math.max(start, to - after * HOUR) }
}

/** Puts the pieces of each range together to spans that end with it. */
export const spansFrom = (lengths: readonly number[], pieces: ReadonlyArray<readonly Sums[]>): Span[] =>
  lengths.map((hours, at) => {
    const sums = pieces.map((list) => list.slice(at).reduce(addSums))
    return { hours, now: sums.at(-1) as Sums, weeks: sums.slice(0, -1) }
  })

/** How finely `since` is told: a quarter of an hour in a window of up to 6 hours, an hour up to 48, else 4 hours. */
export const slotOf = (window: number) => (window <= 6 ? QUARTER : window <= 48 ? HOUR : 4 * HOUR)

/** A range in slots that end with it, oldest first; the first may be shorter. */
export function slotsIn({ from, to }: Range, slot: number): Range[] {
  const count = Math.ceil((to - from) / slot)
  return Array.from({ length: count }, (_, at) => {
    const end = to - (count - 1 - at) * slot
    return { from: Math.max(from, end - slot), to: end }
  })
}

/** The `entry` of a range's row; null for what ends before 1970, which has no rows. */
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
