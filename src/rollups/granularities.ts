import type { Instant } from '../time/instant.ts'
import type { Range } from '../domain/time-range.ts'

/** The tables of pre-summed rows. */
export type RollupTable = 'activity' | 'user_activity'

/** A span length of the rollups; `id` is the `level` column of clickhouse/003_activity.sql and 004_user_activity.sql. */
export interface Level {
  readonly id: number
  readonly seconds: number
  /** How much time a `bucket` of an assistant's rows holds, in seconds; 0: all of it. The fleet's rows have one bucket. */
  readonly bucketSeconds: number
}

const DAY_SECONDS = 86_400
const DAY_MS = DAY_SECONDS * 1000
const QUARTER_MS = 900_000

export const QUARTER: Level = { id: 0, seconds: 900, bucketSeconds: 10_800 }
export const THREE_HOURS: Level = { id: 1, seconds: 10_800, bucketSeconds: DAY_SECONDS }
export const DAY: Level = { id: 2, seconds: DAY_SECONDS, bucketSeconds: 0 }
/** DAY once more, for questions about all assistants: a day of all of them lies in one place. */
export const DAY_ACROSS: Level = { id: 6, seconds: DAY_SECONDS, bucketSeconds: DAY_SECONDS }

/**
 * The fleet's UTC days once more, each cut in two at a quarter of an hour at which days begin somewhere: a day of any time
 * zone is the second piece of one and the first piece of the next, where it would be 19 finer spans. Pieces are levels of
 * their own, `splitLevel(cut)`; this one stands for all of them.
 */
export const SPLIT_DAY: Level = { id: 100, seconds: DAY_SECONDS, bucketSeconds: 0 }

/**
 * Where days are cut, in quarters of an hour since midnight UTC, ascending: every local midnight of the time zones of
 * today's IANA database (2026). Days that begin elsewhere are put together from finer spans.
 */
export const CUTS: readonly number[] = [
  4, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 38, 40, 41, 44, 45, 48, 52, 54, 56, 58, 60, 61, 64, 68, 70, 72, 73, 74, 76, 78,
  80, 82, 84, 88, 92,
]

/** The level of both pieces of days with this cut. */
export const splitLevel = (quarters: number): number => SPLIT_DAY.id + quarters

/**
 * Levels that are written once their span is over, finest first; each spans four of the one below, so any whole-day
 * range of 90 days is about ten spans.
 */
export const COARSE: readonly Level[] = [
  { id: 3, seconds: 4 * DAY_SECONDS, bucketSeconds: 4 * DAY_SECONDS },
  { id: 4, seconds: 16 * DAY_SECONDS, bucketSeconds: 16 * DAY_SECONDS },
  { id: 5, seconds: 64 * DAY_SECONDS, bucketSeconds: 64 * DAY_SECONDS },
]

/** Everything that is written once its span is over, in the order in which it is sealed. */
export const SEALED: readonly Level[] = [SPLIT_DAY, ...COARSE]

/** How far each level of SEALED is sealed: `sealedUntil[i]`, epoch seconds, a multiple of its span; none further than the one before. */
export type SealedUntil = readonly number[]

/** Which levels may serve a question; always finest first. */
export const FLEET_LEVELS: readonly Level[] = [QUARTER, THREE_HOURS, SPLIT_DAY, DAY]
export const ASSISTANT_LEVELS: readonly Level[] = [QUARTER, THREE_HOURS, DAY]
export const ACROSS_LEVELS: readonly Level[] = [QUARTER, THREE_HOURS, DAY_ACROSS]
export const USER_LEVELS: readonly Level[] = [DAY]

/**
 * What a range is the disjoint sum of: spans of the rollups, each named by its level and start (epoch seconds), and raw
 * events of up to two half-open ranges.
 */
export interface Parts {
  readonly spans: Array<[level: number, start: number]>
  readonly raw: Range[]
}

/** When a span ends, epoch seconds, by its level and start. */
export function endOf(level: number, start: number): number {
  if (level <= SPLIT_DAY.id) return start + (LEVEL_OF.get(level)?.seconds ?? 0)
  const sinceMidnight = start % DAY_SECONDS
  return start - sinceMidnight + (sinceMidnight === 0 ? (level - SPLIT_DAY.id) * QUARTER.seconds : DAY_SECONDS)
}

/** The levels by id, without those of the pieces of days. */
export const LEVEL_OF: ReadonlyMap<number, Level> = new Map(
  [QUARTER, THREE_HOURS, DAY, DAY_ACROSS, ...COARSE].map((level) => [level.id, level]),
)

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
function takePieces(parts: Parts, levels: readonly Level[], sealedUntil: SealedUntil, from: Instant, to: Instant, at: number): void {
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

/** How many levels of SEALED are sealed over an instant: the `late_levels` of an event with that timestamp. */
export function lateLevels(instant: Instant, sealedUntil: SealedUntil): number {
  let count = 0
  for (const until of sealedUntil) {
    if (instant >= until * 1000) break
    count++
  }
  return count
}
