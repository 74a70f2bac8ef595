/**
 * GET /openapi.json: the service in OpenAPI 3.1, made from the schemas that check its requests and its answers. Written
 * here are only words, and which header or status goes where.
 */
import { readFileSync } from 'node:fs'
import { toJsonSchema, toJsonSchemaDefs, type ConversionConfig } from '@valibot/to-json-schema'
import * as v from 'valibot'
import type { Endpoint } from '../../analytics/endpoint.ts'
import { type EndpointPath, ENDPOINTS } from '../../analytics/endpoints/index.ts'
import { MEDIA_TYPES } from '../../analytics/export/formats.ts'
import { ERROR_CODES } from '../../domain/errors.ts'
import { MAX_ID_LENGTH } from '../../domain/event.ts'
import { sentEvent } from '../../ingest/event-schema.ts'
import { VERSION } from '../../version.ts'
import { deleteUserResponse } from '../routes/delete-user.ts'
import { Liveness, Readiness } from '../routes/health.ts'
import { backupParameters, backupResponse, reconcileParameters, reconcileResponse } from '../routes/operations.ts'
import { MAX_BYTES, MAX_EVENTS, postEventsResponse } from '../routes/post-events.ts'
import { NAMED } from './named-schemas.ts'

/** A JSON Schema of the 2020-12 kind, as far as the reference page looks into it. */
export interface Schema {
  $ref?: string
  type?: string | string[]
  const?: unknown
  enum?: unknown[]
  anyOf?: Schema[]
  properties?: Record<string, Schema>
  items?: Schema
  required?: string[]
  description?: string
  examples?: unknown[]
  default?: unknown
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  maxItems?: number
  format?: string
}

export interface Parameter {
  name: string
  in: 'query' | 'header' | 'path'
  required: boolean
  description: string
  schema: Schema
  example?: unknown
}

export interface Reference {
  $ref: string
}

export interface MediaType {
  schema?: Schema
  example?: unknown
}

export interface Answer {
  description: string
  headers?: Record<string, Reference>
  content?: Record<string, MediaType>
}

export interface Operation {
  operationId: string
  tags: string[]
  summary: string
  description: string
  security: Array<Record<string, string[]>>
  parameters: Parameter[]
  requestBody?: { required: true; description: string; content: Record<string, MediaType> }
  responses: Record<string, Answer | Reference>
  /** The query of the example; not part of OpenAPI, where an extension begins with x-. */
  'x-query'?: Record<string, string>
}

/**
 * A real question about the excerpt in test/data and its answer, for each endpoint; test/http/reference/openapi.test.ts asks them.
 * For regressions it puts one day of the excerpt on seven weeks, and breaks something on the last.
 */
const examples = JSON.parse(readFileSync(new URL('examples.json', import.meta.url), 'utf8')) as Record<
  EndpointPath,
  { query: Record<string, string>; answer: unknown }
>

// ---------------------------------------------------------------------------------------------------------------- words

const EVENTS = `${MAX_EVENTS.toLocaleString('en-US')} events`
const BYTES = `${MAX_BYTES / 1_048_576} MiB`

/** Why each status is answered, and with which headers beside X-Request-Id. */
const REFUSALS = {
  400: [
    'BadRequest',
    'Parameters or a body that cannot be used, each named in `details`; or a question that is too expensive.',
    [],
  ],
  401: ['Unauthorized', 'No token, or one that is refused.', ['WWW-Authenticate']],
  403: ['Forbidden', 'The token lacks the scope.', ['WWW-Authenticate']],
  404: ['NotFound', 'Nothing is at this address, or no user has this id.', []],
  405: ['MethodNotAllowed', 'The path allows other methods, listed in `Allow`.', ['Allow']],
  406: ['NotAcceptable', '`Accept` names no format that can be had.', ['RateLimit', 'RateLimit-Policy']],
  408: ['TooSlow', 'The request took too long to arrive.', []],
  409: [
    'InProgress',
    'A request with this Idempotency-Key is still under way; of a backup, there is one of this name.',
    ['Retry-After'],
  ],
  413: ['TooLarge', `More than ${BYTES}, after decompression too, or more than ${EVENTS}.`, []],
  415: ['UnsupportedMediaType', 'A Content-Type or Content-Encoding that is not known.', []],
  417: ['ExpectationFailed', 'Expect may say 100-continue.', []],
  422: ['KeyReused', 'This Idempotency-Key was used with another body.', []],
  429: ['TooManyRequests', 'The company asks too much at once.', ['RateLimit', 'RateLimit-Policy', 'Retry-After']],
  431: ['HeadersTooLarge', 'Headers are too large.', []],
  500: ['Internal', 'Something went wrong on the service’s side.', []],
  503: ['Unavailable', 'Too busy, or the store is out of reach: come back later.', ['Retry-After']],
} as const satisfies Record<(typeof ERROR_CODES)[keyof typeof ERROR_CODES], readonly [string, string, readonly Header[]]>

