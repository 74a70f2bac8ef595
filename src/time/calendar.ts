/**
 * Instants, time zones and calendar periods. Pure: no clock, no I/O; the time zone rules are those of `Intl`.
 *
 * A *day* is a number here: days since 1970-01-01 in the proleptic Gregorian calendar, without a zone. A *wall* time
 * is milliseconds since 1970-01-01T00:00 on a zone's own clocks, so `wall = instant + offset`.
 */

/** Milliseconds since 1970-01-01T00:00:00Z, a whole number; leap seconds are not counted (POSIX time). */
export type Instant = number

/** First supported instant, inclusive: 1970-01-01T00:00:00.000Z. Buckets are stored as unsigned seconds. */
export const MIN_INSTANT: Instant = 0

/** End of the supported instants, exclusive: 2100-01-01T00:00:00.000Z. */
export const MAX_INSTANT: Instant = Date.UTC(2100, 0, 1)

/** Calendar periods, shortest first. A week is an ISO 8601 week: it starts on Monday. */
export const PERIODS = ['day', 'week', 'month'] as const

export type Period = (typeof PERIODS)[number]

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

// ---------------------------------------------------------------------------------------------------- time zones

/** A stretch of time [from, to) with one UTC offset. It may end although the offset goes on (see CHUNK). */
interface Span {
  readonly from: Instant
  readonly to: Instant
  readonly offset: number
}

interface Zone {
  readonly format: Intl.DateTimeFormat
  readonly chunks: Map<number, readonly Span[]>
  /** The span of the last look-up: the next one mostly wants the same. */
  last: Span
}

// Transitions are found by probing every PROBE milliseconds and bisecting where two probes differ, so a pair of
// transitions closer than that would go unseen. The closest in tzdb 2025 between 1969 and 2100 are 6.96 days apart
// (America/Recife in October 2000, Asia/Gaza in October 2040, both a week of DST less an hour).
const PROBE = 4 * DAY

// Spans are looked for one chunk at a time, when it is first asked for: about 0.3 ms, against 30 ms for all years.
const CHUNK = 92 * PROBE

// Whole periods around a supported instant, and windows before it, reach beyond the supported range.
const FIRST = MIN_INSTANT - 400 * DAY
const LAST = MAX_INSTANT + 400 * DAY

// By lower-cased name, since Intl ignores case: keyed by spelling, callers could fill it with variants of one name.
// Only names that exist get in, so it holds 600 zones at most (25 kB each, measured).
const zones = new Map<string, Zone>()

// Intl of V8 (ICU) also knows names that IANA does not. Most mislead: `AST` is Anchorage, not the Atlantic, `BST` is
// Dhaka, `IST` Kolkata. The list is what is left of all three-letter combinations without those that tzdb has.
const ICU_ONLY = new Set(
  'act aet agt art ast bet bst cat cnt cst ctt eat ect iet ist jst mit net nst plt pnt prt pst sst vst'.split(' '),
)

const NAME = /^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/

function findZone(name: string): Zone | undefined {
  if (!NAME.test(name)) return undefined
  const key = name.toLowerCase()
  const known = zones.get(key)
  if (known) return known
  if (ICU_ONLY.has(key) || key.startsWith('systemv/')) return undefined
  try {
    const format = new Intl.DateTimeFormat('en-US', {
      timeZone: name,
      calendar: 'gregory',
      numberingSystem: 'latn',
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    })
    const zone: Zone = { format, chunks: new Map(), last: { from: 0, to: 0, offset: 0 } }
    zones.set(key, zone)
    return zone
  } catch {
    return undefined // RangeError: Intl knows no such zone
  }
}

function zoneOf(name: string): Zone {
  const zone = findZone(name)
  if (!zone) throw new RangeError('unknown time zone')
  return zone
}

/** The offset as Intl tells it, about 3 µs. The instant is a whole second: Intl shows no fraction here. */
function askIntl(zone: Zone, instant: Instant): number {
  const [month, day, year, hour, minute, second] = zone.format.format(instant).split(/\D+/, 6).map(Number)
  return Date.UTC(year!, month! - 1, day, hour, minute, second) - instant
}

