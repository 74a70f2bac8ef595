/** The HTTP face: routes, and what is true of every request (identity, limits, headers, errors). */
import { randomUUID } from 'node:crypto'
import { Hono, type Context } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { secureHeaders } from 'hono/secure-headers'
import type * as v from 'valibot'
import { assistants } from './analytics/assistants.ts'
import type { Endpoint } from './analytics/endpoint.ts'
import { events } from './analytics/events.ts'
import { metrics } from './analytics/metrics.ts'
import { overview } from './analytics/overview.ts'
import { readParameters } from './analytics/parameters.ts'
import { rolling } from './analytics/rolling.ts'
import { snapshots } from './analytics/snapshots.ts'
import type { Scope } from './analytics/totals.ts'
import { usersTop } from './analytics/users-top.ts'
import type { Store } from './clickhouse/store.ts'
import type { AnswerCache, Kept } from './http/answer-cache.ts'
import { requireScope, type Principal, type Verifier } from './http/auth.ts'
import { ApiError, errorBody } from './http/errors.ts'
import type { TenantLimits } from './http/limits.ts'
import { postEvents, type Ingestion } from './ingest/post-events.ts'
import type { Seals } from './ingest/seals.ts'
import type { Log } from './log.ts'
import type { Names } from './names.ts'

export interface AppParts {
  readonly store: Store
  readonly names: Names
  readonly seals: Seals
  readonly verifier: Verifier
  readonly ingestion: Ingestion
  readonly cache: AnswerCache
  readonly limits: TenantLimits
  readonly operations: Hono
  readonly clock: () => number
  readonly log: Log
}

interface Env {
  Variables: { requestId: string }
}

/** The seven endpoints of the product page. */
const ENDPOINTS = {
  '/analytics/overview': overview,
  '/analytics/metrics': metrics,
  '/analytics/rolling': rolling,
  '/analytics/events': events,
  '/analytics/assistants': assistants,
  '/analytics/users/top': usersTop,
  '/analytics/snapshots': snapshots,
} as const

export function createApp(parts: AppParts) {
  const app = new Hono<Env>()

  app.use(async (c, next) => {
    const started = performance.now()
    const requestId = acceptableId(c.req.header('X-Request-Id')) ?? randomUUID()
    c.set('requestId', requestId)
    await next()
    c.res.headers.set('X-Request-Id', requestId)
    parts.log('debug', 'request', {
      requestId,
      method: c.req.method,
      path: c.req.path,
      status: c.res.status,
      ms: Math.round((performance.now() - started) * 10) / 10,
    })
  })
  app.use(
    secureHeaders({
      contentSecurityPolicy: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
      // The rest is about pages and old browsers; every answer here is data.
      crossOriginOpenerPolicy: false,
      originAgentCluster: false,
      strictTransportSecurity: false,
      xDnsPrefetchControl: false,
      xDownloadOptions: false,
      xFrameOptions: false,
      xPermittedCrossDomainPolicies: false,
      xXssProtection: false,
    }),
  )

  for (const [path, definition] of Object.entries(ENDPOINTS)) {
    app.get(path, (c) => answer(c, definition as unknown as Endpoint<v.ObjectEntries>, parts))
  }
  app.post('/analytics/events', async (c) => {
    const principal = await parts.verifier.verify(c.req.header('Authorization'))
    requireScope(principal, 'analytics:write')
    for (const [name, value] of Object.entries(parts.limits.count(principal.tenant))) c.header(name, value)
    const unknown = [...new URL(c.req.url).searchParams.keys()]
    if (unknown.length > 0) readParameters({}, new URL(c.req.url).searchParams)
    return c.json({ success: true, data: await postEvents(c, principal, parts.ingestion) })
  })
  app.route('/', parts.operations)
  for (const path of Object.keys(ENDPOINTS)) {
    app.all(path, () => {
      const allow = path === '/analytics/events' ? 'GET, HEAD, POST' : 'GET, HEAD'
      throw new ApiError(405, 'method_not_allowed', `This endpoint knows ${allow}.`, { headers: { Allow: allow } })
    })
  }
  app.notFound((c) => failure(c, new ApiError(404, 'not_found', 'There is nothing at this address.'), parts.log))
  app.onError((error, c) => failure(c, error, parts.log))
  return app
}