type Status = keyof typeof REFUSALS

const HEADERS = {
  ETag: 'Validator of this answer; send it back in If-None-Match. Files, and snapshots of more than 100 rows, have none.',
  'Content-Disposition': 'Name of the file; not where the answer is JSON.',
  Vary: 'What else the answer depends on.',
  'Cache-Control': 'Late events can change any range, so an answer is asked for again each time.',
  'X-Request-Id':
    'Names this request in the service’s log: the caller’s own, where it sent one of 1 to 64 letters, digits and _.:-',
  RateLimit: 'What is left of the company’s requests, as in draft-ietf-httpapi-ratelimit-headers: `"tenant";r=…;t=1`.',
  'RateLimit-Policy': 'Requests that a company has: `"tenant";q=…;w=1` is q a second.',
  'Retry-After': 'Seconds until another try makes sense.',
  'WWW-Authenticate': 'What is missing, after RFC 6750.',
  Allow: 'Methods that the path allows.',
} as const
type Header = keyof typeof HEADERS

// -------------------------------------------------------------------------------------------------------------- schemas

const CONVERSION = {
  target: 'draft-2020-12',
  // What a parameter is after it was read, which is also what is to be written; how it was read is code.
  typeMode: 'output',
  ignoreActions: ['check', 'transform'],
  overrideRef: ({ referenceId }) => `#/components/schemas/${referenceId}`,
} as const satisfies ConversionConfig

const DEFINITIONS = { ...NAMED, SentEvent: sentEvent }

function schemaOf(schema: v.GenericSchema): Schema {
  const { $schema: _, $defs: __, ...rest } = toJsonSchema(schema, { ...CONVERSION, definitions: DEFINITIONS })
  return rest as Schema
}

/** The parameters that a query string is checked against, as a caller has to write them. */
export function parametersOf(entries: v.ObjectEntries): Parameter[] {
  return Object.entries(entries).map(([name, entry]) => {
    const { description = '', examples: [example] = [], default: unread, ...schema } = schemaOf(entry as v.GenericSchema)
    return {
      name,
      in: 'query',
      required: (entry as v.GenericSchema).type !== 'optional',
      description,
      schema: unread === undefined ? schema : { ...schema, default: v.parse(entry as v.GenericSchema, undefined) },
      ...(example === undefined ? {} : { example }),
    }
  })
}

// ------------------------------------------------------------------------------------------------------------ operations

const TOKEN = (scope: string) => [{ token: [scope] }]

const headers = (...names: Header[]) =>
  Object.fromEntries([...names, 'X-Request-Id' as const].map((name) => [name, { $ref: `#/components/headers/${name}` }]))

const refusals = (...statuses: Status[]) =>
  Object.fromEntries(statuses.map((status) => [status, { $ref: `#/components/responses/${REFUSALS[status][0]}` }]))

const LIMITED = ['RateLimit', 'RateLimit-Policy'] as const

