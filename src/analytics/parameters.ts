/**
 * Query parameters: each named and checked once, with valibot; all that is wrong with a request is told in one 400.
 */
import * as v from 'valibot'
import { badRequest, type Complaint } from '../domain/errors.ts'
import { EVENT_TYPES, MAX_ID_LENGTH } from '../domain/event.ts'
import type { Instant } from '../time/instant.ts'
import { parseInstant } from '../time/iso8601.ts'
import { type Period, PERIODS } from '../time/periods.ts'
import { isTimeZone } from '../time/zones.ts'

const MAX_REPEATS = 100

type Text = v.GenericSchema<string, unknown>

/**
 * What the reference says of a parameter, beside what its schema says by itself. Every value ends in a schema with its
 * limits, so that src/http/reference/document.ts reads from here what `readParameters` checks.
 */
const about = <Value>(description: string, ...examples: unknown[]) =>
  v.metadata<Value, { description: string; examples: unknown[] }>({ description, examples })

/** A parameter that may be given once at most. */
const once = <S extends Text>(schema: S) =>
  v.pipe(
    v.array(v.string()),
    v.maxLength(1, 'may be given only once'),
    v.transform((values) => values[0] as string),
    schema as v.GenericSchema<string, v.InferOutput<S>>,
  )

const optional = <S extends Text>(schema: S) => v.optional(once(schema))
const required = <S extends Text>(schema: S, message: string) => v.pipe(v.array(v.string(), message), once(schema))

const ID_RULE = `must be 1 to ${MAX_ID_LENGTH} characters long`
const id = v.pipe(
  v.string(),
  v.minLength(1, ID_RULE),
  v.maxLength(MAX_ID_LENGTH, ID_RULE),
  v.regex(/^[^\0]*$/, 'must not contain a NUL character'),
)

const ids = (of: string, example: string) =>
  v.optional(
    v.pipe(
      v.array(id),
      v.maxLength(MAX_REPEATS, `may be given at most ${MAX_REPEATS} times`),
      v.transform((values) => [...new Set(values)]),
      about(`Only ${of}. May be repeated; an id that nobody has used matches nothing.`, [example]),
    ),
  )

const whole = (min: number, max: number, description: string, example: number) => {
  const rule = `must be an integer from ${min} to ${max}`
  return v.pipe(
    v.string(),
    v.regex(/^\d{1,15}$/, rule),
    v.transform(Number),
    v.number(),
    v.integer(),
    v.minValue(min, rule),
    v.maxValue(max, rule),
    about(description, example),
  )
}

const oneOf = <const T extends readonly string[]>(values: T, description: string) =>
  v.pipe(v.picklist(values, `must be ${values.slice(0, -1).join(', ')} or ${values.at(-1)}`), about(description, values[0]))

/** Text here; `readParameters` reads it, as that takes the request's timezone. */
const instant = (description: string, example: string) =>
  v.pipe(
    v.string(),
    about(
      `${description} An ISO 8601 date (midnight in \`timezone\`) or date-time (in \`timezone\` where it has no offset).`,
      example,
    ),
  )

export const timezone = v.optional(
  once(
    v.pipe(
      v.string(),
      v.check(isTimeZone, 'must be an IANA time zone such as Europe/Berlin'),
      about('IANA time zone in which dates are read and days, weeks and months begin.', 'Europe/Berlin'),
    ),
  ),
  ['UTC'],
)

/** The parameters of DESIGN §3 that every endpoint has. */
export const common = {
  assistant: ids('events of these assistants', 'channel_ubuntu'),
  user: ids('events of these users', 'user_47c5944d63b3'),
  timezone,
}

export const range = {
  startDate: required(instant('First moment of the range.', '2011-02-18'), 'is required: an ISO 8601 date or date-time'),
  endDate: required(instant('End of the range, not part of it.', '2011-02-25'), 'is required: an ISO 8601 date or date-time'),
}

/** A moment that need not be given; see `instant`. */
export const moment = (description: string, example: string) => optional(instant(description, example))
export const endDate = moment('Looks back from this moment; now where not given.', '2011-02-25')

export const period = (fallback: Period, description: string) => v.optional(once(oneOf(PERIODS, description)), [fallback])
export const requiredPeriod = (description: string) => required(oneOf(PERIODS, description), 'is required: day, week or month')

export const eventType = optional(oneOf(EVENT_TYPES, 'Only events of this type.'))

const MAX_LIMIT = 1_000
export const limit = (fallback: number, description: string) =>
  v.optional(once(whole(1, MAX_LIMIT, description, fallback)), [String(fallback)])
/** Without a fallback in the check: what is meant where it is not given depends on another parameter. */
export const openLimit = (description: string, example: number) => optional(whole(1, MAX_LIMIT, description, example))

