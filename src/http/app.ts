/** The HTTP face: routes, and what is true of every request (identity, limits, headers, errors). */
import { Hono, type Context } from 'hono'
import { cors } from 'hono/cors'
import { HTTPException } from 'hono/http-exception'
import { secureHeaders } from 'hono/secure-headers'
import type * as v from 'valibot'
import type { Endpoint } from '../analytics/endpoint.ts'
import { ENDPOINTS } from '../analytics/endpoints/index.ts'
import { readId, readParameters } from '../analytics/parameters.ts'
import type { AnswerCache, Kept } from '../analytics/result-cache.ts'
import type { UserRanks } from '../analytics/user-ranks.ts'
import { type Principal, requireAllAssistants, requireScope } from '../auth/principal.ts'
import type { Verifier } from '../auth/verifier.ts'
import { isStoreFailure } from '../clickhouse/errors.ts'
import type { FinishedQuery } from '../clickhouse/query-log.ts'
import type { Store } from '../clickhouse/store.ts'
import { ApiError, errorBody, unavailable } from '../domain/errors.ts'
import type { Names } from '../ids/dictionary.ts'
import type { Limits } from '../limits/index.ts'
import { tenantKey, type TenantKey } from '../domain/tenant.ts'
import type { Rebuilds } from '../maintenance/backfill.ts'
import type { Seals } from '../maintenance/compaction.ts'
import type { Removals } from '../maintenance/erasure.ts'
import type { Retention } from '../maintenance/retention.ts'
import type { RequestVariables, Sent } from '../observe/request-context.ts'
import { observeRequests, type RequestObserver } from '../observe/requests.ts'
import type { Scope } from '../rollups/scope.ts'
import { createMcp } from './mcp/index.ts'
import { reference } from './reference/routes.ts'
import { dashboard } from './routes/dashboard.ts'
import { postEvents, type Ingestion } from './routes/post-events.ts'

export interface AppParts {
  readonly store: Store
  readonly names: Names
  readonly ranks: UserRanks
  readonly seals: Seals
  readonly rebuilds: Rebuilds
  readonly removals: Removals
  readonly retention: Retention
  readonly verifier: Verifier
  readonly ingestion: Ingestion
  readonly cache: AnswerCache
  readonly limits: Limits
  readonly operations: Hono
  /** Origins whose pages may call the service; none by default. */
  readonly corsOrigins: readonly string[]
  readonly clock: () => number
  readonly observer: RequestObserver
}

interface Env {
  Variables: RequestVariables
  /** What @hono/node-server passes on; nothing where the app is called directly. */
  Bindings: { outgoing?: { destroy(): void } }
}

/** What the addresses of GET endpoints know besides; DELETE of users/top removes the user of that name. */
const ALSO: Readonly<Record<string, string>> = { '/analytics/events': 'POST', '/analytics/users/top': 'DELETE' }

