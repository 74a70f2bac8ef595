/**
 * A client of the service for browsers and servers: a method for each endpoint, typed by the schemas that check requests
 * and answers. Those are types here and nothing at run time; what is left are a few lines around `fetch`.
 */
import type * as v from 'valibot'
import type { ENDPOINTS } from './analytics/endpoints/index.ts'
import type { FileFormat } from './analytics/export/formats.ts'
import type { ErrorCode } from './domain/errors.ts'
import type { NAMED } from './http/reference/named-schemas.ts'
import type { reconcileParameters } from './http/routes/operations.ts'
import type { sentEvent } from './ingest/event-schema.ts'

/** How a value is given: lists also as a single id, dates also as Date. */
type Given<Name, Value> = Name extends 'startDate' | 'endDate'
  ? string | Date
  : Value extends readonly (infer Item)[]
    ? Item | readonly Item[]
    : Value

/** The query parameters of an endpoint, from what checks them: those with a default, or without a need, are optional. */
type QueryOf<E extends v.ObjectEntries> = {
  [Name in keyof v.InferInput<v.ObjectSchema<E, undefined>>]: Given<
    Name,
    NonNullable<v.InferOutput<v.ObjectSchema<E, undefined>>[Name]>
  >
}

type Endpoints = typeof ENDPOINTS
/** The parameters of an endpoint's JSON answer. */
export type Query<Path extends keyof Endpoints> = Omit<QueryOf<Endpoints[Path]['parameters']>, 'format'>
/** What an endpoint's JSON answer holds, without the envelope. */
export type Data<Path extends keyof Endpoints> = v.InferOutput<Endpoints[Path]['response']>['data']

/** A schema that has a name in the reference. */
type Named<Name extends keyof typeof NAMED> = v.InferOutput<(typeof NAMED)[Name]>

export type Overview = Named<'Overview'>
export type MetricsEntry = Named<'MetricsEntry'>
export type Rolling = Named<'Rolling'>
export type Event = Named<'Event'>
export type Pagination = Named<'Pagination'>
export type AssistantActivity = Named<'AssistantActivity'>
export type TopUser = Named<'TopUser'>
export type Snapshot = Named<'Snapshot'>
export type Regressions = Named<'Regressions'>
export type Finding = Named<'Finding'>
export type Receipt = Named<'Receipt'>
export type Removal = Named<'Removal'>
export type Reconciliation = Named<'Reconciliation'>
export type Readiness = Named<'Readiness'>
export type SentEvent = v.InferInput<typeof sentEvent>
export type { ErrorCode } from './domain/errors.ts'
export type { FileFormat } from './analytics/export/formats.ts'

/** An answer that is not a 2xx, or none of this service. */
export class AnalyticsError extends Error {
  override name = 'AnalyticsError'
  readonly status: number
  /** The service's `error.code`; 'unknown' where something else has answered. */
  readonly code: ErrorCode | 'unknown'
  /** What is wrong with which parameter. */
  readonly details: ReadonlyArray<{ parameter: string; message: string }>
  /** Names the request in the service's log. */
  readonly requestId: string | undefined
  /** When another try makes sense; undefined where none does, or nothing is said of it. */
  readonly retryAfterSeconds: number | undefined

  constructor(response: Response, body: unknown) {
    const { error, requestId } = (isObject(body) ? body : {}) as Partial<Named<'Failure'>>
    const known = typeof error?.message === 'string'
    super(known ? error.message : `${response.status} without a reason: is it an AGNT Analytics service?`)
    this.status = response.status
    this.code = known ? error.code : 'unknown'
    this.details = (known && error.details) || []
    this.requestId = requestId ?? response.headers.get('X-Request-Id') ?? undefined
    this.retryAfterSeconds = secondsUntil(response.headers.get('Retry-After'))
  }
}

export interface AnalyticsClientOptions {
  /** Where the service is, such as https://analytics.example.com; a path in front of it is kept. */
  readonly url: string | URL
  /** Or what gives one, where tokens are renewed. */
  readonly token: string | (() => string | Promise<string>)
  readonly fetch?: (input: URL, init: RequestInit) => Response | Promise<Response>
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
}

/** What else goes into a request. */
type Sending = CallOptions & Omit<RequestInit, 'signal'>

export interface PostOptions extends CallOptions {
  /** Of a body that is text or bytes; application/json where not given. */
  readonly contentType?: 'application/json' | 'application/x-ndjson'
  readonly contentEncoding?: 'gzip'
  readonly idempotencyKey?: string
}

export type AnalyticsClient = ReturnType<typeof createAnalyticsClient>

/**
 * Every method throws AnalyticsError where the service refuses, and what `fetch` throws where it is out of reach or the
 * signal is aborted.
 */
