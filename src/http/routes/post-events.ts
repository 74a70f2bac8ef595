/** POST /analytics/events: a batch of events, as a JSON array or NDJSON, plain or gzip. */
import { createHash, randomUUID } from 'node:crypto'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import type { Context, Handler } from 'hono'
import * as v from 'valibot'
import { readParameters } from '../../analytics/parameters.ts'
import type { Principal } from '../../auth/principal.ts'
import { ApiError, badRequest } from '../../domain/errors.ts'
import type { Event } from '../../domain/event.ts'
import { answerOf, count, text } from '../../domain/response-fields.ts'
import type { Writer } from '../../ingest/batch-writer.ts'
import { checkEvent } from '../../ingest/check-event.ts'
import type { Receipt as StoredReceipt, Rejection } from '../../ingest/deduplicate.ts'
import type { Answers } from '../../ingest/idempotency.ts'
import type { Budget } from '../../limits/byte-budget.ts'
import type { Env } from '../environment.ts'

export const MAX_EVENTS = 10_000
export const MAX_BYTES = 8 * 1_048_576

/** A body of an announced length up to this is read at once: a stream of the Fetch standard costs more than it brings. */
const SMALL_BYTES = 65_536

export const Receipt = v.strictObject({
  accepted: count('Events stored.'),
  duplicates: count('Events that were stored before, by their id.'),
  rejected: v.pipe(
    v.array(v.strictObject({ index: count('Position in the request, from 0.'), message: text('What is wrong.') })),
    v.description('Events that cannot be stored; the others are.'),
  ),
})
export const postEventsResponse = answerOf(Receipt)

const unzip = promisify(gunzip)

export interface Ingestion {
  readonly writer: Writer
  readonly answers: Answers
  readonly clock: () => number
  readonly futureToleranceMs: number
  /** Bytes of request bodies that may be in memory at once. */
  readonly memory: Budget
}

export const postEvents =
  (ingestion: Ingestion): Handler<Env> =>
  async (c) => {
    readParameters({}, new URL(c.req.url).search)
    return c.json({ success: true, data: await receive(c, c.get('principal'), ingestion) })
  }

async function receive(c: Context<Env>, principal: Principal, ingestion: Ingestion): Promise<StoredReceipt> {
  const key = idempotencyKey(c.req.header('Idempotency-Key'))
  const format = formatOf(c.req.header('Content-Type'))
  const encoding = c.req.header('Content-Encoding')?.trim().toLowerCase() ?? 'identity'
  if (encoding !== 'identity' && encoding !== 'gzip') {
    throw new ApiError(415, 'unsupported_media_type', 'Content-Encoding may be gzip or identity.', {
      headers: { 'Accept-Encoding': 'gzip, identity' },
    })
  }
  const announced = Number(c.req.header('Content-Length') ?? MAX_BYTES) || 0
  if (announced > MAX_BYTES) throw tooLarge()
  // A body is held at most three times: as bytes, as text, as events. Of a compressed one the size is known when it has
  // been decompressed, at most four at a time.
  let reserved = 3 * announced
  ingestion.memory.take(reserved)
  try {
    const body = await readBody(c, encoding, announced)
    const more = Math.max(0, 3 * body.length - reserved)
    ingestion.memory.take(more)
    reserved += more
    if (key === undefined) return await store(body, format, principal, ingestion)
    return await ingestion.answers.once(principal.tenant, key, sha256(body), (answer) =>
      store(body, format, principal, ingestion, answer),
    )
  } finally {
    ingestion.memory.give(reserved)
  }
}

