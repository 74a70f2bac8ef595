/**
 * What a caller may send as an event, as a schema: for the reference and for types. `checkEvent` decides, and it is
 * faster; test/http/reference/openapi.test.ts holds the two together.
 */
import * as v from 'valibot'
import { EVENT_TYPES, MAX_COST, MAX_ID_LENGTH, MAX_METADATA_BYTES, MAX_TOKENS } from '../domain/event.ts'
import { jsonObject } from '../domain/schemas.ts'

const about = <Value>(description: string, ...examples: unknown[]) =>
  v.metadata<Value, { description: string; examples: unknown[] }>({ description, examples })

const id = (description: string, example: string) =>
  v.pipe(v.string(), v.minLength(1), v.maxLength(MAX_ID_LENGTH), v.regex(/^[^\0]*$/), about(description, example))

const count = (description: string, example: number) =>
  v.optional(v.nullable(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_TOKENS), about(description, example))))

export const sentEvent = v.strictObject({
  id: v.optional(
    v.nullable(
      id('Unique within the company; an event is counted once, however often it is sent. Made up where not given.', 'e-1'),
    ),
  ),
  eventType: v.pipe(v.picklist(EVENT_TYPES), about('What happened.', 'incomingMessages')),
  timestamp: v.pipe(
    v.string(),
    about(
      'When it happened: an ISO 8601 date-time, UTC where it has no offset. Digits finer than milliseconds are cut off. From 1970 to a few minutes ahead of the clock.',
      '2011-02-24T12:30:00Z',
    ),
  ),
  assistant: id('Which assistant.', 'support'),
  user: id('Which user.', 'u-17'),
  cost: v.optional(v.nullable(v.pipe(v.number(), v.minValue(0), v.maxValue(MAX_COST), about('USD, exact to 1e-9.', 0.0021)))),
  inputTokens: count('Tokens read by the model.', 812),
  outputTokens: count('Tokens written by the model.', 96),
  model: v.optional(v.nullable(id('The model that was called.', 'small-1'))),
  traceId: v.optional(v.nullable(id('Its trace in AGNT Traces.', 't-9'))),
  metadata: v.optional(
    v.nullable(v.pipe(jsonObject, about(`Anything else, at most ${MAX_METADATA_BYTES} bytes of JSON.`, { channel: 'mail' }))),
  ),
})