async function answer<E extends v.ObjectEntries>(
  c: Context<Env>,
  definition: Endpoint<E>,
  parts: AppParts,
): Promise<Response> {
  const principal = await parts.verifier.verify(c.req.header('Authorization'))
  requireScope(principal, 'analytics:read')
  for (const [name, value] of Object.entries(parts.limits.count(principal.tenant))) c.header(name, value)

  const now = parts.clock()
  const url = new URL(c.req.url)
  const accept = c.req.header('Accept')
  const key = JSON.stringify([principal.tenant, principal.assistants, url.pathname, url.search, accept])
  const kept = parts.cache.get(key, now)
  if (kept) return revalidated(c, kept)

  const given = readParameters(definition.parameters, url.searchParams)
  return parts.limits.run(principal.tenant, async () => {
    const { assistant, user } = given as { assistant?: string[]; user?: string[] }
    const scope = await scopeOf(c, principal, assistant, user, parts)
    const question = { store: parts.store, names: parts.names, scope, now, parameters: given, accept }
    const streamed = await definition.stream?.(question)
    if (streamed) return streamed
    const found = await parts.cache.find(key, scope.tenant, now, c.req.raw.signal, async (signal) => {
      const { covers, ...rest } = await definition.answer({ ...question, scope: { ...scope, signal } })
      return { covers, body: JSON.stringify({ success: true, ...rest }) }
    })
    return revalidated(c, found)
  })
}

/** 304 where the caller has the answer already, else the answer. Late events can change any range, so: `no-cache`. */
function revalidated(c: Context<Env>, { body, etag }: Kept): Response {
  c.header('ETag', etag)
  c.header('Cache-Control', 'private, no-cache')
  c.header('Vary', 'Authorization, Accept')
  const known = c.req.header('If-None-Match')
  if (known && (known === '*' || known.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag))) {
    return c.body(null, 304)
  }
  c.header('Content-Type', 'application/json')
  return c.body(body)
}

/** What the question is about: the filters it names, cut down to what the token may see. */
async function scopeOf(
  c: Context<Env>,
  principal: Principal,
  assistantIds: string[] | undefined,
  userIds: string[] | undefined,
  { names, seals, log }: AppParts,
): Promise<Scope> {
  const tenant = await names.tenant(principal.tenant)
  const visible = principal.assistants
    ? (assistantIds ?? principal.assistants).filter((id) => principal.assistants?.includes(id))
    : assistantIds
  const [assistantNumbers, userNumbers] = await Promise.all([
    visible && names.numbers(tenant, 'assistant', visible),
    userIds && names.numbers(tenant, 'user', userIds),
  ])
  return {
    tenant,
    assistants: filterOf(assistantNumbers),
    users: filterOf(userNumbers),
    sealedUntil: seals.sealedUntil,
    signal: c.req.raw.signal,
    onQuery: (name, ms) =>
      log('debug', 'query', { requestId: c.get('requestId'), tenant, name, ms: Math.round(ms * 10) / 10 }),
  }
}

/** No event carries this number, so a filter by it finds nothing. */
const NOBODY = 0xffff_ffff

/** Names nobody has written drop out; where nothing is left, the filter stays and matches nothing. */
function filterOf(numbers: number[] | undefined): number[] | null {
  if (!numbers) return null
  const known = numbers.filter((number) => number > 0)
  return known.length > 0 ? known : [NOBODY]
}

const acceptableId = (id: string | undefined) => (id && /^[\w.:-]{1,64}$/.test(id) ? id : undefined)

function failure(c: Context<Env>, thrown: unknown, log: Log) {
  const requestId = c.get('requestId') ?? randomUUID()
  const error = toApiError(thrown)
  if (error.status >= 500) {
    log(error.status === 503 ? 'warn' : 'error', 'request failed', {
      requestId,
      path: c.req.path,
      status: error.status,
      cause: String(error.cause ?? thrown),
      ...(error.status === 500 && thrown instanceof Error ? { stack: thrown.stack } : {}),
    })
  }
  return c.json(errorBody(error, requestId), error.status, error.headers)
}

function toApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown
  if (thrown instanceof HTTPException && thrown.status < 500) return new ApiError(400, 'bad_request', 'The request cannot be read.')
  return new ApiError(500, 'internal', 'Something went wrong on our side.', { cause: thrown })
}
