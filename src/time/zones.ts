/**
 * Time zones: offsets, local times and days, by the rules of `Intl`. Pure: no clock, no I/O.
 *
 * A *day* is a number here: days since 1970-01-01 in the proleptic Gregorian calendar, without a zone. A *wall* time
 * is milliseconds since 1970-01-01T00:00 on a zone's own clocks, so `wall = instant + offset`.
 */
import { DAY, type Instant, MAX_INSTANT, MIN_INSTANT, SECOND } from './instant.ts'

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

export function findZone(name: string): Zone | undefined {
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

export function zoneOf(name: string): Zone {
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

export function spanAt(zone: Zone, instant: Instant): Span {
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
export function instantOf(zone: Zone, wall: number): Instant {
  const { before, after, at } = offsetsAround(zone, wall)
  return wall - before < at || wall - after < at ? wall - before : wall - after
}

/** The first instant at which the zone's clocks show `day` or, where it has none of that day, a later one. */
export function startOf(zone: Zone, day: number): Instant {
  const wall = day * DAY
  const { before, after, at } = offsetsAround(zone, wall)
  return wall - before < at ? wall - before : Math.max(at, wall - after)
}

/** The latest day that has started at the instant. */
export function dayOf(zone: Zone, instant: Instant): number {
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
