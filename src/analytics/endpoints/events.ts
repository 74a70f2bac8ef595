/** GET /analytics/events: the raw log, newest first, by page or by cursor. */
import * as v from 'valibot'
import { badRequest } from '../../domain/errors.ts'
import { EVENT_TYPES } from '../../domain/event.ts'
import { count, instant, orNull, text, usd, whatIs } from '../../domain/response-fields.ts'
import { jsonObject } from '../../domain/schemas.ts'
import { toIso } from '../../time/iso8601.ts'
import { endpoint } from '../endpoint.ts'
import { fileHeaders, format, formatOf, type FileFormat } from '../export/formats.ts'
import { toMetrics } from '../figures.ts'
import { common, eventType, openLimit, range, skip, text as textParameter } from '../parameters.ts'
import { eventPage } from '../queries/event-page.ts'
import type { Position } from '../queries/event-selection.ts'
import { eventsFile } from '../queries/events-file.ts'
import { totalsOf } from '../totals.ts'

/** Events of a page where no limit is given. */
const PAGE_SIZE = 50

export const Event = v.strictObject({
  id: text('As it was sent, or made up.'),
  eventType: whatIs(EVENT_TYPES, 'What happened.'),
  timestamp: instant('When it happened.'),
  assistant: text('Which assistant.'),
  user: orNull(v.pipe(v.string(), v.minLength(1)), 'Which user; null where it was removed.'),
  cost: usd('USD; 0 where none was sent.'),
  inputTokens: count('0 where none were sent.'),
  outputTokens: count('0 where none were sent.'),
  model: orNull(v.string(), 'The model that was called.'),
  traceId: orNull(v.string(), 'Its trace in AGNT Traces.'),
  metadata: orNull(jsonObject, 'Whatever was sent with it.'),
})

export const Pagination = v.strictObject({
  limit: count('Events a page.'),
  skip: count('Events passed over.'),
  total: count('Events of the range, after the filters.'),
  nextCursor: orNull(v.string(), '`cursor` of the next page; null on the last.'),
})

export const events = endpoint({
  path: '/analytics/events',
  operationId: 'events',
  summary: 'Event log',
  description: 'The raw events of the range, newest first, as pages to be followed by `cursor`.',
  agentHint: 'Use it to see what is behind a figure. Events carry a traceId where the sender gave one.',
  parameters: {
    ...range,
    eventType,
    format,
    limit: openLimit(
      `Events of the answer. Where it is not given, ${PAGE_SIZE} in \`json\` and all in the other formats.`,
      PAGE_SIZE,
    ),
    skip,
    cursor: textParameter(
      (value) => readCursor(value) !== null,
      'must be a nextCursor of this endpoint',
      'Goes on after a page: its `pagination.nextCursor`.',
      writeCursor({ at: 1298550180000, id: '4c2f0cbb5d83b8e0' }),
    ),
    ...common,
  },
  response: v.strictObject({ success: v.literal(true), data: v.array(Event), pagination: Pagination }),

  async handle({ store, scope, parameters }) {
    const { startDate: from, endDate: to, limit: size = PAGE_SIZE, skip: skipped } = parameters
    const cursor = cursorOf(parameters)
    const [[totals], rows] = await Promise.all([
      totalsOf(store, scope, 'events_total', [{ from, to }], 'counts'),
      store.read(scope, eventPage(scope, { from, to, type: parameters.eventType, size, skipped, cursor })),
    ])
    const metrics = toMetrics(totals)
    const listed = rows.slice(0, size)
    const last = listed.at(-1)
    return {
      covers: { from, to },
      data: listed.map(({ at, metadata, ...row }) => ({
        id: row.id,
        eventType: row.eventType,
        timestamp: toIso(at),
        assistant: row.assistant,
        user: row.user || null,
        cost: row.cost,
        inputTokens: row.inputTokens,
        outputTokens: row.outputTokens,
        model: row.model || null,
        traceId: row.traceId || null,
        metadata: metadata === '' ? null : (JSON.parse(metadata) as unknown),
      })),
      pagination: {
        limit: size,
        skip: skipped,
        total: parameters.eventType ? metrics[parameters.eventType] : metrics.total,
        nextCursor: rows.length > size && last ? writeCursor(last) : null,
      },
    }
  },

  export: {
    description:
      'Or as one file in NDJSON, CSV or Parquet that holds all of them. NDJSON can be sent back to this address as it is, but for events of users who were removed. CSV is RFC 4180 and every text in it is exact, so one may begin with `=`, `+`, `-` or `@`: a spreadsheet should import it as text.',
    row: Event,
    wanted: (asked) => formatOf(asked) !== 'json',

    async open({ store, scope, parameters, accept }) {
      const { startDate: from, endDate: to, eventType: type, limit: size, skip: skipped } = parameters
      const asked = formatOf({ parameters, accept }) as FileFormat
      return {
        headers: fileHeaders(asked, 'events', from, to),
        chunks: await store.stream(
          scope,
          eventsFile(scope, asked, { from, to, type, size, skipped, cursor: cursorOf(parameters) }),
        ),
      }
    },
  },
})

/** @throws ApiError 400 where the page is named twice */
function cursorOf({ cursor: given, skip: skipped }: { cursor?: string | undefined; skip: number }): Position | null {
  const cursor = given === undefined ? null : readCursor(given)
  if (cursor && skipped > 0) throw badRequest([{ parameter: 'skip', message: 'cannot be combined with cursor' }])
  return cursor
}

function writeCursor({ at, id }: Position): string {
  return Buffer.from(JSON.stringify([at, id])).toString('base64url')
}

function readCursor(cursor: string): Position | null {
  try {
    const [at, id, ...more] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[]
    const valid = Number.isSafeInteger(at) && (at as number) >= 0 && (at as number) < 2 ** 42
    return valid && typeof id === 'string' && more.length === 0 ? { at: at as number, id } : null
  } catch {
    return null
  }
}
