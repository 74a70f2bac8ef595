import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { addDays, nextPeriod, type Period, periodKey, PERIODS, periodsBetween, startOfPeriod } from '../../src/time/periods.ts'
import { type Instant, MAX_INSTANT, MIN_INSTANT } from '../../src/time/instant.ts'
import { isTimeZone, offsetAt } from '../../src/time/zones.ts'
import { parseInstant, toIso } from '../../src/time/iso8601.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR

/** Zones whose rules are known to break naive date arithmetic, and a few plain ones. */
const ZONES = [
  'UTC',
  'Etc/GMT+5',
  'Etc/GMT-14',
  'Asia/Kathmandu', // +05:45
  'Asia/Kolkata', // +05:30, no DST
  'Australia/Lord_Howe', // DST of 30 minutes
  'America/New_York',
  'America/Adak', // DST, far in the west
  'Europe/Berlin',
  'Europe/Dublin', // negative DST
  'America/Sao_Paulo', // DST starts at midnight
  'Asia/Beirut', // DST starts and ends at midnight
  'America/Havana', // DST starts at midnight, ends at 01:00
  'America/St_Johns', // clocks set back over midnight, once by two hours
  'America/Recife', // one week of DST in 2000
  'Pacific/Apia', // skipped 2011-12-30
  'Pacific/Kwajalein', // skipped 1993-08-21
  'Africa/Monrovia', // -00:44:30 until 1972
  'Africa/Casablanca', // DST suspended for Ramadan
  'Asia/Gaza', // the same with DST, down to one week
  'Antarctica/Troll', // DST of 2 hours
  'Antarctica/Vostok', // a day of 31 hours
  'Pacific/Chatham', // +12:45, +13:45
]

/** `parseInstant`, back as text: the instant in UTC, or the error. */
function read(text: string, zone = 'UTC'): string {
  const result = parseInstant(text, zone)
  return 'error' in result ? result.error : toIso(result.instant)
}

function instant(text: string, zone = 'UTC'): Instant {
  const result = parseInstant(text, zone)
  if ('error' in result) throw new Error(`${text} ${result.error}`)
  return result.instant
}

/** What the clocks of the zone show, as `2026-02-22T10:00:30.123`. */
const wallClock = (zone: string, at: Instant) => toIso(at + offsetAt(zone, at)).slice(0, -1)

// Independent of the module: other formatter options, other arithmetic.

const formatters = new Map<string, Intl.DateTimeFormat>()

/** The date on the zone's calendars, from Intl's parts. */
function intlDate(zone: string, at: Instant): string {
  let formatter = formatters.get(zone)
  if (!formatter) {
    formatter = new Intl.DateTimeFormat('en-GB', { timeZone: zone, dateStyle: 'short' })
    formatters.set(zone, formatter)
  }
  const parts = Object.fromEntries(formatter.formatToParts(at).map(({ type, value }) => [type, value]))
  return `${parts['year']}-${parts['month']}-${parts['day']}`
}

/** That date in days since 1970-01-01. */
const shownDay = (zone: string, at: Instant) => Date.parse(intlDate(zone, at)) / DAY

/** The offset that Intl prints as a name: `GMT+05:45`, `GMT-00:44:30`, `GMT`. */
function intlOffset(zone: string, at: Instant): number {
  const name = new Intl.DateTimeFormat('en-US', { timeZone: zone, timeZoneName: 'longOffset' })
    .formatToParts(at)
    .find(({ type }) => type === 'timeZoneName')!.value
  const match = /^GMT(?:([+-])(\d{2}):(\d{2})(?::(\d{2}))?)?$/.exec(name)
  if (!match) throw new Error(name)
  const [, sign, hours = 0, minutes = 0, seconds = 0] = match
  return (sign === '-' ? -1 : 1) * (Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds)) * 1_000
}

/** ISO week by counting Mondays: week 1 is the one with 4 January in it. */
function isoWeek(date: string): string {
  const at = Date.parse(date)
  const week1 = (year: number) => {
    const january4 = Date.UTC(year, 0, 4)
    return january4 - ((new Date(january4).getUTCDay() + 6) % 7) * DAY
  }
  let year = Number(date.slice(0, 4)) + 1
  while (week1(year) > at) year -= 1
  return `${year}-W${String(Math.floor((at - week1(year)) / (7 * DAY)) + 1).padStart(2, '0')}`
}

const keyOfDate = (period: Period, date: string) =>
  period === 'day' ? date : period === 'week' ? isoWeek(date) : date.slice(0, 7)

/** Where the offset changes, to a day: random instants alone would hardly ever come near. */
const transitions = ZONES.flatMap((zone) => {
  const found: Array<[zone: string, near: Instant]> = []
  for (let at = MIN_INSTANT + DAY; at < MAX_INSTANT; at += DAY) {
    if (offsetAt(zone, at) !== offsetAt(zone, at - DAY)) found.push([zone, at])
  }
  return found
})

const readEnd = (text: string, zone = 'UTC') => parseInstant(text, zone, 'end')
const anyInstant = fc.integer({ min: MIN_INSTANT, max: MAX_INSTANT - 1 })
const nearTransition = fc
  .tuple(fc.constantFrom(...transitions), fc.integer({ min: -2.5 * DAY, max: 1.5 * DAY }))
  .map(([[zone, near], shift]): [string, Instant] => [zone, Math.min(Math.max(near + shift, MIN_INSTANT), MAX_INSTANT - 1)])
const zoneAndInstant = fc.oneof(fc.tuple(fc.constantFrom(...ZONES), anyInstant), nearTransition)
const anyPeriod = fc.constantFrom(...PERIODS)
const RUNS = { numRuns: 2_000 }