export function createAnalyticsClient({ url, token, fetch: send = (input, init) => fetch(input, init) }: AnalyticsClientOptions) {
  const base = String(url).endsWith('/') ? String(url) : `${String(url)}/`

  async function call(method: string, path: string, query: object, { signal, ...init }: Sending = {}): Promise<Response> {
    signal?.throwIfAborted()
    const address = new URL(path.slice(1), base)
    for (const [name, value] of Object.entries(query)) {
      for (const one of Array.isArray(value) ? (value as unknown[]) : [value]) {
        if (one !== undefined) address.searchParams.append(name, one instanceof Date ? one.toISOString() : String(one))
      }
    }
    const headers = new Headers(init.headers)
    headers.set('Authorization', `Bearer ${typeof token === 'string' ? token : await token()}`)
    const response = await send(address, { ...init, method, headers, ...(signal ? { signal } : {}) })
    if (!response.ok) throw new AnalyticsError(response, await jsonOf(response))
    return response
  }

  /** The body of an answer in the usual envelope. */
  async function ask<Body>(method: string, path: string, query: object, sending?: Sending) {
    const response = await call(method, path, query, sending)
    const body = await jsonOf(response)
    if (!isObject(body) || body['success'] !== true || !isObject(body['data'])) throw new AnalyticsError(response, undefined)
    return body as Body
  }

  const get =
    <Path extends keyof Endpoints>(path: Path) =>
    async (query: Query<Path>, options?: CallOptions): Promise<Data<Path>> =>
      (await ask<{ data: Data<Path> }>('GET', path, query, options)).data

  /** Where every parameter may be left out, so may the query. */
  const getAnything =
    <Path extends '/analytics/overview' | '/analytics/rolling' | '/analytics/regressions'>(path: Path) =>
    (query: Query<Path> = {} as Query<Path>, options?: CallOptions) =>
      get(path)(query, options)

  const file =
    <Path extends '/analytics/events' | '/analytics/snapshots'>(path: Path) =>
    /** The response as it is: `body` is a stream of any length, the header Content-Disposition has a name for it. */
    (query: Query<Path> & { format: FileFormat }, options?: CallOptions): Promise<Response> =>
      call('GET', path, query, options)

  const page = (query: Query<'/analytics/events'>, options?: CallOptions) =>
    ask<{ data: Event[]; pagination: Pagination }>('GET', '/analytics/events', query, options)

  return {
    overview: getAnything('/analytics/overview'),
    metrics: get('/analytics/metrics'),
    rolling: getAnything('/analytics/rolling'),
    assistants: get('/analytics/assistants'),
    usersTop: get('/analytics/users/top'),
    snapshots: get('/analytics/snapshots'),
    regressions: getAnything('/analytics/regressions'),
    snapshotsFile: file('/analytics/snapshots'),
    eventsFile: file('/analytics/events'),

    /** One page of the log. */
    async events(query: Query<'/analytics/events'>, options?: CallOptions) {
      const { data, pagination } = await page(query, options)
      return { data, pagination }
    },

    /** The log from its newest event on, page after page; `limit` is the size of a page. */
    async *allEvents(query: Query<'/analytics/events'>, options?: CallOptions): AsyncGenerator<Event, void, undefined> {
      let next = query
      for (;;) {
        const { data, pagination } = await page(next, options)
        yield* data
        if (pagination.nextCursor === null) return
        const { skip: _skipped, ...rest } = query
        next = { ...rest, cursor: pagination.nextCursor }
      }
    },

    /** Stores events: a list of them, or a body that is made already. */
    async postEvents(
      events: readonly SentEvent[] | string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>,
      { contentType = 'application/json', contentEncoding, idempotencyKey, signal }: PostOptions = {},
    ): Promise<Receipt> {
      const headers = {
        'Content-Type': contentType,
        ...(contentEncoding ? { 'Content-Encoding': contentEncoding } : {}),
        ...(idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey }),
      }
      const body = Array.isArray(events) ? JSON.stringify(events) : (events as NonNullable<RequestInit['body']>)
      const duplex = body instanceof ReadableStream ? { duplex: 'half' as const } : {}
      return (await ask<{ data: Receipt }>('POST', '/analytics/events', {}, { headers, body, signal, ...duplex })).data
    },

    /** Takes a person out of everything that is stored; every sum stays. Wants the scope analytics:admin. */
    async removeUser(user: string, options?: CallOptions): Promise<Removal> {
      return (await ask<{ data: Removal }>('DELETE', `/analytics/users/${encodeURIComponent(user)}`, {}, options)).data
    },

    /** Compares rollups with the log, over all companies; wants the scope analytics:operate. */
    async reconcile(query: QueryOf<typeof reconcileParameters> = {}, options?: CallOptions): Promise<Reconciliation> {
      return (await ask<{ data: Reconciliation }>('POST', '/operations/reconcile', query, options)).data
    },

    /** Whether the service can answer, and if not, why. */
    async ready({ signal }: CallOptions = {}): Promise<Readiness> {
      const response = await send(new URL('health/ready', base), signal ? { signal } : {})
      const body = await jsonOf(response)
      if (!isObject(body) || typeof body['clickhouse'] !== 'string') throw new AnalyticsError(response, body)
      return body as Readiness
    },
  }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

/** Undefined where it is no JSON: whatever sent it was not this service. */
async function jsonOf(response: Response): Promise<unknown> {
  const text = await response.text()
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

/** The header holds seconds or a date. */
function secondsUntil(header: string | null): number | undefined {
  if (header === null) return undefined
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds)
}
