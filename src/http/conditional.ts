import type { Context } from 'hono'
import type { Kept } from '../analytics/result-cache.ts'

/** 304 where the caller has the answer already, else the answer. Late events can change any range, so: `no-cache`. */
export function conditional(c: Context, { body, etag }: Kept): Response {
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