describe('isTimeZone', () => {
  test.each([...ZONES, 'Asia/Katmandu', 'US/Eastern', 'EST5EDT', 'GMT', 'Zulu', 'america/new_york', 'EUROPE/BERLIN'])(
    'knows %s',
    (name) => {
      expect(isTimeZone(name)).toBe(true)
    },
  )

  test.each([
    '',
    ' ',
    '+05:45',
    '-03',
    'GMT+5',
    'UTC+3',
    'Mars/Olympus',
    'Asia/Kathmandu ',
    'Asia/Kathmandu\n',
    'Asia/\u212Aathmandu', // the Kelvin sign, whose lower case is k
    'Etc/Unknown',
    '__proto__',
    'constructor',
    'toString',
    'undefined',
    'IST', // only ICU knows it, and as Kolkata
    'AST',
    'SystemV/EST5',
    '../../etc/passwd',
    `Asia/${'a'.repeat(60)}`,
    'a'.repeat(1_000_000),
  ])('refuses %j', (name) => {
    expect(isTimeZone(name)).toBe(false)
    expect(() => offsetAt(name, 0)).toThrow(RangeError)
  })

  test('never throws', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (name) => typeof isTimeZone(name) === 'boolean'))
  })
})

describe('offsetAt', () => {
  test.each([
    ['UTC', '2026-02-22', '+00:00:00'],
    ['Asia/Kathmandu', '2026-02-22', '+05:45:00'],
    ['Asia/Kathmandu', '1985-12-31T18:29:59.999Z', '+05:30:00'],
    ['Asia/Kathmandu', '1985-12-31T18:30:00Z', '+05:45:00'],
    ['Africa/Monrovia', '1971-06-01', '-00:44:30'],
    ['Africa/Monrovia', '1972-01-07T00:44:29.999Z', '-00:44:30'],
    ['Africa/Monrovia', '1972-01-07T00:44:30Z', '+00:00:00'],
    ['America/New_York', '2026-03-08T06:59:59.999Z', '-05:00:00'],
    ['America/New_York', '2026-03-08T07:00:00Z', '-04:00:00'],
    ['America/New_York', '2026-11-01T05:59:59.999Z', '-04:00:00'],
    ['America/New_York', '2026-11-01T06:00:00Z', '-05:00:00'],
    ['america/new_york', '2026-11-01T06:00:00Z', '-05:00:00'],
    ['America/New_York', '2099-07-01', '-04:00:00'],
    ['Australia/Lord_Howe', '2026-01-01', '+11:00:00'],
    ['Australia/Lord_Howe', '2026-07-01', '+10:30:00'],
    ['Pacific/Apia', '2011-12-30T09:59:59.999Z', '-10:00:00'],
    ['Pacific/Apia', '2011-12-30T10:00:00Z', '+14:00:00'],
    ['America/Recife', '2000-10-08T03:00:00Z', '-02:00:00'],
    ['America/Recife', '2000-10-15T01:59:59.999Z', '-02:00:00'],
    ['America/Recife', '2000-10-15T02:00:00Z', '-03:00:00'],
    ['Etc/GMT+5', '2026-02-22', '-05:00:00'],
  ])('%s at %s is %s', (zone, at, expected) => {
    const offset = offsetAt(zone, instant(at))
    expect((offset < 0 ? '-' : '+') + toIso(Math.abs(offset)).slice(11, 19)).toBe(expected)
  })

  test.each([Number.NaN, Infinity, -Infinity, -2 * 366 * DAY, MAX_INSTANT + 2 * 366 * DAY, 8.64e15])(
    'refuses the instant %s',
    (at) => {
      expect(() => offsetAt('UTC', at)).toThrow(RangeError)
    },
  )

  test('equals the offset that Intl names', () => {
    fc.assert(
      fc.property(zoneAndInstant, ([zone, at]) => {
        expect(offsetAt(zone, at)).toBe(intlOffset(zone, at))
      }),
      RUNS,
    )
  })
})

