/** From which rollup rows and raw events the sums of a range are put together. */
import type { Range } from '../domain/time-range.ts'
import { type Instant, MIN_INSTANT } from '../time/instant.ts'
import { COARSE, CUTS, DAY, type Level, QUARTER, type RollupTable, SEALED, SPLIT_DAY, splitLevel } from './granularities.ts'
import type { Scope } from './scope.ts'
import type { SealedUntil } from './state.ts'

const DAY_MS = DAY.seconds * 1000
const QUARTER_MS = QUARTER.seconds * 1000

/**
 * What a range is the disjoint sum of: spans of the rollups, each named by its level and start (epoch seconds), and raw
 * events of up to two half-open ranges.
 */
export interface Parts {
  readonly spans: Array<[level: number, start: number]>
  readonly raw: Range[]
}

/**
 * Cuts a half-open range into the fewest spans, coarsest first in the middle, and raw events at the ragged ends.
 *
 * @param levels the fine levels that may be used, finest first, each a multiple of the one before; [] reads raw only
 * @param sealedUntil adds the coarse levels, each up to where it is sealed, and says how far SPLIT_DAY is
 */
export function cut(range: Range, levels: readonly Level[], sealedUntil: SealedUntil = []): Parts {
  const parts: Parts = { spans: [], raw: [] }
  const usable = [...levels, ...COARSE.slice(0, Math.max(0, sealedUntil.length - 1))]
  take(parts, usable, sealedUntil, range.from, range.to, usable.length - 1)
  return parts
}

/** Spans of the level at a position of `levels`, and of the finer ones what is left on either side. */
function take(parts: Parts, levels: readonly Level[], sealedUntil: SealedUntil, from: Instant, to: Instant, at: number): void {
  if (from >= to) return
  const level = levels[at]
  if (!level) {
    parts.raw.push({ from, to })
    return
  }
  if (level === SPLIT_DAY) {
    takePieces(parts, levels, sealedUntil, from, to, at)
    return
  }
  const length = level.seconds * 1000
  const first = Math.ceil(from / length) * length
  const seal = SEALED.indexOf(level)
  const end = Math.min(Math.floor(to / length) * length, seal === -1 ? Infinity : (sealedUntil[seal] ?? 0) * 1000)
  if (first >= end) {
    take(parts, levels, sealedUntil, from, to, at - 1)
    return
  }
  take(parts, levels, sealedUntil, from, first, at - 1)
  for (let start = first; start < end; start += length) parts.spans.push([level.id, start / 1000])
  take(parts, levels, sealedUntil, end, to, at - 1)
}

/** What is left of days on either side of a midnight: the longest piece that fits, and finer spans beside it. */
function takePieces(
  parts: Parts,
  levels: readonly Level[],
  sealedUntil: SealedUntil,
  from: Instant,
  to: Instant,
  at: number,
): void {
  const sealed = (sealedUntil[0] ?? 0) * 1000
  const midnight = Math.ceil(from / DAY_MS) * DAY_MS
  if (midnight > to) {
    take(parts, levels, sealedUntil, from, to, at - 1)
    return
  }
  const second = midnight <= sealed ? CUTS.find((quarters) => midnight - DAY_MS + quarters * QUARTER_MS >= from) : undefined
  if (second === undefined) take(parts, levels, sealedUntil, from, midnight, at - 1)
  else {
    const start = midnight - DAY_MS + second * QUARTER_MS
    take(parts, levels, sealedUntil, from, start, at - 1)
    parts.spans.push([splitLevel(second), start / 1000])
  }
  const first = midnight + DAY_MS <= sealed ? CUTS.findLast((quarters) => midnight + quarters * QUARTER_MS <= to) : undefined
  if (first === undefined) take(parts, levels, sealedUntil, midnight, to, at - 1)
  else {
    parts.spans.push([splitLevel(first), midnight / 1000])
    take(parts, levels, sealedUntil, midnight + first * QUARTER_MS, to, at - 1)
  }
}

/** The ends of a range and of the one before it, where they meet at no multiple of 15 minutes. */
export const MAX_RAW = 3

/** What SPAN_ENTRY and RAW_ENTRY call a range. */
export const entryOf = (range: Range): Instant => Math.max(range.from, MIN_INSTANT)

/**
 * The parts of disjoint ranges together. In a zone whose offset is no multiple of 15 minutes (none since 1972) every
 * range has ragged ends; all of it is then read from raw events.
 * @throws RangeError where the ranges are far apart and their ends are ragged at more than three places
 */
export function cutAll(ranges: readonly Range[], levels: readonly Level[], sealedUntil: SealedUntil): Parts {
  const all: Parts = { spans: [], raw: [] }
  for (const range of ranges) {
    const { spans, raw } = cut({ from: entryOf(range), to: range.to }, levels, levels.length > 0 ? sealedUntil : [])
    all.spans.push(...spans)
    for (const piece of raw) {
      const last = all.raw.at(-1)
      if (last?.to === piece.from) all.raw[all.raw.length - 1] = { from: last.from, to: piece.to }
      else all.raw.push(piece)
    }
  }
  if (all.raw.length <= MAX_RAW) return all
  if (levels.length === 0) throw new RangeError(`raw events are read at ${MAX_RAW} places at most: fill the gaps between ranges`)
  return cutAll(ranges, [], sealedUntil)
}

/**
 * The parts of the ranges of a question, as `cutAll` cuts them: of what is kept, and from raw events alone where the rollup
 * is not complete.
 */
export function partsOf(scope: Scope, rollup: RollupTable, ranges: readonly Range[], levels: readonly Level[]): Parts {
  const kept = ranges.map(({ from, to }) => ({ from: Math.max(from, scope.horizon), to }))
  return cutAll(kept, scope.pending.has(rollup) ? [] : levels, scope.sealedUntil)
}