function getOperation(endpoint: Endpoint): Operation {
  const { path, operationId, summary, description, parameters } = endpoint
  const { query, answer: example } = examples[path as EndpointPath]
  const json = { schema: schemaOf(endpoint.response), example }
  const content: Record<string, MediaType> = { [MEDIA_TYPES.json[0]]: json }
  const file = endpoint.export
  if (file) {
    content[MEDIA_TYPES.ndjson[0]] = { schema: { ...schemaOf(file.row), description: 'One such object a line.' } }
    content[MEDIA_TYPES.csv[0]] = {
      schema: { type: 'string', description: 'A line of names, then one for each row, with CRLF.' },
    }
    content[MEDIA_TYPES.parquet[0]] = {}
  }
  return {
    operationId,
    summary,
    description: file ? `${description} ${file.description}` : description,
    tags: ['Analytics'],
    'x-query': query,
    security: TOKEN('analytics:read'),
    parameters: [
      ...parametersOf(parameters),
      {
        name: 'If-None-Match',
        in: 'header',
        required: false,
        description: 'The `ETag` of an earlier answer: while nothing has changed, the answer is a 304 without a body.',
        schema: { type: 'string' },
      },
    ],
    responses: {
      200: {
        description: file ? 'The answer, in the format asked for.' : 'The answer.',
        headers: headers('ETag', 'Cache-Control', 'Vary', ...LIMITED, ...(file ? ['Content-Disposition' as const] : [])),
        content,
      },
      304: {
        description: 'What the caller has is still right.',
        headers: headers('ETag', 'Cache-Control', 'Vary', ...LIMITED),
      },
      ...(file ? refusals(400, 401, 403, 406, 429, 500, 503) : refusals(400, 401, 403, 429, 500, 503)),
    },
  }
}

function postEventsOperation(): Operation {
  const event = { $ref: '#/components/schemas/SentEvent' }
  return {
    operationId: 'postEvents',
    tags: ['Ingestion'],
    summary: 'Store events',
    description: `A JSON array of events, or one a line; up to ${EVENTS} and ${BYTES}, plain or gzip. A good event is kept though its neighbour is bad. A 2xx means that the accepted events are stored and counted everywhere; sending any of them again is harmless.`,
    security: TOKEN('analytics:write'),
    parameters: [
      {
        name: 'Content-Encoding',
        in: 'header',
        required: false,
        description: 'How the body is compressed.',
        schema: { type: 'string', enum: ['gzip', 'identity'], default: 'identity' },
        example: 'gzip',
      },
      {
        name: 'Idempotency-Key',
        in: 'header',
        required: false,
        description:
          'A repeated request with the same key and body gets the first one’s answer, and events without an id are counted once. 1 to 255 visible ASCII characters.',
        schema: { type: 'string', minLength: 1, maxLength: 255 },
        example: 'batch-2011-02-24-1',
      },
    ],
    requestBody: {
      required: true,
      description: 'The events.',
      content: {
        'application/json': {
          schema: { anyOf: [{ type: 'array', items: event, maxItems: MAX_EVENTS }, event] },
          example: [EVENT_SENT],
        },
        'application/x-ndjson': {
          schema: { ...event, description: 'One such object a line.' },
          example: EVENT_SENT,
        },
      },
    },
    responses: {
      200: {
        description: 'What became of each event.',
        headers: headers(...LIMITED),
        content: { 'application/json': { schema: schemaOf(postEventsResponse), example: RECEIPT } },
      },
      ...refusals(400, 401, 403, 409, 413, 415, 422, 429, 500, 503),
    },
  }
}

function deleteUserOperation(): Operation {
  return {
    operationId: 'deleteUser',
    tags: ['Ingestion'],
    summary: 'Remove a user',
    description:
      'Takes the user’s id, and the trace and metadata of the user’s events, out of everything that is stored. The events stay as counts of nobody, so every sum stays what it was; in the log their `user` is null. Cannot be undone. Can take minutes where the log is large; asked again after a failure it goes on where it stopped. Ids of events stay, so that an event that is sent again does not count again: they should name nobody. Not for tokens that are narrowed to assistants.',
    security: TOKEN('analytics:admin'),
    parameters: [
      {
        name: 'user',
        in: 'path',
        required: true,
        description: 'Its id, percent-encoded.',
        schema: { type: 'string', minLength: 1, maxLength: MAX_ID_LENGTH },
        example: 'user_47c5944d63b3',
      },
    ],
    responses: {
      200: {
        description: 'The receipt.',
        headers: headers(...LIMITED),
        content: { 'application/json': { schema: schemaOf(deleteUserResponse), example: REMOVAL } },
      },
      ...refusals(400, 401, 403, 404, 429, 500, 503),
    },
  }
}

const REMOVAL = {
  success: true,
  data: {
    receiptId: '0b7e4c1a-98f5-4a7b-8f0e-6f0a5c1d2e3f',
    events: 3,
    firstEventAt: '2011-02-24T12:30:00.000Z',
    lastEventAt: '2011-02-24T18:02:11.000Z',
    removedAt: '2011-02-25T08:00:00.000Z',
  },
}

