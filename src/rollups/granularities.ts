/** The span lengths of the rollups: which there are, when each is written, and which may serve a question. */

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
  4, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 38, 40, 41, 44, 45, 48, 52, 54, 56, 58, 60, 61, 64, 68, 70, 72, 73, 74, 76, 78, 80,
  82, 84, 88, 92,
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

/** Which levels may serve a question; always finest first. */
export const FLEET_LEVELS: readonly Level[] = [QUARTER, THREE_HOURS, SPLIT_DAY, DAY]
export const ASSISTANT_LEVELS: readonly Level[] = [QUARTER, THREE_HOURS, DAY]
export const ACROSS_LEVELS: readonly Level[] = [QUARTER, THREE_HOURS, DAY_ACROSS]
export const USER_LEVELS: readonly Level[] = [DAY]

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

/** The length of a level's spans. */
export const secondsOf = (level: number): number => LEVEL_OF.get(level)?.seconds as number