describe('parseInstant', () => {
  test.each([
    ['2026-02-22', 'UTC', '2026-02-22T00:00:00.000Z'],
    ['2026-02-22', 'Asia/Kathmandu', '2026-02-21T18:15:00.000Z'],
    ['2026-02-22', 'America/New_York', '2026-02-22T05:00:00.000Z'],
    ['1971-06-01', 'Africa/Monrovia', '1971-06-01T00:44:30.000Z'],
    ['2024-02-29', 'UTC', '2024-02-29T00:00:00.000Z'],
    ['2000-02-29', 'UTC', '2000-02-29T00:00:00.000Z'],
    ['2026-02-22T10:00', 'UTC', '2026-02-22T10:00:00.000Z'],
    ['2026-02-22T10:00', 'Asia/Kathmandu', '2026-02-22T04:15:00.000Z'],
    ['2026-02-22T10:00:30', 'America/New_York', '2026-02-22T15:00:30.000Z'],
    ['2026-02-22T10:00:30.1', 'UTC', '2026-02-22T10:00:30.100Z'],
    ['2026-02-22T10:00:30.12', 'UTC', '2026-02-22T10:00:30.120Z'],
    ['2026-02-22T10:00:30.123', 'UTC', '2026-02-22T10:00:30.123Z'],
    ['2026-02-22T10:00:30,123', 'UTC', '2026-02-22T10:00:30.123Z'],
    ['2026-02-22T10:00:30.123000', 'UTC', '2026-02-22T10:00:30.123Z'],
    ['2026-02-22T10:00:30.123000000', 'UTC', '2026-02-22T10:00:30.123Z'],
    ['2026-02-22T23:59:59.999', 'UTC', '2026-02-22T23:59:59.999Z'],
    ['2026-02-22T10:00:30.123Z', 'Asia/Kathmandu', '2026-02-22T10:00:30.123Z'],
    ['2026-02-22t10:00z', 'Asia/Kathmandu', '2026-02-22T10:00:00.000Z'],
    ['2026-02-22T10:00+05:45', 'UTC', '2026-02-22T04:15:00.000Z'],
    ['2026-02-22T10:00+0545', 'UTC', '2026-02-22T04:15:00.000Z'],
    ['2026-02-22T10:00-03', 'UTC', '2026-02-22T13:00:00.000Z'],
    ['2026-02-22T10:00:30.5-03:30', 'UTC', '2026-02-22T13:30:30.500Z'],
    ['2026-02-22T10:00-00:00', 'Asia/Kathmandu', '2026-02-22T10:00:00.000Z'],
    ['2026-02-22T10:00+23:59', 'UTC', '2026-02-21T10:01:00.000Z'],
    // The edges of what is supported.
    ['1970-01-01', 'UTC', '1970-01-01T00:00:00.000Z'],
    ['1970-01-01', 'America/New_York', '1970-01-01T05:00:00.000Z'],
    ['1969-12-31T19:00', 'America/New_York', '1970-01-01T00:00:00.000Z'],
    ['2099-12-31T23:59:59.999Z', 'UTC', '2099-12-31T23:59:59.999Z'],
    ['2100-01-01T00:00', 'Asia/Kathmandu', '2099-12-31T18:15:00.000Z'],
  ])('reads %s in %s', (text, zone, expected) => {
    expect(read(text, zone)).toBe(expected)
  })

  test.each([
    // A gap: forward by its length.
    ['2026-03-08T02:00', 'America/New_York', '2026-03-08T07:00:00.000Z'],
    ['2026-03-08T02:30', 'America/New_York', '2026-03-08T07:30:00.000Z'],
    ['2026-03-08T03:00', 'America/New_York', '2026-03-08T07:00:00.000Z'],
    ['2026-10-04T02:15', 'Australia/Lord_Howe', '2026-10-03T15:45:00.000Z'],
    ['2018-11-04T00:30', 'America/Sao_Paulo', '2018-11-04T03:30:00.000Z'],
    ['2011-12-30T12:00', 'Pacific/Apia', '2011-12-30T22:00:00.000Z'],
    // An overlap: the earlier.
    ['2026-11-01T01:30', 'America/New_York', '2026-11-01T05:30:00.000Z'],
    ['2026-11-01T00:59:59.999', 'America/New_York', '2026-11-01T04:59:59.999Z'],
    ['2026-11-01T02:00', 'America/New_York', '2026-11-01T07:00:00.000Z'],
    ['2026-04-05T01:45', 'Australia/Lord_Howe', '2026-04-04T14:45:00.000Z'],
    ['2022-10-29T23:30', 'Asia/Beirut', '2022-10-29T20:30:00.000Z'],
    // A day without a midnight begins at its first instant.
    ['2018-11-04', 'America/Sao_Paulo', '2018-11-04T03:00:00.000Z'],
    ['2022-03-27', 'Asia/Beirut', '2022-03-26T22:00:00.000Z'],
    ['1972-01-07', 'Africa/Monrovia', '1972-01-07T00:44:30.000Z'],
    ['2011-12-30', 'Pacific/Apia', '2011-12-30T10:00:00.000Z'],
    ['2011-12-31', 'Pacific/Apia', '2011-12-30T10:00:00.000Z'],
    ['1993-08-21', 'Pacific/Kwajalein', '1993-08-21T12:00:00.000Z'],
    // One with two begins at the first.
    ['2023-11-05', 'America/Havana', '2023-11-05T04:00:00.000Z'],
    ['2022-10-30', 'Asia/Beirut', '2022-10-29T22:00:00.000Z'],
    ['2010-11-07', 'America/St_Johns', '2010-11-07T02:30:00.000Z'],
  ])('resolves %s in %s where clocks change', (text, zone, expected) => {
    expect(read(text, zone)).toBe(expected)
  })

  const cannotBeRead = /^cannot be read; must be an ISO 8601 date or date-time such as 2026-02-22, /
  test.each<[string, string | RegExp]>([
    ['2026-13-01', 'has month 13; must be 01 to 12'],
    ['2026-00-01', 'has month 00; must be 01 to 12'],
    ['2026-02-30', 'has day 30; must be 01 to 28 in 2026-02'],
    ['2026-02-29', 'has day 29; must be 01 to 28 in 2026-02'],
    ['2100-02-29', 'has day 29; must be 01 to 28 in 2100-02'],
    ['2024-02-30', 'has day 30; must be 01 to 29 in 2024-02'],
    ['2026-04-31', 'has day 31; must be 01 to 30 in 2026-04'],
    ['2026-01-32T10:00Z', 'has day 32; must be 01 to 31 in 2026-01'],
    ['2026-01-00', 'has day 00; must be 01 to 31 in 2026-01'],
    ['2026-02-22T25:00', 'has hour 25; must be 00 to 23'],
    ['2026-02-22T24:00', 'has hour 24; must be 00 to 23'],
    ['2026-02-22T24:00:00Z', 'has hour 24; must be 00 to 23'],
    ['2026-02-22T24:00+05:45', 'has hour 24; must be 00 to 23'],
    ['2026-02-22T10:60', 'has minute 60; must be 00 to 59'],
    ['2016-12-31T23:59:60Z', 'has second 60; must be 00 to 59 (leap seconds are not counted)'],
    ['2026-02-22T10:00:30.1234', /^is finer than a millisecond; /],
    ['2026-02-22T10:00:30.123000001Z', /^is finer than a millisecond; /],
    ['2026-02-22T10:00:30.1230000000', 'has 10 fraction digits; must be 1 to 9'],
    ['2026-02-22T10:00+24:00', 'has UTC offset +24:00; must be -23:59 to +23:59'],
    ['2026-02-22T10:00-0360', 'has UTC offset -03:60; must be -23:59 to +23:59'],
    ['2026-02-22T10:00 05:45', 'has a space before its UTC offset; write + as %2B in a URL'],
    ['2026-W08', cannotBeRead],
    ['2026-W08-7', cannotBeRead],
    ['2026-053', cannotBeRead],
    ['2026-02', cannotBeRead],
    ['20260222', cannotBeRead],
    ['20260222T100000Z', cannotBeRead],
    ['2026-2-22', cannotBeRead],
    ['22/02/2026', cannotBeRead],
    ['1771754400000', cannotBeRead],
    ['now', cannotBeRead],
    ['', cannotBeRead],
    [' 2026-02-22', cannotBeRead],
    ['2026-02-22\n', cannotBeRead],
    ['2026-02-22T', cannotBeRead],
    ['2026-02-22Z', cannotBeRead],
    ['2026-02-22T10', cannotBeRead],
    ['2026-02-22T1:00', cannotBeRead],
    ['2026-02-22T10:00.5', cannotBeRead],
    ['2026-02-22T10:00:30.', cannotBeRead],
    ['2026-02-22 10:00', cannotBeRead],
    ['2026-02-22T10:00+5', cannotBeRead],
    ['2026-02-22T10:00+05:45:30', cannotBeRead],
    ['2026-02-22T10:00[Asia/Kathmandu]', cannotBeRead],
    ['+002026-02-22', cannotBeRead],
    ['-002026-02-22T10:00Z', cannotBeRead],
    ['٢٠٢٦-٠٢-٢٢', cannotBeRead],
    ['2026-02-22'.repeat(5), /^is longer than 40 characters; must be an ISO 8601 date /],
    ['9'.repeat(10_000_000), /^is longer than 40 characters; /],
  ])('refuses %.60j', (text, expected) => {
    const message = read(text)
    if (typeof expected === 'string') expect(message).toBe(expected)
    else expect(message).toMatch(expected)
  })

  test.each([
    ['1969-12-31', 'UTC'],
    ['1969-12-31T23:59:59.999Z', 'UTC'],
    ['1970-01-01', 'Asia/Kathmandu'],
    ['1970-01-01T00:00+00:01', 'UTC'],
    ['2100-01-01', 'UTC'],
    ['2100-01-01', 'America/New_York'],
    ['2100-12-31T23:00', 'Etc/GMT+12'],
    ['1969-01-01', 'Etc/GMT-14'],
    ['0000-01-01', 'UTC'],
    ['0070-01-01', 'UTC'], // Date.UTC would make it 1970
    ['9999-12-31T23:59:59Z', 'UTC'],
  ])('refuses %s in %s as out of range', (text, zone) => {
    expect(read(text, zone)).toBe(
      'is out of range; must be 1970-01-01T00:00:00.000Z or later, and before 2100-01-01T00:00:00.000Z',
    )
  })

  test('reads the end of a range up to the end of what is supported, and not beyond', () => {
    expect(readEnd('2100-01-01')).toEqual({ instant: MAX_INSTANT })
    expect(readEnd('2099-12-31T19:00', 'America/New_York')).toEqual({ instant: MAX_INSTANT })
    expect(readEnd('2026-02-22')).toEqual({ instant: Date.parse('2026-02-22') })
    for (const text of ['2100-01-01T00:00:00.001Z', '2100-01-02', '1969-12-31', '2101-01-01']) {
      expect(readEnd(text)).toEqual({
        error: 'is out of range; must be from 1970-01-01T00:00:00.000Z to 2100-01-01T00:00:00.000Z',
      })
    }
  })

  test('tells an unknown zone from a bad date, and does not need one beside an offset', () => {
    expect(read('2026-02-22', 'Mars/Olympus')).toMatch(/^cannot be read in an unknown time zone/)
    expect(read('2026-02-22T00:00Z', 'Mars/Olympus')).toBe('2026-02-22T00:00:00.000Z')
  })

  test('never throws, and answers with an instant in range or with words', () => {
    const piece = fc.constantFrom('2026', '02', '22', '10', '123', '9', '60', ...'-T:.,Z+W \0')
    const pieces = fc.array(piece, { maxLength: 24 })
    const dateLike = fc
      .tuple(fc.nat(9_999), fc.nat(14), fc.nat(33), fc.nat(26), fc.nat(61), fc.nat(61), fc.string({ maxLength: 12 }))
      .map(([year, ...rest]) => {
        const [month, day, hour, minute, second] = rest.slice(0, 5).map((n) => String(n).padStart(2, '0'))
        return `${String(year).padStart(4, '0')}-${month}-${day}T${hour}:${minute}:${second}${rest[5]}`
      })
    const anyText = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 60 }),
      pieces.map((list) => list.join('')),
      dateLike,
    )
    fc.assert(
      fc.property(anyText, fc.oneof(fc.constantFrom(...ZONES), fc.string()), (text, zone) => {
        const result = parseInstant(text, zone)
        if ('error' in result) return result.error.length > 0
        return Number.isInteger(result.instant) && result.instant >= MIN_INSTANT && result.instant < MAX_INSTANT
      }),
      { numRuns: 5_000 },
    )
  })

  test('an instant written in UTC or with an offset reads back as itself', () => {
    fc.assert(
      fc.property(anyInstant, fc.integer({ min: -23 * 60 - 59, max: 23 * 60 + 59 }), (at, minutes) => {
        const offset = toIso(Math.abs(minutes) * 60_000).slice(11, 16)
        const text = toIso(at + minutes * 60_000).replace('Z', (minutes < 0 ? '-' : '+') + offset)
        expect(instant(toIso(at))).toBe(at)
        expect(instant(text)).toBe(at)
      }),
      RUNS,
    )
  })

  test('local time, instant, local time: the same, or shifted out of a gap by its length', () => {
    fc.assert(
      fc.property(zoneAndInstant, ([zone, wall]) => {
        const text = toIso(wall).slice(0, -1)
        const result = parseInstant(text, zone)
        if ('error' in result) return
        const at = result.instant
        const shift = at + offsetAt(zone, at) - wall
        if (shift === 0) return
        expect(shift).toBe(offsetAt(zone, at) - offsetAt(zone, at - shift))
        expect(shift).toBeGreaterThan(0)
        // No instant shows the time that was asked for.
        for (const offset of [offsetAt(zone, at), offsetAt(zone, at - shift)]) {
          expect(wallClock(zone, wall - offset)).not.toBe(text)
        }
      }),
      RUNS,
    )
  })

  test('instant, local time, instant: the same, or the earlier of the two that show this time', () => {
    fc.assert(
      fc.property(zoneAndInstant, ([zone, at]) => {
        const text = wallClock(zone, at)
        const result = parseInstant(text, zone)
        if ('error' in result) return expect(at).toBeLessThan(MIN_INSTANT + DAY) // its earlier twin is out of range
        expect(result.instant).toBeLessThanOrEqual(at)
        expect(wallClock(zone, result.instant)).toBe(text)
        expect(at - result.instant).toBe(offsetAt(zone, result.instant) - offsetAt(zone, at))
      }),
      RUNS,
    )
  })
})