const EVENT_SENT = {
  id: 'e-1',
  eventType: 'incomingMessages',
  timestamp: '2011-02-24T12:30:00Z',
  assistant: 'support',
  user: 'u-17',
  inputTokens: 812,
  outputTokens: 96,
  model: 'small-1',
  metadata: { channel: 'mail' },
}
const RECEIPT = {
  success: true,
  data: { accepted: 1, duplicates: 0, rejected: [] },
}

const RECONCILED_SHOWN = {
  status: 'complete',
  days: 2,
  repaired: 0,
  drift: [],
  identitiesRepaired: 0,
  duplicateIds: [],
  sharedNumbers: [],
  splitNames: [],
}

const METRICS_SHOWN = `# HELP agnt_events_total Events received: accepted (stored), duplicate, rejected.
# TYPE agnt_events_total counter
agnt_events_total{outcome="accepted"} 881`

function otherOperations() {
  const ready = schemaOf(Readiness)
  const live: Operation = {
    operationId: 'live',
    tags: ['Operations'],
    summary: 'Is the process alive',
    description: 'Answers as long as the process does anything at all.',
    security: [],
    parameters: [],
    responses: {
      200: {
        description: 'It is.',
        headers: headers(),
        content: { 'application/json': { schema: schemaOf(Liveness), example: { status: 'ok' } } },
      },
    },
  }
  const readiness: Operation = {
    operationId: 'ready',
    tags: ['Operations'],
    summary: 'Can it answer',
    description:
      'Whether the store is in reach with the tables of this build, events can be stored and tokens verified, and what the last comparison of rollups with the log found.',
    security: [],
    parameters: [],
    responses: {
      200: {
        description: 'It can.',
        headers: headers(),
        content: {
          'application/json': {
            schema: ready,
            example: {
              status: 'ok',
              clickhouse: 'ok',
              schema: 'ok',
              ingestion: 'ok',
              keys: 'ok',
              idFilter: 'ok',
              queuedEvents: 0,
              rebuilding: [],
              drift: null,
            },
          },
        },
      },
      503: {
        description: 'It cannot; the body says what is wrong.',
        headers: headers(),
        content: { 'application/json': { schema: ready } },
      },
    },
  }
  const metrics: Operation = {
    operationId: 'prometheus',
    tags: ['Operations'],
    summary: 'Figures for Prometheus',
    description:
      'Totals over all companies in the text format of Prometheus, so it takes `METRICS_TOKEN` or a token with `analytics:operate`; none where the service signs its own tokens and is for this machine alone.',
    security: [...TOKEN('analytics:operate'), {}],
    parameters: [],
    responses: {
      200: {
        description: 'The figures.',
        headers: headers(),
        content: { 'text/plain': { schema: { type: 'string' }, example: METRICS_SHOWN } },
      },
      ...refusals(401, 403, 500, 503),
    },
  }
  const reconcile: Operation = {
    operationId: 'reconcile',
    tags: ['Operations'],
    summary: 'Compare rollups with the log',
    description:
      'Also looks for ids that are stored twice and for numbers of names that are mixed up. Over all companies, so it takes a scope that no company’s token should have. Where it takes longer than 50 seconds, ask again with the same parameters.',
    security: TOKEN('analytics:operate'),
    parameters: parametersOf(reconcileParameters),
    responses: {
      200: {
        description: 'What differed, and what was repaired.',
        headers: headers(),
        content: {
          'application/json': { schema: schemaOf(reconcileResponse), example: { success: true, data: RECONCILED_SHOWN } },
        },
      },
      ...refusals(400, 401, 403, 409, 500, 503),
    },
  }
  const backup: Operation = {
    operationId: 'backup',
    tags: ['Operations'],
    summary: 'Make a backup',
    description:
      'Of the whole database at one moment, while events go on being stored. Where it takes longer than 20 seconds, ask again by its name.',
    security: TOKEN('analytics:operate'),
    parameters: parametersOf(backupParameters),
    responses: {
      200: {
        description: 'What was made, or that it is under way.',
        headers: headers(),
        content: {
          'application/json': {
            schema: schemaOf(backupResponse),
            example: { success: true, data: { name: 'analytics-2011-02-25', status: 'complete', bytes: 21784096, files: 643 } },
          },
        },
      },
      ...refusals(400, 401, 403, 409, 500, 503),
    },
  }
  return {
    '/health/live': { get: live },
    '/health/ready': { get: readiness },
    '/metrics': { get: metrics },
    '/operations/reconcile': { post: reconcile },
    '/operations/backup': { post: backup },
  }
}

