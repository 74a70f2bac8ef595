/**
 * One request from its beginning to its end: its id, and what is told of it to the log, the metrics and the traces. The log
 * gets one line a request: at `debug` any, at `info` a slow one, at `error` one that failed, and at `warn` one that the store could
 * not answer, of those with one cause once in a while. No line holds a
 * token, a body, a query string or an address as it was asked for, since any of these may name a person.
 */
import { randomUUID } from 'node:crypto'
import type { Context, MiddlewareHandler } from 'hono'
import { matchedRoutes } from 'hono/route'
import type { FinishedQuery } from '../clickhouse/query-log.ts'
import { seldom, type Level, type Log } from '../log.ts'
import type { Metrics } from './metrics.ts'
import type { Observed, Sent } from './request-context.ts'
import type { RequestSpan, Tracing } from './tracing.ts'

export interface RequestObserver {
  readonly log: Log
  readonly metrics: Metrics
  readonly tracing?: Tracing | undefined
  /** A request that takes this long is told of. */
  readonly slowMs: number
}

/** Any other method is one label: RFC 9110 lets callers make up their own. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'DELETE', 'OPTIONS', 'PUT', 'PATCH'])
/** As nginx says it: the caller has left before there was an answer. */
const CALLER_LEFT = 499
/** Asked every few seconds for ever: no traces. */
const UNTRACED = /^\/(health\/|metrics$)/

export function observeRequests(parts: RequestObserver): MiddlewareHandler {
  const { metrics, tracing } = parts
  // While the disk is full, or ClickHouse away, every request fails for the same reason.
  const refused = seldom(parts.log)
  return async (c, next) => {
    const started = performance.now()
    const observed: Observed = { id: acceptableId(c.req.header('X-Request-Id')) ?? randomUUID(), queries: [] }
    c.set('requestId', observed.id)
    c.set('observed', observed)
    const method = METHODS.has(c.req.method) ? c.req.method : 'other'
    const span = tracing && !UNTRACED.test(c.req.path) ? tracing.startRequest(method, c.req.raw.headers) : undefined
    await (span ? span.run(next) : next())
    c.res.headers.set('X-Request-Id', observed.id)
    // The signal is made when it is first asked for, which takes longer than all of this.
    const status = c.res.status >= 500 && c.req.raw.signal.aborted ? CALLER_LEFT : c.res.status
    const answered = { observed, span, method, route: routeOf(c), status, started, ms: performance.now() - started }
    metrics.request(answered.route, method, status, answered.ms)
    if (observed.sending) void observed.sending.then((sent) => tell(parts, refused, answered, sent))
    else tell(parts, refused, answered)
  }
}

interface Answered {
  readonly observed: Observed
  readonly span: RequestSpan | undefined
  readonly method: string
  readonly route: string
  readonly status: number
  readonly started: number
  /** Until the answer was ready to be sent. */
  readonly ms: number
}

/** Called once for each request, when the last of its answer is out of hand. */
function tell({ log, metrics, slowMs }: RequestObserver, refused: Log, answered: Answered, sent?: Sent): void {
  const { observed, span, method, route, status, started, ms } = answered
  const { failure, queries } = observed
  span?.end({ route, status, requestId: observed.id, ...(sent ? { sent } : {}) })
  if (sent) metrics.exported(sent.outcome, sent.bytes, performance.now() - started)
  const level = failure?.level ?? (ms >= slowMs ? 'info' : 'debug')
  const write = failure?.level === 'warn' ? refused : log
  write(level, messageOf(level, observed, sent), {
    requestId: observed.id,
    ...(span ? { traceId: span.traceId } : undefined),
    ...(observed.tenant === undefined ? undefined : { tenant: observed.tenant }),
    method,
    route,
    status,
    ms: round(ms),
    ...(sent ? { export: sent.outcome, bytes: sent.bytes, sentMs: round(performance.now() - started) } : undefined),
    ...(queries.length > 0 ? { queries: queries.map(queryLine) } : undefined),
    ...(failure ? { cause: String(failure.cause), stack: failure.stack } : undefined),
  })
}

/**
 * The pattern of whatever answered, which is no middleware's: the address itself where it is one, as `/analytics/users/top`
 * is beside `/analytics/users/:user`. One name for all addresses at which there is nothing.
 */
function routeOf(c: Context): string {
  const patterns = matchedRoutes(c).filter(({ path }) => path !== '/*')
  return (patterns.find(({ path }) => path === c.req.path) ?? patterns.at(-1))?.path ?? 'none'
}

function messageOf(level: Level, { failure }: Observed, sent: Sent | undefined): string {
  if (sent?.outcome === 'failed') return 'an answer broke off'
  if (failure) return 'request failed'
  return level === 'info' ? 'slow request' : 'request'
}

const queryLine = ({ name, ms, rows, outcome }: FinishedQuery) => ({
  name,
  ms: round(ms),
  rows,
  ...(outcome === 'ok' ? {} : { outcome }),
})

const round = (ms: number) => Math.round(ms * 10) / 10

const acceptableId = (id: string | undefined) => (id && /^[\w.:-]{1,64}$/.test(id) ? id : undefined)