export function createApp(parts: AppParts) {
  const app = new Hono<Env>()

  app.use(observeRequests(parts.observer))
  // Before the policy below, which lets no page load anything: pages have their own.
  app.route('/', dashboard())
  app.route('/', reference())
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
  if (parts.corsOrigins.length > 0) {
    app.use(
      cors({
        origin: [...parts.corsOrigins],
        allowHeaders: [
          'Authorization',
          'Content-Type',
          'Content-Encoding',
          'Idempotency-Key',
          'If-None-Match',
          'Mcp-Protocol-Version',
          'Mcp-Session-Id',
        ],
        exposeHeaders: ['Content-Disposition', 'ETag', 'Mcp-Session-Id', 'RateLimit', 'RateLimit-Policy', 'Retry-After', 'X-Request-Id'],
        maxAge: 600,
      }),
    )
  }

  for (const [path, definition] of Object.entries(ENDPOINTS)) {
    app.get(path, (c) => answer(c, definition as unknown as Endpoint<v.ObjectEntries>, parts))
  }
  app.post('/analytics/events', async (c) => {
    const principal = await parts.verifier.verify(c.req.header('Authorization'))
    c.get('observed').tenant = principal.tenant
    requireScope(principal, 'analytics:write')
    for (const [name, value] of Object.entries(parts.limits.rate.count(principal.tenant))) c.header(name, value)
    readParameters({}, new URL(c.req.url).search)
    return c.json({ success: true, data: await postEvents(c, principal, parts.ingestion) })
  })
  app.delete('/analytics/users/:user', async (c) => {
    const principal = await parts.verifier.verify(c.req.header('Authorization'))
    requireScope(principal, 'analytics:admin')
    for (const [name, value] of Object.entries(parts.limits.rate.count(principal.tenant))) c.header(name, value)
    requireAllAssistants(principal)
    const url = new URL(c.req.url)
    readParameters({}, url.search)
    const user = readId('user', url.pathname.slice('/analytics/users/'.length))
    const receipt = await parts.removals.remove(principal.tenant, user, (work) => parts.ingestion.writer.exclusive(work))
    if (!receipt) throw new ApiError(404, 'not_found', 'Nothing is stored of a user with this id.')
    return c.json({ success: true, data: receipt })
  })
  const { verifier, limits, corsOrigins: origins } = parts
  const request = (url: string, init: RequestInit) => app.request(url, init)
  app.all('/mcp', createMcp({ request, verifier, limits, origins }))
  app.route('/', parts.operations)
  for (const path of Object.keys(ENDPOINTS)) {
    app.all(path, () => {
      const allow = path in ALSO ? `GET, HEAD, ${ALSO[path]}` : 'GET, HEAD'
      throw new ApiError(405, 'method_not_allowed', `This endpoint knows ${allow}.`, { headers: { Allow: allow } })
    })
  }
  app.all('/analytics/users/:user', () => {
    throw new ApiError(405, 'method_not_allowed', 'This endpoint knows DELETE.', { headers: { Allow: 'DELETE' } })
  })
  app.notFound((c) => failure(c, new ApiError(404, 'not_found', 'There is nothing at this address.')))
  app.onError((error, c) => failure(c, error))
  return app
}

async function answer<E extends v.ObjectEntries>(
  c: Context<Env>,
  definition: Endpoint<E>,
  parts: AppParts,
): Promise<Response> {
  const principal = await parts.verifier.verify(c.req.header('Authorization'))
  const observed = c.get('observed')
  observed.tenant = principal.tenant
  requireScope(principal, 'analytics:read')
  for (const [name, value] of Object.entries(parts.limits.rate.count(principal.tenant))) c.header(name, value)

  const now = parts.clock()
  const url = new URL(c.req.url)
  const accept = c.req.header('Accept')
  const key = JSON.stringify([principal.tenant, principal.assistants, url.pathname, url.search, accept])
  const kept = parts.cache.get(key, now)
  if (kept) return revalidated(c, kept)

  const given = readParameters(definition.parameters, url.search)
  const { signal } = c.req.raw
  const { limits, names } = parts
  const tenant = tenantKey(principal.tenant)
  const questionFor = async (asker: AbortSignal) => {
    const scope = await scopeOf(c, { ...(given as Filters), tenant, principal, signal: asker }, parts)
    return { store: parts.store, names, ranks: parts.ranks, scope, now, parameters: given, accept }
  }
  if (definition.export?.wanted({ parameters: given, accept })) {
    const { open } = definition.export
    const close = limits.exports.open(principal.tenant)
    try {
      const { headers, chunks } = await limits.slots.run(principal.tenant, async () => open(await questionFor(signal)), signal)
      for (const [name, value] of Object.entries(headers)) c.header(name, value)
      c.header('Vary', 'Authorization, Accept')
      if (c.req.method !== 'HEAD') {
        return c.body(
          send(chunks, signal, (error) => breakOff(c, error), (sent) => {
            observed.sending = sent.finally(close)
          }),
        )
      }
      await chunks.return?.()
    } catch (error) {
      close()
      throw error
    }
    close()
    return c.body(null)
  }
  // Only what asks ClickHouse takes one of the tenant's places. It looks names up after the cache has noted the tenant's
  // last write: a name that is written in between must not be kept as unknown.
  const found = await parts.cache.find(key, tenant, now, signal, (asker) =>
    limits.slots.run(
      principal.tenant,
      async () => {
        const { covers, ...rest } = await definition.answer(await questionFor(asker))
        return { covers, body: JSON.stringify({ success: true, ...rest }) }
      },
      asker,
    ),
  )
  return revalidated(c, found)
}