// -------------------------------------------------------------------------------------------------------------- document

export interface OpenApi {
  openapi: '3.1.0'
  info: { title: string; version: string; summary: string; description: string; license: { name: string; identifier: string } }
  servers: Array<{ url: string; description: string }>
  tags: Array<{ name: string; description: string }>
  paths: Record<string, { get?: Operation; post?: Operation; delete?: Operation }>
  components: {
    securitySchemes: Record<string, object>
    headers: Record<string, { description: string; schema: Schema }>
    responses: Record<string, Answer>
    schemas: Record<string, Schema>
  }
}

export function openApi(): OpenApi {
  const paths: OpenApi['paths'] = {}
  for (const endpoint of Object.values(ENDPOINTS)) paths[endpoint.path] = { get: getOperation(endpoint as unknown as Endpoint) }
  paths['/analytics/events'] = { ...paths['/analytics/events'], post: postEventsOperation() }
  paths['/analytics/users/{user}'] = { delete: deleteUserOperation() }
  return {
    openapi: '3.1.0',
    info: {
      title: 'AGNT Analytics',
      version: VERSION,
      summary: 'How a fleet of AI assistants is doing.',
      description: INTRODUCTION,
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/', description: 'This service.' }],
    tags: [
      { name: 'Analytics', description: 'Questions about the fleet, by time, assistant and user.' },
      { name: 'Ingestion', description: 'Where the events come in.' },
      { name: 'Operations', description: 'For those who run the service.' },
    ],
    paths: { ...paths, ...otherOperations() },
    components: {
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description:
            'A JWT of at most 8 KiB with `exp`, the company in `org`, and in `scope` one or more of `analytics:read`, `analytics:write`, to remove users `analytics:admin` and, to operate the service, `analytics:operate`. `assistants`, a list, narrows it to those.',
        },
      },
      headers: Object.fromEntries(
        Object.entries(HEADERS).map(([name, description]) => [name, { description, schema: { type: 'string' } }]),
      ),
      responses: Object.fromEntries(
        Object.entries(REFUSALS).map(([status, [name, description, more]]) => [name, refusal(Number(status), description, more)]),
      ),
      schemas: toJsonSchemaDefs(DEFINITIONS, CONVERSION) as Record<string, Schema>,
    },
  }
}

function refusal(status: number, description: string, more: readonly Header[]): Answer {
  const codes = Object.entries(ERROR_CODES).filter(([, of]) => of === status)
  const [code = ''] = codes[0] ?? []
  return {
    description: `${description} \`error.code\` is ${codes.map(([name]) => `\`${name}\``).join(' or ')}.`,
    headers: headers(...more),
    content: {
      'application/json': {
        schema: { $ref: '#/components/schemas/Failure' },
        example: {
          success: false,
          error: { code, message: EXAMPLES[code]?.message ?? description, details: EXAMPLES[code]?.details ?? [] },
          requestId: 'b7f1c6a2-4e0d-4f7b-9a55-0c3c1f1b6f0e',
        },
      },
    },
  }
}

const EXAMPLES: Record<string, { message: string; details: Array<{ parameter: string; message: string }> }> = {
  bad_request: {
    message: 'Some parameters cannot be used.',
    details: [{ parameter: 'limit', message: 'must be an integer from 1 to 1000' }],
  },
}

const INTRODUCTION = `Message volumes, task completion, active users, assistant performance and cost over any time window.

Ranges are half-open: \`startDate\` is in them, \`endDate\` is not. A date is midnight in \`timezone\`, and a date-time without an offset is read there too. Dates in answers are UTC. \`assistant\` and \`user\` filter every endpoint and may be repeated. The company is the token's, never a parameter.

\`POST /mcp\` is the same for agents: a server of the Model Context Protocol (Streamable HTTP, answers in JSON) whose tools are the GET endpoints below \`/analytics\`, by the same token with \`analytics:read\`.`