test('toIso writes UTC with milliseconds', () => {
  expect(toIso(MIN_INSTANT)).toBe('1970-01-01T00:00:00.000Z')
  expect(toIso(MAX_INSTANT)).toBe('2100-01-01T00:00:00.000Z')
  expect(toIso(1_771_754_400_007)).toBe('2026-02-22T10:00:00.007Z')
})

describe('periodKey', () => {
  test.each<[Period, string, string, string]>([
    ['day', '2026-02-22T23:59:59.999Z', 'UTC', '2026-02-22'],
    ['day', '2026-02-22T18:14:59.999Z', 'Asia/Kathmandu', '2026-02-22'],
    ['day', '2026-02-22T18:15:00Z', 'Asia/Kathmandu', '2026-02-23'],
    ['day', '1971-06-01T00:44:29.999Z', 'Africa/Monrovia', '1971-05-31'],
    ['day', '1971-06-01T00:44:30Z', 'Africa/Monrovia', '1971-06-01'],
    ['day', '1970-01-01T00:00:00Z', 'America/New_York', '1969-12-31'],
    ['day', '2099-12-31T23:59:59Z', 'Asia/Kathmandu', '2100-01-01'],
    ['week', '2026-02-22', 'UTC', '2026-W08'],
    ['week', '2026-02-23', 'UTC', '2026-W09'],
    ['week', '2020-12-31', 'UTC', '2020-W53'],
    ['week', '2021-01-03', 'UTC', '2020-W53'],
    ['week', '2021-01-04', 'UTC', '2021-W01'],
    ['week', '2024-12-29', 'UTC', '2024-W52'],
    ['week', '2024-12-30', 'UTC', '2025-W01'],
    ['week', '2024-12-29T18:15:00Z', 'Asia/Kathmandu', '2025-W01'],
    ['week', '1970-01-01', 'UTC', '1970-W01'],
    ['week', '2027-01-03', 'UTC', '2026-W53'],
    ['month', '2024-02-29T23:59:59.999Z', 'UTC', '2024-02'],
    ['month', '2026-03-01T04:59:59.999Z', 'America/New_York', '2026-02'],
    ['month', '2026-03-01T05:00:00Z', 'America/New_York', '2026-03'],
    // Havana shows 00:30 twice, both on the same day.
    ['day', '2023-11-05T03:59:59.999Z', 'America/Havana', '2023-11-04'],
    ['day', '2023-11-05T04:30:00Z', 'America/Havana', '2023-11-05'],
    ['day', '2023-11-05T05:30:00Z', 'America/Havana', '2023-11-05'],
    // St John's shows 23:30 of the day before again, after the new day has begun.
    ['day', '2010-11-07T02:29:59.999Z', 'America/St_Johns', '2010-11-06'],
    ['day', '2010-11-07T02:30:00Z', 'America/St_Johns', '2010-11-07'],
    ['day', '2010-11-07T03:00:00Z', 'America/St_Johns', '2010-11-07'],
    ['day', '2011-12-30T09:59:59.999Z', 'Pacific/Apia', '2011-12-29'],
    ['day', '2011-12-30T10:00:00Z', 'Pacific/Apia', '2011-12-31'],
  ])('%s of %s in %s is %s', (period, at, zone, expected) => {
    expect(periodKey(period, instant(at), zone)).toBe(expected)
  })

  test('is what the calendar shows, unless clocks set back over midnight show the day before again', () => {
    fc.assert(
      fc.property(zoneAndInstant, anyPeriod, ([zone, at], period) => {
        const key = periodKey(period, at, zone)
        if (key === keyOfDate(period, intlDate(zone, at))) return
        const hoursBefore = Array.from({ length: 3 * 60 }, (_, minutes) => intlDate(zone, at - minutes * 60_000))
        const latest = hoursBefore.sort().at(-1)!
        expect(intlDate(zone, at) < latest).toBe(true)
        expect(key).toBe(keyOfDate(period, latest))
      }),
      RUNS,
    )
  })
})

