/** What is true of every request to a route: identity, rate, headers, allowed methods. */
import { createMiddleware } from 'hono/factory'
import { cors } from 'hono/cors'
import { secureHeaders } from 'hono/secure-headers'
import { requireScope } from '../auth/principal.ts'
import type { Verifier } from '../auth/verifier.ts'
import { ApiError } from '../domain/errors.ts'
import type { Limits } from '../limits/index.ts'
import type { Env } from './environment.ts'

/**
 * Verifies the bearer token and sets `principal`; the request's log line gets the tenant even where the scope is missing.
 * @returns makes the middleware for one scope; it throws ApiError 401 for a refused token, 403 for a missing scope and 503
 * where the keys cannot be fetched
 */
export const authenticateWith = (verifier: Verifier) => (scope: string) =>
  createMiddleware<Env>(async (c, next) => {
    const principal = await verifier.verify(c.req.header('Authorization'))
    c.get('observed').tenant = principal.tenant
    requireScope(principal, scope)
    c.set('principal', principal)
    await next()
  })

/** Counts the request against the tenant's rate and sets the RateLimit headers. Throws ApiError 429. After `authenticate`. */
export const countRequest = ({ rate }: Pick<Limits, 'rate'>) =>
  createMiddleware<Env>(async (c, next) => {
    for (const [name, value] of Object.entries(rate.count(c.get('principal').tenant))) c.header(name, value)
    await next()
  })

/** Answers 405 to whatever no other handler of the path has taken. */
export const onlyMethods =
  (...methods: readonly string[]) =>
  () => {
    const allow = methods.join(', ')
    throw new ApiError(405, 'method_not_allowed', `Method not allowed; allowed: ${allow}`, { headers: { Allow: allow } })
  }

/** For answers that are data; pages set a policy of their own. */
export const dataHeaders = secureHeaders({
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
})

/** Lets pages of these origins call the service. */
export const crossOrigin = (origins: readonly string[]) =>
  cors({
    origin: [...origins],
    allowHeaders: [
      'Authorization',
      'Content-Type',
      'Content-Encoding',
      'Idempotency-Key',
      'If-None-Match',
      'Mcp-Protocol-Version',
      'Mcp-Session-Id',
    ],
    exposeHeaders: [
      'Content-Disposition',
      'ETag',
      'Mcp-Session-Id',
      'RateLimit',
      'RateLimit-Policy',
      'Retry-After',
      'X-Request-Id',
    ],
    maxAge: 600,
  })