async function store(
  body: Buffer,
  format: Format,
  { tenant, assistants }: Principal,
  { writer, clock, futureToleranceMs }: Ingestion,
  answer?: { key: string; body: string },
): Promise<StoredReceipt> {
  const latest = clock() + futureToleranceMs
  const events: Array<{ index: number; event: Event }> = []
  const rejected: Rejection[] = []
  let index = 0
  // A repeated request must not count events without ids twice, even if its answer was lost: their ids follow its key,
  // and its body, since a key may be used for another one when its answer is long forgotten.
  const madeUpId = answer ? () => sha256(`${answer.key}\0${answer.body}\0${index}`).slice(0, 32) : randomUUID
  for (const value of values(body, format)) {
    if (index >= MAX_EVENTS) {
      throw new ApiError(413, 'too_many_events', `A request may hold ${MAX_EVENTS} events.`)
    }
    const event = value instanceof Error ? value.message : checkEvent(value, latest, madeUpId)
    if (typeof event === 'string') rejected.push({ index, message: event })
    else if (assistants && !assistants.includes(event.assistant)) {
      rejected.push({ index, message: 'the token does not reach this assistant' })
    } else events.push({ index, event })
    index++
  }
  if (index === 0) throw badRequest([{ parameter: 'body', message: 'holds no event' }], 'The body cannot be used.')
  return writer.submit({ tenant, events, rejected, answer })
}

type Format = 'array' | 'lines'

function formatOf(contentType: string | undefined): Format {
  const type = contentType?.split(';')[0]?.trim().toLowerCase()
  switch (type) {
    case 'application/json':
      return 'array'
    case 'application/x-ndjson':
    case 'application/ndjson':
    case 'application/jsonl':
    case 'application/x-jsonlines':
      return 'lines'
    default:
      throw new ApiError(
        415,
        'unsupported_media_type',
        'Content-Type must be application/json (an array of events) or application/x-ndjson (an event a line).',
      )
  }
}

/** The JSON values of a body; a line that is no JSON is an Error in its place, a body that is none is a 400. */
function* values(body: Buffer, format: Format): Generator<unknown> {
  let content: string
  try {
    content = new TextDecoder('utf-8', { fatal: true }).decode(body)
  } catch {
    throw badRequest([{ parameter: 'body', message: 'is not UTF-8' }], 'The body cannot be used.')
  }
  if (format === 'array') {
    let parsed: unknown
    try {
      parsed = JSON.parse(content)
    } catch {
      throw badRequest(
        [{ parameter: 'body', message: 'is not JSON; for an event a line, Content-Type must be application/x-ndjson' }],
        'The body cannot be used.',
      )
    }
    if (Array.isArray(parsed)) yield* parsed as unknown[]
    else yield parsed
    return
  }
  for (let from = 0; from < content.length;) {
    const end = content.indexOf('\n', from)
    const line = content.slice(from, end === -1 ? content.length : end)
    from = end === -1 ? content.length : end + 1
    if (line.trim() === '') continue
    let value: unknown
    try {
      value = JSON.parse(line)
    } catch {
      value = new Error('is not JSON')
    }
    yield value
  }
}

async function readBody(c: Context, encoding: string, announced: number): Promise<Buffer> {
  let body: Buffer
  try {
    body = announced <= SMALL_BYTES ? Buffer.from(await c.req.raw.arrayBuffer()) : await readChunks(c)
  } catch (error) {
    // Whoever sent it has hung up, or sent garbage between its chunks: the caller's fault, whether it reads this or not.
    throw error instanceof ApiError
      ? error
      : badRequest([{ parameter: 'body', message: 'was cut off' }], 'The body cannot be used.')
  }
  if (encoding === 'identity') return body
  try {
    return await unzip(body, { maxOutputLength: MAX_BYTES })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge()
    throw badRequest([{ parameter: 'body', message: 'is not gzip' }], 'The body cannot be used.')
  }
}

async function readChunks(c: Context): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of c.req.raw.body ?? []) {
    size += chunk.byteLength
    if (size > MAX_BYTES) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const tooLarge = () => new ApiError(413, 'too_large', `A body may hold ${MAX_BYTES} bytes, after decompression too.`)

/** The Idempotency-Key header, after draft-ietf-httpapi-idempotency-key-header; quotes around it are optional. */
function idempotencyKey(header: string | undefined): string | undefined {
  if (header === undefined) return undefined
  const key = /^"(.*)"$/.exec(header)?.[1] ?? header
  if (!/^[\x21-\x7e]{1,255}$/.test(key)) {
    throw badRequest([{ parameter: 'Idempotency-Key', message: 'must be 1 to 255 visible ASCII characters' }])
  }
  return key
}

const sha256 = (data: Buffer | string) => createHash('sha256').update(data).digest('hex')