describe('startOfPeriod and nextPeriod', () => {
  test.each<[Period, string, string, string, string]>([
    ['day', '2026-02-22T10:00Z', 'UTC', '2026-02-22T00:00:00.000Z', '2026-02-23T00:00:00.000Z'],
    ['day', '2026-02-22T00:00Z', 'UTC', '2026-02-22T00:00:00.000Z', '2026-02-23T00:00:00.000Z'],
    ['day', '2026-02-22T20:00Z', 'Asia/Kathmandu', '2026-02-22T18:15:00.000Z', '2026-02-23T18:15:00.000Z'],
    // 23, 25, 23.5 and 24.5 hours.
    ['day', '2026-03-08T12:00Z', 'America/New_York', '2026-03-08T05:00:00.000Z', '2026-03-09T04:00:00.000Z'],
    ['day', '2026-11-01T12:00Z', 'America/New_York', '2026-11-01T04:00:00.000Z', '2026-11-02T05:00:00.000Z'],
    ['day', '2026-10-04T00:00Z', 'Australia/Lord_Howe', '2026-10-03T13:30:00.000Z', '2026-10-04T13:00:00.000Z'],
    ['day', '2026-04-05T00:00Z', 'Australia/Lord_Howe', '2026-04-04T13:00:00.000Z', '2026-04-05T13:30:00.000Z'],
    // Midnight does not exist.
    ['day', '2018-11-04T12:00Z', 'America/Sao_Paulo', '2018-11-04T03:00:00.000Z', '2018-11-05T02:00:00.000Z'],
    ['day', '2022-03-27T12:00Z', 'Asia/Beirut', '2022-03-26T22:00:00.000Z', '2022-03-27T21:00:00.000Z'],
    // The hour before midnight comes twice.
    ['day', '2022-10-29T21:30Z', 'Asia/Beirut', '2022-10-28T21:00:00.000Z', '2022-10-29T22:00:00.000Z'],
    // Midnight comes twice.
    ['day', '2023-11-05T05:30Z', 'America/Havana', '2023-11-05T04:00:00.000Z', '2023-11-06T05:00:00.000Z'],
    ['day', '2010-11-07T03:00Z', 'America/St_Johns', '2010-11-07T02:30:00.000Z', '2010-11-08T03:30:00.000Z'],
    // The day after this one does not exist.
    ['day', '2011-12-30T09:00Z', 'Pacific/Apia', '2011-12-29T10:00:00.000Z', '2011-12-30T10:00:00.000Z'],
    ['day', '2011-12-30T10:00Z', 'Pacific/Apia', '2011-12-30T10:00:00.000Z', '2011-12-31T10:00:00.000Z'],
    ['week', '2011-12-31T00:00Z', 'Pacific/Apia', '2011-12-26T10:00:00.000Z', '2012-01-01T10:00:00.000Z'],
    ['week', '2026-02-22T10:00Z', 'UTC', '2026-02-16T00:00:00.000Z', '2026-02-23T00:00:00.000Z'],
    ['week', '2026-02-23T00:00Z', 'UTC', '2026-02-23T00:00:00.000Z', '2026-03-02T00:00:00.000Z'],
    ['week', '2026-03-08T12:00Z', 'America/New_York', '2026-03-02T05:00:00.000Z', '2026-03-09T04:00:00.000Z'],
    ['week', '1970-01-01T00:00Z', 'UTC', '1969-12-29T00:00:00.000Z', '1970-01-05T00:00:00.000Z'],
    ['month', '2024-02-29T10:00Z', 'UTC', '2024-02-01T00:00:00.000Z', '2024-03-01T00:00:00.000Z'],
    ['month', '2026-12-31T23:00Z', 'UTC', '2026-12-01T00:00:00.000Z', '2027-01-01T00:00:00.000Z'],
    ['month', '2026-03-20T00:00Z', 'America/New_York', '2026-03-01T05:00:00.000Z', '2026-04-01T04:00:00.000Z'],
    ['month', '1970-01-01T00:00Z', 'America/New_York', '1969-12-01T05:00:00.000Z', '1970-01-01T05:00:00.000Z'],
    ['month', '2099-12-31T23:59Z', 'Etc/GMT-14', '2099-12-31T10:00:00.000Z', '2100-01-31T10:00:00.000Z'],
  ])('%s of %s in %s', (period, at, zone, start, next) => {
    expect(toIso(startOfPeriod(period, instant(at), zone))).toBe(start)
    expect(toIso(nextPeriod(period, instant(at), zone))).toBe(next)
    expect(toIso(nextPeriod(period, instant(start.startsWith('1969') ? at : start), zone))).toBe(next)
  })

  test('startOfPeriod <= instant < nextPeriod, and all three agree on where a period is', () => {
    fc.assert(
      fc.property(zoneAndInstant, anyPeriod, ([zone, at], period) => {
        const start = startOfPeriod(period, at, zone)
        const next = nextPeriod(period, start, zone)
        const key = periodKey(period, at, zone)
        expect(start).toBeLessThanOrEqual(at)
        expect(next).toBeGreaterThan(at)
        expect(nextPeriod(period, at, zone)).toBe(next)
        expect(startOfPeriod(period, start, zone)).toBe(start)
        expect(startOfPeriod(period, next - 1, zone)).toBe(start)
        expect(startOfPeriod(period, next, zone)).toBe(next)
        expect([start, next - 1].map((edge) => periodKey(period, edge, zone))).toEqual([key, key])
        expect(periodKey(period, start - 1, zone) < key).toBe(true)
        expect(periodKey(period, next, zone) > key).toBe(true)
      }),
      RUNS,
    )
  })

  test('a period starts at the first instant on which Intl shows its first day', () => {
    fc.assert(
      fc.property(zoneAndInstant, anyPeriod, ([zone, at], period) => {
        const start = startOfPeriod(period, at, zone)
        const shown = (edge: Instant) => keyOfDate(period, intlDate(zone, edge))
        expect(shown(start)).toBe(periodKey(period, at, zone))
        expect(shown(start - 1) < shown(start)).toBe(true)
      }),
      RUNS,
    )
  })
})

