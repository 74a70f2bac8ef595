/** Days, ISO 8601 weeks and months of a time zone. */
import { DAY, type Instant } from './instant.ts'
import { toIso } from './iso8601.ts'
import { dayOf, instantOf, spanAt, startOf, zoneOf } from './zones.ts'

/** Calendar periods, shortest first. A week is an ISO 8601 week: it starts on Monday. */
export const PERIODS = ['day', 'week', 'month'] as const

export type Period = (typeof PERIODS)[number]

/** The first day of the period that `day` is in. */
function firstDay(period: Period, day: number): number {
  if (period === 'day') return day
  if (period === 'week') return Math.floor((day + 3) / 7) * 7 - 3 // day 0 was a Thursday
  const date = new Date(day * DAY)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth()) / DAY
}

/** The first day of the period after the one that starts with `first`. */
function followingDay(period: Period, first: number): number {
  return firstDay(period, first + { day: 1, week: 7, month: 31 }[period])
}

function keyOf(period: Period, day: number): string {
  if (period === 'day') return toIso(day * DAY).slice(0, 10)
  if (period === 'month') return toIso(day * DAY).slice(0, 7)
  // ISO 8601: a week belongs to the year that its Thursday is in.
  const thursday = firstDay('week', day) + 3
  const year = new Date(thursday * DAY).getUTCFullYear()
  const week = Math.floor((thursday - Date.UTC(year, 0) / DAY) / 7) + 1
  return `${year}-W${String(week).padStart(2, '0')}`
}

/**
 * Start of the calendar day, ISO 8601 week (from Monday) or month that the instant is in: the first existing instant of
 * its first day in `zone`. Where clocks are set back over midnight, the day begins at the earlier midnight and the
 * repeated part of the day before belongs to it, so that `startOfPeriod <= instant < nextPeriod` holds always.
 */
export function startOfPeriod(period: Period, instant: Instant, zone: string): Instant {
  const rules = zoneOf(zone)
  return startOf(rules, firstDay(period, dayOf(rules, instant)))
}

/** Start of the period that follows the one `start` is in, always later than `start`. */
export function nextPeriod(period: Period, start: Instant, zone: string): Instant {
  const rules = zoneOf(zone)
  return startOf(rules, followingDay(period, firstDay(period, dayOf(rules, start))))
}

/**
 * ISO 8601 name of the period that the instant is in: `2026-02-22`, `2026-W08` (with the week's own year: 2021-01-03 is
 * in `2020-W53`) or `2026-02`.
 */
export function periodKey(period: Period, instant: Instant, zone: string): string {
  return keyOf(period, dayOf(zoneOf(zone), instant))
}

/** A calendar period [start, end), and the part [from, to) of it inside a range. */
export interface PeriodPart {
  key: string
  start: Instant
  end: Instant
  from: Instant
  to: Instant
}

/**
 * The periods that the half-open range [from, to) touches, oldest first; none where `from >= to`. Each part begins
 * where the one before it ends, none is empty: a day that a zone skipped (Pacific/Apia, 2011-12-30) is not in the list.
 */
export function periodsBetween(period: Period, from: Instant, to: Instant, zone: string): PeriodPart[] {
  const rules = zoneOf(zone)
  const parts: PeriodPart[] = []
  if (from >= to) return parts
  let day = firstDay(period, dayOf(rules, from))
  let start = startOf(rules, day)
  while (start < to) {
    const following = followingDay(period, day)
    const end = startOf(rules, following)
    if (end > start) {
      parts.push({ key: keyOf(period, day), start, end, from: Math.max(start, from), to: Math.min(end, to) })
    }
    day = following
    start = end
  }
  return parts
}

/**
 * Start of the local day `n` calendar days (a whole number, negative for earlier) after the one that `instant` is in.
 * Never count in 24 hours: days of 17 to 31 hours exist. As in Temporal, a day that the zone skipped counts, so a step
 * onto Pacific/Apia's 2011-12-30 ends at the start of 2011-12-31.
 */
export function addDays(instant: Instant, n: number, zone: string): Instant {
  const rules = zoneOf(zone)
  return startOf(rules, dayOf(rules, instant) + n)
}

/**
 * The instant at which the zone's clocks show the same time of day, `n` calendar days (a whole number, negative for
 * earlier) after the day they show at `instant`. Times that do not exist or exist twice resolve as in `parseInstant`.
 */
export function sameTime(instant: Instant, n: number, zone: string): Instant {
  const rules = zoneOf(zone)
  return instantOf(rules, instant + spanAt(rules, instant).offset + n * DAY)
}
