/** GET /metrics: figures for Prometheus. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Handler, MiddlewareHandler } from 'hono'
import { createMiddleware } from 'hono/factory'
import type { Registry } from 'prom-client'
import type { Env } from '../environment.ts'

export interface MetricsDeps {
  readonly registry: Registry
  /** Opens /metrics to the bearer; undefined where METRICS_TOKEN is not set. */
  readonly metricsToken: string | undefined
  /** Whether /metrics needs no token: of a service that is for this machine alone, unless there is a `metricsToken`. */
  readonly metricsOpen: boolean
}

/**
 * Lets scrapers with METRICS_TOKEN through, and everybody else by `authenticate`. Totals over all tenants are no tenant's
 * business, and even their growth tells something.
 */
export const allowScraper = ({ metricsToken, metricsOpen }: MetricsDeps, authenticate: MiddlewareHandler<Env>) =>
  createMiddleware<Env>((c, next) => {
    const open = metricsOpen && metricsToken === undefined
    if (open || isBearer(c.req.header('Authorization'), metricsToken)) return next()
    return authenticate(c, next) as Promise<void>
  })

export const metrics =
  ({ registry }: MetricsDeps): Handler<Env> =>
  async (c) => {
    c.header('Content-Type', registry.contentType)
    c.header('Cache-Control', 'no-store')
    return c.body(await registry.metrics())
  }

/** Digests are compared, which are equally long whatever was sent. */
function isBearer(authorization: string | undefined, token: string | undefined): boolean {
  const [, sent] = /^bearer +(\S+)$/i.exec(authorization ?? '') ?? []
  return token !== undefined && sent !== undefined && timingSafeEqual(digest(sent), digest(token))
}

const digest = (token: string) => createHash('sha256').update(token).digest()