function findSpans(zone: Zone, chunk: number): readonly Span[] {
  const spans: Span[] = []
  const end = (chunk + 1) * CHUNK
  let from = chunk * CHUNK
  let offset = askIntl(zone, from)
  for (let probe = from + PROBE; probe <= end; probe += PROBE) {
    const next = askIntl(zone, probe)
    if (next === offset) continue
    let before = probe - PROBE
    let after = probe
    while (after - before > SECOND) {
      const middle = before + Math.floor((after - before) / 2 / SECOND) * SECOND
      if (askIntl(zone, middle) === offset) before = middle
      else after = middle
    }
    spans.push({ from, to: after, offset })
    from = after
    offset = next
  }
  if (from < end) spans.push({ from, to: end, offset })
  return spans
}

function spanAt(zone: Zone, instant: Instant): Span {
  const { last } = zone
  if (instant >= last.from && instant < last.to) return last
  if (!(instant >= FIRST && instant < LAST)) throw new RangeError(`instant ${instant} is out of range`)
  const chunk = Math.floor(instant / CHUNK)
  let spans = zone.chunks.get(chunk)
  if (!spans) {
    spans = findSpans(zone, chunk)
    zone.chunks.set(chunk, spans)
  }
  const span = spans.find(({ to }) => instant < to)!
  zone.last = span
  return span
}

/**
 * The offsets around a wall time, and the instant `at` where the one gives way to the other. Where nothing changes
 * near it, both are the same. One day to either side is enough, since no offset reaches a day, and meets one
 * transition at most (see PROBE).
 */
function offsetsAround(zone: Zone, wall: number): { before: number; after: number; at: Instant } {
  const after = spanAt(zone, wall + DAY)
  let span = spanAt(zone, wall - DAY)
  const before = span.offset
  if (before === after.offset) return { before, after: before, at: wall - before }
  while (span.offset === before) span = spanAt(zone, span.to)
  return { before, after: after.offset, at: span.from }
}

/** The instant of a wall time; in a gap later by its length, in an overlap the earlier of the two. */
function instantOf(zone: Zone, wall: number): Instant {
  const { before, after, at } = offsetsAround(zone, wall)
  return wall - before < at || wall - after < at ? wall - before : wall - after
}

/** The first instant at which the zone's clocks show `day` or, where it has none of that day, a later one. */
function startOf(zone: Zone, day: number): Instant {
  const wall = day * DAY
  const { before, after, at } = offsetsAround(zone, wall)
  return wall - before < at ? wall - before : Math.max(at, wall - after)
}

/** The latest day that has started at the instant. */
function dayOf(zone: Zone, instant: Instant): number {
  let day = Math.floor((instant + spanAt(zone, instant).offset) / DAY)
  // Clocks set back over midnight show the day before again (America/St_Johns until 2011, at 00:01). Days must follow
  // one another, so such an hour belongs to the day that has begun.
  while (startOf(zone, day + 1) <= instant) day += 1
  return day
}

/**
 * Whether Intl knows `name` as an IANA time zone or link, such as `Asia/Kathmandu`, `Etc/GMT+5` or `UTC`, in upper or
 * lower case. Not accepted: offsets (`+05:45`), names only ICU has (`PST`, `IST`), more than 64 characters.
 */
export function isTimeZone(name: string): boolean {
  return findZone(name) !== undefined
}

/**
 * The UTC offset in force in `zone`, in milliseconds, exact to the second: local time = UTC + offset.
 * @throws RangeError for an unknown zone or an instant more than a year outside the supported range; so do all
 * functions here that take an instant and a zone.
 */
export function offsetAt(zone: string, instant: Instant): number {
  return spanAt(zoneOf(zone), instant).offset
}

// -------------------------------------------------------------------------------------------- reading and writing

const WANTED =
  'wants an ISO 8601 date or date-time such as 2026-02-22, 2026-02-22T10:00, 2026-02-22T10:00:30.123Z' +
  ' or 2026-02-22T10:00+05:45'

const OUT_OF_RANGE = 'is out of range; wants 1970-01-01T00:00:00.000Z or later, and before 2100-01-01T00:00:00.000Z'

const DATE_TIME = new RegExp(
  '^(\\d{4})-(\\d{2})-(\\d{2})' +
    '(?:[Tt](\\d{2}):(\\d{2})(?::(\\d{2})(?:[.,](\\d+))?)?(?:([Zz])|([+-])(\\d{2})(?::?(\\d{2}))?)?)?$',
)

// What is left of `2026-02-22T10:00+05:45` when a URL carries the plus unescaped.
const LOST_PLUS = /^[^T]+T\S+ \d{2}(?::?\d{2})?$/i

function daysInMonth(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31
}

