/** Reads and writes dates and date-times of ISO 8601. */
import { DAY, HOUR, type Instant, MAX_INSTANT, MIN_INSTANT, MINUTE } from './instant.ts'
import { findZone, instantOf, startOf } from './zones.ts'

const WANTED =
  'must be an ISO 8601 date or date-time such as 2026-02-22, 2026-02-22T10:00, 2026-02-22T10:00:30.123Z' +
  ' or 2026-02-22T10:00+05:45'

const OUT_OF_RANGE = 'is out of range; must be 1970-01-01T00:00:00.000Z or later, and before 2100-01-01T00:00:00.000Z'
const END_OUT_OF_RANGE = 'is out of range; must be from 1970-01-01T00:00:00.000Z to 2100-01-01T00:00:00.000Z'

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
 * - A fraction has 1 to 9 digits after `.` or `,`; what is finer than a millisecond must be zero.
 *
 * Week dates, ordinal dates, the basic format, leap seconds and the hour 24 are not accepted.
 *
 * @param kind 'end': the end of a range, which is not part of it, so MAX_INSTANT itself is accepted
 * @returns `instant` in [MIN_INSTANT, MAX_INSTANT), or `error`: what is wrong and what is wanted, to be read after the
 * parameter's name, and holding nothing of `text` but digits and signs. Never throws; an unknown zone is
 * an `error` where `text` needs one.
 */
export function parseInstant(
  text: string,
  zone: string,
  kind: 'moment' | 'end' = 'moment',
): { instant: Instant } | { error: string } {
  if (text.length > 40) return { error: `is longer than 40 characters; ${WANTED}` }
  const match = DATE_TIME.exec(text)
  if (!match) {
    if (LOST_PLUS.test(text)) return { error: 'has a space before its UTC offset; write + as %2B in a URL' }
    return { error: `cannot be read; ${WANTED}` }
  }
  const [, yyyy, mm, dd, hh, min, ss = '00', fraction = '', utc, sign, offsetHH, offsetMM = '00'] = match

  const year = Number(yyyy)
  const month = Number(mm)
  if (month < 1 || month > 12) return { error: `has month ${mm}; must be 01 to 12` }
  const days = daysInMonth(year, month)
  const dayOfMonth = Number(dd)
  if (dayOfMonth < 1 || dayOfMonth > days) return { error: `has day ${dd}; must be 01 to ${days} in ${yyyy}-${mm}` }

  const hour = Number(hh ?? 0)
  const minute = Number(min ?? 0)
  const second = Number(ss)
  if (hour > 23) return { error: `has hour ${hh}; must be 00 to 23` }
  if (minute > 59) return { error: `has minute ${min}; must be 00 to 59` }
  if (second > 59) return { error: `has second ${ss}; must be 00 to 59 (leap seconds are not counted)` }
  if (fraction.length > 9) return { error: `has ${fraction.length} fraction digits; must be 1 to 9` }
  if (fraction.length > 3 && /[1-9]/.test(fraction.slice(3))) {
    return { error: 'is finer than a millisecond; must have at most 3 fraction digits, or zeros after them' }
  }
  const millisecond = Number(fraction.slice(0, 3).padEnd(3, '0'))
  if (Number(offsetHH ?? 0) > 23 || Number(offsetMM) > 59) {
    return { error: `has UTC offset ${sign}${offsetHH}:${offsetMM}; must be -23:59 to +23:59` }
  }

  // Also keeps years below 100 away from Date.UTC, which takes them for 19xx.
  const outOfRange = kind === 'end' ? END_OUT_OF_RANGE : OUT_OF_RANGE
  if (year < 1969 || year > 2100) return { error: outOfRange }
  const wall = Date.UTC(year, month - 1, dayOfMonth, hour, minute, second, millisecond)
  let instant = wall
  if (sign) {
    const offset = Number(offsetHH) * HOUR + Number(offsetMM) * MINUTE
    instant = sign === '+' ? wall - offset : wall + offset
  } else if (!utc) {
    const rules = findZone(zone)
    if (!rules) return { error: 'cannot be read in an unknown time zone; must be an IANA name such as Asia/Kathmandu' }
    instant = hh === undefined ? startOf(rules, wall / DAY) : instantOf(rules, wall)
  }
  const last = kind === 'end' ? MAX_INSTANT : MAX_INSTANT - 1
  return instant >= MIN_INSTANT && instant <= last ? { instant } : { error: outOfRange }
}

/** UTC, ISO 8601 with milliseconds: `2026-02-22T10:00:30.123Z`. */
export function toIso(instant: Instant): string {
  return new Date(instant).toISOString()
}
