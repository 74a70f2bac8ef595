import type { Instant } from '../time/calendar.ts'

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

export const QUARTER: Level = { id: 0, seconds: 900, bucketSeconds: 10_800 }
export const THREE_HOURS: Level = { id: 1, seconds: 10_800, bucketSeconds: DAY_SECONDS }
export const DAY: Level = { id: 2, seconds: DAY_SECONDS, bucketSeconds: 0 }
/** DAY once more, for questions about all assistants: a day of all of them lies in one place. */
export const DAY_ACROSS: Level = { id: 6, seconds: DAY_SECONDS, bucketSeconds: DAY_SECONDS }

/**
 * Levels that are written once their span is over, finest first; each spans four of the one below, so any whole-day
 * range of 90 days is about ten spans.
 */
export const COARSE: readonly Level[] = [
  { id: 3, seconds: 4 * DAY_SECONDS, bucketSeconds: 4 * DAY_SECONDS },
  { id: 4, seconds: 16 * DAY_SECONDS, bucketSeconds: 16 * DAY_SECONDS },
  { id: 5, seconds: 64 * DAY_SECONDS, bucketSeconds: 64 * DAY_SECONDS },
]

/** How far each level of COARSE is sealed: `sealedUntil[i]`, epoch seconds, a multiple of its span. */
export type SealedUntil = readonly number[]

/** Which levels may serve a question; always finest first. */
export const FLEET_LEVELS: readonly Level[] = [QUARTER, THREE_HOURS, DAY]
export const ACROSS_LEVELS: readonly Level[] = [QUARTER, THREE_HOURS, DAY_ACROSS]
export const USER_LEVELS: readonly Level[] = [DAY]

/** A half-open range of instants, epoch milliseconds. */
export interface Range {
  readonly from: Instant
  readonly to: Instant
}

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
 * @param sealedUntil adds the coarse levels, each up to where it is sealed
 */
export function cut(range: Range, levels: readonly Level[], sealedUntil: SealedUntil = []): Parts {
  const parts: Parts = { spans: [], raw: [] }
  const coarse = levels.length
  const take = (from: Instant, to: Instant, at: number): void => {
    if (from >= to) return
    const level = at < coarse ? levels[at] : COARSE[at - coarse]
    if (!level) {
      parts.raw.push({ from, to })
      return
    }
    const length = level.seconds * 1000
    const first = Math.ceil(from / length) * length
    const whole = Math.floor(to / length) * length
    const end = at < coarse ? whole : Math.min(whole, (sealedUntil[at - coarse] ?? 0) * 1000)
    if (first >= end) {
      take(from, to, at - 1)
      return
    }
    take(from, first, at - 1)
    for (let start = first; start < end; start += length) parts.spans.push([level.id, start / 1000])
    take(end, to, at - 1)
  }
  take(range.from, range.to, coarse + sealedUntil.length - 1)
  return parts
}

/** How many coarse levels are sealed over an instant: the `late_levels` of an event with that timestamp. */
export function lateLevels(instant: Instant, sealedUntil: SealedUntil): number {
  let count = 0
  for (const until of sealedUntil) {
    if (instant >= until * 1000) break
    count++
  }
  return count
}