/**
 * Reads an ISO 8601 calendar date or date-time in extended format (the RFC 3339 profile, with the additions below).
 *
 * - `2026-02-22` is the first instant of that day in `zone`, also where its midnight does not exist.
 * - `2026-02-22T10:00`, `…:30`, `….123` without an offset are read in `zone`. Local times that do not exist or exist
 *   twice resolve as in java.time and as Temporal's `disambiguation: 'compatible'` (RFC 5545): in a gap, forward by
 *   the gap's length; in an overlap, the earlier instant.
 * - `Z`, `+05:45`, `+0545` and `-03` override `zone`; `t` and `z` may be lower case (RFC 3339).
 * - `T24:00` is the start of the next day (ISO 8601-1:2019/Amd 1).
 * - A fraction has 1 to 9 digits after `.` or `,`; what is finer than a millisecond must be zero.
 *
 * Week dates, ordinal dates, the basic format and leap seconds are not accepted.
 *
 * @returns `instant` in [MIN_INSTANT, MAX_INSTANT), or `error`: what is wrong and what is wanted, to be read after the
 * parameter's name, and holding nothing of `text` but digits and signs. Never throws; an unknown zone is
 * an `error` where `text` needs one.
 */
export function parseInstant(text: string, zone: string): { instant: Instant } | { error: string } {
  if (text.length > 40) return { error: `is longer than 40 characters; ${WANTED}` }
  const match = DATE_TIME.exec(text)
  if (!match) {
    if (LOST_PLUS.test(text)) return { error: 'has a space before its UTC offset; write + as %2B in a URL' }
    return { error: `cannot be read; ${WANTED}` }
  }
  const [, yyyy, mm, dd, hh, min, ss = '00', fraction = '', utc, sign, offsetHH, offsetMM = '00'] = match

  const year = Number(yyyy)
  const month = Number(mm)
  if (month < 1 || month > 12) return { error: `has month ${mm}; wants 01 to 12` }
  const days = daysInMonth(year, month)
  const dayOfMonth = Number(dd)
  if (dayOfMonth < 1 || dayOfMonth > days) return { error: `has day ${dd}; wants 01 to ${days} in ${yyyy}-${mm}` }

  const hour = Number(hh ?? 0)
  const minute = Number(min ?? 0)
  const second = Number(ss)
  if (hour > 24) return { error: `has hour ${hh}; wants 00 to 23, or 24:00 for the next midnight` }
  if (minute > 59) return { error: `has minute ${min}; wants 00 to 59` }
  if (second > 59) return { error: `has second ${ss}; wants 00 to 59 (leap seconds are not counted)` }
  if (fraction.length > 9) return { error: `has ${fraction.length} fraction digits; wants 1 to 9` }
  if (fraction.length > 3 && /[1-9]/.test(fraction.slice(3))) {
    return { error: 'is finer than a millisecond; wants at most 3 fraction digits, or zeros after them' }
  }
  const millisecond = Number(fraction.slice(0, 3).padEnd(3, '0'))
  if (hour === 24 && minute + second + millisecond > 0) return { error: 'is later than 24:00; wants 00:00 to 24:00' }
  if (Number(offsetHH ?? 0) > 23 || Number(offsetMM) > 59) {
    return { error: `has UTC offset ${sign}${offsetHH}:${offsetMM}; wants -23:59 to +23:59` }
  }

  // Also keeps years below 100 away from Date.UTC, which takes them for 19xx.
  if (year < 1969 || year > 2100) return { error: OUT_OF_RANGE }
  const wall = Date.UTC(year, month - 1, dayOfMonth, hour, minute, second, millisecond)
  let instant = wall
  if (sign) {
    const offset = Number(offsetHH) * HOUR + Number(offsetMM) * MINUTE
    instant = sign === '+' ? wall - offset : wall + offset
  } else if (!utc) {
    const rules = findZone(zone)
    if (!rules) return { error: 'cannot be read in an unknown time zone; wants an IANA name such as Asia/Kathmandu' }
    instant = hh === undefined || hour === 24 ? startOf(rules, wall / DAY) : instantOf(rules, wall)
  }
  return instant >= MIN_INSTANT && instant < MAX_INSTANT ? { instant } : { error: OUT_OF_RANGE }
}

/** UTC, ISO 8601 with milliseconds: `2026-02-22T10:00:30.123Z`. */
export function toIso(instant: Instant): string {
  return new Date(instant).toISOString()
}

// ------------------------------------------------------------------------------------------------ calendar periods

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
