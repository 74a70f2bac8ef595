/**
 * Query parameters: each named and checked once, with valibot; all that is wrong with a request is told in one 400.
 */
import * as v from 'valibot'
import { badRequest, type Complaint } from '../http/errors.ts'
import { isTimeZone, parseInstant, type Instant, type Period } from '../time/calendar.ts'

export const PERIODS = ['day', 'week', 'month'] as const satisfies readonly Period[]
export const EVENT_TYPES = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted'] as const
export type EventType = (typeof EVENT_TYPES)[number]

/** Ids of assistants and users are opaque; DESIGN: 1 to 256 characters. */
export const MAX_ID_LENGTH = 256
const MAX_REPEATS = 100

type Text = v.GenericSchema<string, unknown>

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

const id = v.pipe(
  v.string(),
  v.check((text) => text.length >= 1 && text.length <= MAX_ID_LENGTH, `wants 1 to ${MAX_ID_LENGTH} characters`),
  v.check((text) => !text.includes('\0'), 'must not contain a NUL character'),
)

const ids = v.optional(
  v.pipe(
    v.array(id),
    v.maxLength(MAX_REPEATS, `may be given at most ${MAX_REPEATS} times`),
    v.transform((values) => [...new Set(values)]),
  ),
)

const whole = (min: number, max: number) =>
  v.pipe(
    v.string(),
    v.check(
      (text) => /^\d{1,15}$/.test(text) && Number(text) >= min && Number(text) <= max,
      `wants a whole number from ${min} to ${max}`,
    ),
    v.transform(Number),
  )

const oneOf = <const T extends readonly string[]>(values: T) =>
  v.picklist(values, `wants ${values.slice(0, -1).join(', ')} or ${values.at(-1)}`)

const instant = v.string()

export const timezone = v.optional(
  v.pipe(
    once(v.pipe(v.string(), v.check(isTimeZone, 'wants an IANA time zone such as Europe/Berlin'))),
  ),
  ['UTC'],
)

/** The parameters of DESIGN §3 that every endpoint has. */
export const common = { assistant: ids, user: ids, timezone }

export const range = {
  startDate: required(instant, 'is required: an ISO 8601 date or date-time'),
  endDate: required(instant, 'is required: an ISO 8601 date or date-time'),
}

export const endDate = optional(instant)
export const period = (fallback?: Period) =>
  fallback ? v.optional(once(oneOf(PERIODS)), [fallback]) : required(oneOf(PERIODS), 'is required: day, week or month')
export const eventType = optional(oneOf(EVENT_TYPES))
export const limit = (fallback: number) => v.optional(once(whole(1, 1_000)), [String(fallback)])
export const skip = v.optional(once(whole(0, Number.MAX_SAFE_INTEGER)), ['0'])
export const window = v.optional(once(whole(1, 90)), ['7'])
export const wholeNumber = (min: number, max: number, fallback: number) =>
  v.optional(once(whole(min, max)), [String(fallback)])
export const text = (check: (given: string) => boolean, message: string) =>
  optional(v.pipe(v.string(), v.check(check, message)))
export const choice = <const T extends readonly string[]>(values: T) => optional(oneOf(values))

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
    const parsed = parseInstant(value, zone)
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

/** Parsed parameters; dates are instants (epoch milliseconds). */
type Dated<T> = { [K in keyof T]: K extends 'startDate' | 'endDate' ? (undefined extends T[K] ? Instant | undefined : Instant) : T[K] }

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
        Math.min(
          (previous[j] ?? 0) + 1,
          (current[j - 1] ?? 0) + 1,
          (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1),
        ),
      )
    }
    previous = current
  }
  return previous[b.length] ?? 0
}