/** One line per part: key, full period, part. */
const lines = (period: Period, from: string, to: string, zone: string) =>
  periodsBetween(period, instant(from), instant(to), zone).map((part) =>
    [part.key, ...[part.start, part.end, part.from, part.to].map((at) => toIso(at).slice(0, 16))].join(' '),
  )
const keys = (period: Period, from: string, to: string, zone: string) =>
  periodsBetween(period, instant(from, zone), instant(to, zone), zone).map(({ key }) => key)

/** Lengths of the days. */
const hours = (from: string, to: string, zone: string) =>
  periodsBetween('day', instant(from, zone), instant(to, zone), zone).map(({ start, end }) => (end - start) / HOUR)

describe('periodsBetween', () => {
  test('cuts the periods at the edges of the range', () => {
    expect(lines('day', '2026-02-20T10:00Z', '2026-02-22T01:00Z', 'UTC')).toEqual([
      '2026-02-20 2026-02-20T00:00 2026-02-21T00:00 2026-02-20T10:00 2026-02-21T00:00',
      '2026-02-21 2026-02-21T00:00 2026-02-22T00:00 2026-02-21T00:00 2026-02-22T00:00',
      '2026-02-22 2026-02-22T00:00 2026-02-23T00:00 2026-02-22T00:00 2026-02-22T01:00',
    ])
    expect(lines('week', '2025-12-27T00:00Z', '2026-01-06T00:00Z', 'Asia/Kathmandu')).toEqual([
      '2025-W52 2025-12-21T18:15 2025-12-28T18:15 2025-12-27T00:00 2025-12-28T18:15',
      '2026-W01 2025-12-28T18:15 2026-01-04T18:15 2025-12-28T18:15 2026-01-04T18:15',
      '2026-W02 2026-01-04T18:15 2026-01-11T18:15 2026-01-04T18:15 2026-01-06T00:00',
    ])
    expect(lines('month', '2024-02-10T00:00Z', '2024-02-11T00:00Z', 'UTC')).toEqual([
      '2024-02 2024-02-01T00:00 2024-03-01T00:00 2024-02-10T00:00 2024-02-11T00:00',
    ])
  })

  test('the range is half-open: it does not touch the period that starts at its end', () => {
    expect(keys('day', '2026-02-22', '2026-02-23', 'Asia/Kathmandu')).toEqual(['2026-02-22'])
    expect(keys('week', '2026-02-16', '2026-02-23', 'Asia/Kathmandu')).toEqual(['2026-W08'])
    expect(keys('month', '2026-02-01', '2026-03-01', 'Asia/Kathmandu')).toEqual(['2026-02'])
    expect(keys('day', '2026-02-22', '2026-02-23T00:00:00.001', 'UTC')).toEqual(['2026-02-22', '2026-02-23'])
  })

  test('is empty where the range is', () => {
    expect(periodsBetween('day', 1_000, 1_000, 'UTC')).toEqual([])
    expect(periodsBetween('month', 1_001, 1_000, 'UTC')).toEqual([])
  })

  test('days of 23 and 25 hours', () => {
    expect(hours('2026-03-07', '2026-03-10', 'America/New_York')).toEqual([24, 23, 24])
    expect(hours('2026-10-31', '2026-11-03', 'America/New_York')).toEqual([24, 25, 24])
    expect(hours('2018-11-03', '2018-11-06', 'America/Sao_Paulo')).toEqual([24, 23, 24])
    expect(hours('2022-10-28', '2022-10-31', 'Asia/Beirut')).toEqual([24, 25, 24])
    expect(hours('2023-11-04', '2023-11-07', 'America/Havana')).toEqual([24, 25, 24])
    expect(hours('2010-11-06', '2010-11-09', 'America/St_Johns')).toEqual([24, 25, 24])
  })

  test.each([
    ['Pacific/Apia', '2011-12-28', '2012-01-02', ['2011-12-28', '2011-12-29', '2011-12-31', '2012-01-01']],
    ['Pacific/Kwajalein', '1993-08-19', '1993-08-23', ['1993-08-19', '1993-08-20', '1993-08-22']],
  ])('%s: the day that was skipped is not there', (zone, from, to, expected) => {
    expect(keys('day', from, to, zone)).toEqual(expected)
    expect(hours(from, to, zone)).toEqual(expected.map(() => 24))
  })

  test('a range that begins or ends at a skipped day', () => {
    expect(keys('day', '2011-12-30', '2012-01-01', 'Pacific/Apia')).toEqual(['2011-12-31'])
    expect(keys('day', '2011-12-29', '2011-12-30', 'Pacific/Apia')).toEqual(['2011-12-29'])
    expect(keys('day', '2011-12-30', '2011-12-31', 'Pacific/Apia')).toEqual([])
  })

  test.each(ZONES)('%s: every period from 1970 to 2100, without a hole', (zone) => {
    for (const period of PERIODS) {
      const parts = periodsBetween(period, MIN_INSTANT, MAX_INSTANT, zone)
      const broken = parts.filter((part, i) => {
        const { to, key } = parts[i - 1] ?? { to: MIN_INSTANT, key: '' }
        return part.from !== to || part.from >= part.to || part.key <= key
      })
      expect(broken).toEqual([])
      expect(parts.at(-1)!.to).toBe(MAX_INSTANT)
    }
    // Local months: one more west of Greenwich at the start, one more east of it at the end, both in Apia.
    const months = 130 * 12 + Number(offsetAt(zone, MIN_INSTANT) < 0) + Number(offsetAt(zone, MAX_INSTANT) > 0)
    expect(periodsBetween('month', MIN_INSTANT, MAX_INSTANT, zone)).toHaveLength(months)
  })

  test('covers any range exactly, with parts that touch, keys that grow and periods that are whole', () => {
    fc.assert(
      fc.property(zoneAndInstant, fc.integer({ min: 1, max: 120 * DAY }), anyPeriod, ([zone, from], length, period) => {
        const to = Math.min(from + length, MAX_INSTANT)
        const parts = periodsBetween(period, from, to, zone)
        expect(parts[0]!.from).toBe(from)
        expect(parts.at(-1)!.to).toBe(to)
        for (const [i, part] of parts.entries()) {
          const following = parts[i + 1]
          expect(part.from).toBeLessThan(part.to)
          expect(part).toEqual({
            key: periodKey(period, part.from, zone),
            start: startOfPeriod(period, part.from, zone),
            end: nextPeriod(period, part.from, zone),
            from: Math.max(part.start, from),
            to: Math.min(part.end, to),
          })
          if (following) {
            expect(following.from).toBe(part.to)
            expect(following.key > part.key).toBe(true)
          }
        }
      }),
      { numRuns: 500 },
    )
  })

  test('ten years of days take milliseconds', () => {
    const from = Date.UTC(2016, 0, 1)
    const to = Date.UTC(2026, 0, 1)
    periodsBetween('day', from, to, 'America/New_York')
    const began = performance.now()
    expect(periodsBetween('day', from, to, 'America/New_York')).toHaveLength(3_654)
    expect(performance.now() - began).toBeLessThan(200) // 2 to 4 ms; the rest is for a busy machine
  })
})

