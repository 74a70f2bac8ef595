/**
 * One event as a caller sends it, checked by hand: this runs for every event of every batch, where a schema library costs
 * several times as much as parsing the JSON.
 */
import {
  type Event,
  EVENT_TYPES,
  type EventType,
  MAX_COST,
  MAX_ID_LENGTH,
  MAX_METADATA_BYTES,
  MAX_TOKENS,
} from '../domain/event.ts'
import { type Instant, MIN_INSTANT } from '../time/instant.ts'
import { parseInstant, toIso } from '../time/iso8601.ts'

const FIELDS = new Set([
  'id',
  'eventType',
  'timestamp',
  'assistant',
  'user',
  'cost',
  'inputTokens',
  'outputTokens',
  'model',
  'traceId',
  'metadata',
])

const TYPES: ReadonlySet<unknown> = new Set(EVENT_TYPES)

/**
 * Checks one event.
 * @param value anything that JSON can hold
 * @param latest the last acceptable timestamp
 * @param madeUpId what the event is called where it has no id
 * @returns the event, or why it is refused
 */
export function checkEvent(value: unknown, latest: Instant, madeUpId: () => string): Event | string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'must be a JSON object'
  const given = value as Record<string, unknown>
  for (const field in given) if (!FIELDS.has(field)) return `${JSON.stringify(field.slice(0, 60))} is not a field of an event`

  const { eventType, assistant, user, cost, inputTokens, outputTokens, metadata } = given
  if (!TYPES.has(eventType)) return `eventType must be one of ${EVENT_TYPES.join(', ')}`
  if (!isId(assistant)) return `assistant ${ID_RULE}`
  if (!isId(user)) return `user ${ID_RULE}`
  for (const field of ['id', 'model', 'traceId'] as const) {
    if (given[field] !== undefined && given[field] !== null && !isId(given[field])) return `${field} ${ID_RULE}`
  }
  const timestamp = toInstant(given['timestamp'])
  if (typeof timestamp === 'string') return timestamp
  if (timestamp > latest) return `timestamp is in the future: the latest accepted now is ${toIso(latest)}`
  const costNanos = cost === undefined || cost === null ? 0 : toNanos(cost)
  if (costNanos === null) return `cost must be a number of USD from 0 to ${MAX_COST}`
  if (!isCount(inputTokens)) return `inputTokens ${COUNT_RULE}`
  if (!isCount(outputTokens)) return `outputTokens ${COUNT_RULE}`
  const metadataText = toMetadata(metadata)
  if (metadataText === null) return `metadata must be a JSON object of at most ${MAX_METADATA_BYTES} bytes`
  return {
    id: (given['id'] as string | null | undefined) ?? madeUpId(),
    eventType: eventType as EventType,
    timestamp,
    assistant,
    user,
    costNanos,
    inputTokens: inputTokens ?? 0,
    outputTokens: outputTokens ?? 0,
    model: (given['model'] as string | null | undefined) ?? '',
    traceId: (given['traceId'] as string | null | undefined) ?? '',
    metadata: metadataText,
  }
}

const ID_RULE = `must be a string of 1 to ${MAX_ID_LENGTH} characters without NUL`
const COUNT_RULE = `must be an integer from 0 to ${MAX_TOKENS}`

/** A lone surrogate has no UTF-8 form: two different ids would become one. */
const isId = (value: unknown): value is string =>
  typeof value === 'string' && value.length >= 1 && value.length <= MAX_ID_LENGTH && !value.includes('\0') && value.isWellFormed()

const isCount = (value: unknown): value is number | null | undefined =>
  value === undefined || value === null || (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_TOKENS)

const toNanos = (cost: unknown): number | null =>
  typeof cost === 'number' && cost >= 0 && cost <= MAX_COST ? Math.round(cost * 1e9) : null

function toMetadata(value: unknown): string | null {
  if (value === undefined || value === null) return ''
  if (typeof value !== 'object' || Array.isArray(value)) return null
  try {
    const text = JSON.stringify(value)
    return Buffer.byteLength(text) <= MAX_METADATA_BYTES && text.isWellFormed() ? text : null
  } catch {
    return null // nested deeper than the stack
  }
}

const CANONICAL = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z$/
const DAYS_IN_MONTH = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
/** Digits beyond milliseconds are cut off: clocks that tell microseconds are common, and a day's figures do not need them. */
const FINER_THAN_MS = /(\.\d{3})\d{1,6}(?=Z|[+-]\d\d(?::?\d\d)?$|$)/i

/** ISO 8601; without an offset it is UTC. The form that `toISOString` writes takes a short cut. */
function toInstant(value: unknown): Instant | string {
  if (typeof value !== 'string') return 'timestamp must be an ISO 8601 date-time'
  const match = CANONICAL.exec(value)
  if (match) {
    const [year, month, day, hour, minute, second, ms] = match.slice(1).map(Number) as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ]
    const leap = month !== 2 || day < 29 || (year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0))
    if (day >= 1 && day <= (DAYS_IN_MONTH[month - 1] ?? 0) && leap && hour < 24 && minute < 60 && second < 60) {
      const instant = Date.UTC(year, month - 1, day, hour, minute, second, ms)
      if (instant >= MIN_INSTANT) return instant
    }
  }
  const parsed = parseInstant(value.replace(FINER_THAN_MS, '$1'), 'UTC')
  return 'error' in parsed ? `timestamp ${parsed.error}` : parsed.instant
}