export const skip = v.optional(
  once(whole(0, Number.MAX_SAFE_INTEGER, 'Passes over so many events; `cursor` costs the same at any depth.', 0)),
  ['0'],
)
export const window = v.optional(once(whole(1, 90, 'Length of the window in days of 24 hours.', 7)), ['7'])
export const text = (check: (given: string) => boolean, message: string, description: string, example: string) =>
  optional(v.pipe(v.string(), v.check(check, message), about(description, example)))
export const choice = <const T extends readonly string[]>(values: T, description: string) => optional(oneOf(values, description))
export const wholeNumber = (min: number, max: number, fallback: number, description: string) =>
  v.optional(once(whole(min, max, description, fallback)), [String(fallback)])

/**
 * Checks a query string against the parameters an endpoint has.
 * Dates are read in the request's timezone and come back as numbers.
 * @param search as in a URL: empty, or from the question mark on
 * @throws ApiError 400 naming every bad, missing and unknown parameter
 */
export function readParameters<E extends v.ObjectEntries>(entries: E, search: string) {
  const given: Record<string, string[]> = Object.create(null) as Record<string, string[]>
  const complaints: Complaint[] = []
  for (const [name, value] of new URLSearchParams(search)) (given[name] ??= []).push(value)
  // URLSearchParams lets bad escapes through and makes every byte that is no UTF-8 the same character: another id.
  for (const pair of search.slice(1).split('&')) {
    if (isDecodable(pair)) continue
    const [parameter] = [...new URLSearchParams(pair).keys()]
    complaints.push({ parameter: (parameter ?? '').slice(0, 100), message: 'is not UTF-8 in percent-encoding' })
  }
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(entries, name) && !complaints.some(({ parameter }) => parameter === name)) {
      complaints.push({ parameter: name.slice(0, 100), message: unknownParameter(name, Object.keys(entries)) })
    }
  }
  const result = v.safeParse(v.object(entries), { ...given })
  for (const issue of result.issues ?? []) {
    const parameter = String(issue.path?.[0]?.key)
    if (!complaints.some((complaint) => complaint.parameter === parameter)) {
      complaints.push({ parameter, message: issue.message.startsWith('Invalid key') ? 'is required' : issue.message })
    }
  }
  const output = (result.success ? result.output : {}) as Partial<v.InferOutput<v.ObjectSchema<E, undefined>>>
  const zone = zoneOf(given['timezone'])
  const dates: Record<string, Instant> = {}
  for (const name of ['startDate', 'endDate']) {
    const [value, ...more] = given[name] ?? []
    if (value === undefined || more.length > 0 || !Object.hasOwn(entries, name)) continue
    if (complaints.some(({ parameter }) => parameter === name)) continue
    const parsed = parseInstant(value, zone, name === 'endDate' ? 'end' : 'moment')
    if ('error' in parsed) complaints.push({ parameter: name, message: parsed.error })
    else dates[name] = parsed.instant
  }
  const { startDate, endDate: end } = dates
  if (startDate !== undefined && end !== undefined && startDate >= end) {
    complaints.push({ parameter: 'endDate', message: 'must be after startDate: the range is half-open' })
  }
  if (complaints.length > 0) throw badRequest(complaints)
  return { ...output, ...dates } as Dated<v.InferOutput<v.ObjectSchema<E, undefined>>>
}

/**
 * An id in a path.
 * @param escaped as in the URL
 * @throws ApiError 400 where it is none
 */
export function readId(parameter: string, escaped: string): string {
  if (!isDecodable(escaped)) throw badRequest([{ parameter, message: 'is not UTF-8 in percent-encoding' }])
  const result = v.safeParse(id, decodeURIComponent(escaped))
  if (!result.success) throw badRequest(result.issues.slice(0, 1).map(({ message }) => ({ parameter, message })))
  return result.output
}

/** Parsed parameters; dates are instants (epoch milliseconds). */
type Dated<T> = {
  [K in keyof T]: K extends 'startDate' | 'endDate' ? (undefined extends T[K] ? Instant | undefined : Instant) : T[K]
}

const zoneOf = (values: string[] | undefined) =>
  values?.length === 1 && isTimeZone(values[0] as string) ? (values[0] as string) : 'UTC'

function isDecodable(escaped: string): boolean {
  try {
    decodeURIComponent(escaped)
    return true
  } catch {
    return false
  }
}

function unknownParameter(name: string, known: string[]): string {
  const nearest = known
    .map((candidate) => ({ candidate, distance: editDistance(name.slice(0, 40).toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0]
  if (!nearest) return 'is not a parameter: this endpoint has none'
  const hint = nearest.distance <= 3 ? `; did you mean ${nearest.candidate}?` : `; known are ${known.join(', ')}`
  return `is not a parameter of this endpoint${hint}`
}

/** Levenshtein distance, for spelling hints only. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      current.push(
        Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)),
      )
    }
    previous = current
  }
  return previous[b.length] ?? 0
}