interface Filters {
  readonly assistant?: readonly string[]
  readonly user?: readonly string[]
}

/**
 * A body that is made as fast as the caller takes it.
 * @param failed told of what goes wrong; returns whether that was the end of the connection
 * @param begun is given what will be known when it has ended
 */
function send(
  chunks: AsyncIterator<Uint8Array>,
  caller: AbortSignal,
  failed: (error: unknown) => boolean,
  begun: (sent: Promise<Sent>) => void,
): ReadableStream<Uint8Array> {
  let left = false
  let bytes = 0
  let done!: (outcome: Sent['outcome']) => void
  begun(new Promise((resolve) => (done = (outcome) => resolve({ outcome, bytes }))))
  return new ReadableStream({
    async pull(controller) {
      try {
        const next = await chunks.next()
        // It was being made when the caller went; the stream takes nothing more.
        if (left) return
        if (!next.done) {
          bytes += next.value.byteLength
          return controller.enqueue(next.value)
        }
        controller.close()
        done('ok')
      } catch (error) {
        const outcome = caller.aborted ? 'cancelled' : 'failed'
        if (!failed(error)) controller.error(error)
        done(outcome)
      }
    },
    async cancel() {
      left = true
      done('cancelled')
      await chunks.return?.()
    },
  })
}

/**
 * The status line is out already: all that is left to say is that this was not the end, by closing the connection.
 * @returns whether there was one; an error of the stream would then be printed as it is, past the log
 */
function breakOff(c: Context<Env>, error: unknown): boolean {
  const { outgoing } = (c.env as Env['Bindings'] | undefined) ?? {}
  if (!c.req.raw.signal.aborted) c.get('observed').failure = { level: 'error', cause: error }
  outgoing?.destroy()
  return outgoing !== undefined
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
  asked: Filters & { tenant: TenantKey; principal: Principal; signal: AbortSignal },
  { names, seals, rebuilds, retention }: AppParts,
): Promise<Scope> {
  const { tenant, signal, user, assistant } = asked
  const { queries } = c.get('observed')
  const onQuery = (query: FinishedQuery) => void queries.push(query)
  const reach = asked.principal.assistants
  const visible = reach ? (assistant ?? reach).filter((id) => reach.includes(id)) : assistant
  const [assistantNumbers, userNumbers] = await Promise.all([
    visible && names.numbers(tenant, 'assistant', visible, onQuery),
    user && names.numbers(tenant, 'user', user, onQuery),
  ])
  return {
    tenant,
    assistants: filterOf(assistantNumbers),
    users: filterOf(userNumbers),
    userCount: names.userCount(tenant),
    sealedUntil: seals.sealedUntil,
    pending: rebuilds.pending,
    horizon: retention.horizon,
    signal,
    onQuery,
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

function failure(c: Context<Env>, thrown: unknown) {
  const observed = c.get('observed')
  const error = toApiError(thrown)
  if (error.status >= 500) {
    // A caller that has hung up, or is turned away by a limit, is no failure, and under overload a line for each would
    // be one load more.
    const expected = c.req.raw.signal.aborted || (error.status === 503 && error.cause === undefined)
    observed.failure = {
      level: expected ? 'debug' : error.status === 503 ? 'warn' : 'error',
      cause: error.cause ?? thrown,
      ...(error.status === 500 && thrown instanceof Error && thrown.stack ? { stack: thrown.stack } : {}),
    }
  }
  return c.json(errorBody(error, observed.id), error.status, error.headers)
}

function toApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown
  if (thrown instanceof HTTPException && thrown.status < 500) return new ApiError(400, 'bad_request', 'The request cannot be read.')
  // Of upkeep: questions go through asApiError.
  if (isStoreFailure(thrown)) return unavailable('The analytics store is out of reach.', 1, thrown)
  return new ApiError(500, 'internal', 'Something went wrong on our side.', { cause: thrown })
}