describe('addDays', () => {
  test.each<[string, number, string, string]>([
    ['2026-02-22', 7, 'UTC', '2026-03-01T00:00:00.000Z'],
    ['2026-03-01', -7, 'UTC', '2026-02-22T00:00:00.000Z'],
    ['2026-03-01', 0, 'Asia/Kathmandu', '2026-02-28T18:15:00.000Z'],
    ['2026-03-07', 2, 'America/New_York', '2026-03-09T04:00:00.000Z'],
    ['2026-03-09', -2, 'America/New_York', '2026-03-07T05:00:00.000Z'],
    ['2026-11-02', -1, 'America/New_York', '2026-11-01T04:00:00.000Z'],
    ['2018-11-03', 1, 'America/Sao_Paulo', '2018-11-04T03:00:00.000Z'],
    ['2018-11-04', 1, 'America/Sao_Paulo', '2018-11-05T02:00:00.000Z'],
    ['2018-11-04', -1, 'America/Sao_Paulo', '2018-11-03T03:00:00.000Z'],
    ['2023-11-06', -1, 'America/Havana', '2023-11-05T04:00:00.000Z'],
    ['2011-12-29', 1, 'Pacific/Apia', '2011-12-30T10:00:00.000Z'],
    ['2011-12-29', 2, 'Pacific/Apia', '2011-12-30T10:00:00.000Z'],
    ['2011-12-31', -2, 'Pacific/Apia', '2011-12-29T10:00:00.000Z'],
    ['1970-01-01', -30, 'UTC', '1969-12-02T00:00:00.000Z'],
    ['2024-02-28', 2, 'UTC', '2024-03-01T00:00:00.000Z'],
    ['2026-02-22', 365, 'UTC', '2027-02-22T00:00:00.000Z'],
  ])('%s and %i days in %s is %s', (at, n, zone, expected) => {
    expect(toIso(addDays(instant(at, zone), n, zone))).toBe(expected)
  })

  test('from within a day counts from its start', () => {
    expect(addDays(instant('2026-03-08T23:00', 'America/New_York'), 1, 'America/New_York')).toBe(
      instant('2026-03-09', 'America/New_York'),
    )
  })

  test('n days on, the calendar shows the date n days on', () => {
    fc.assert(
      fc.property(zoneAndInstant, fc.integer({ min: -90, max: 90 }), ([zone, at], n) => {
        const start = startOfPeriod('day', at, zone)
        const moved = addDays(start, n, zone)
        const skipped = shownDay(zone, moved) - shownDay(zone, start) - n
        expect(skipped).toBeOneOf([0, 1])
        // One more only where the day asked for was skipped: no time lies between its start and the next one's.
        if (skipped === 1) expect(addDays(start, n + 1, zone)).toBe(moved)
        expect(shownDay(zone, moved - 1)).toBeLessThan(shownDay(zone, moved))
      }),
      RUNS,
    )
  })
})
