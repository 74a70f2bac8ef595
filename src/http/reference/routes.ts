/** GET /openapi.json and /docs: what the service can be asked, for programs and for people. No token is needed. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Hono } from 'hono'
import { secureHeaders } from 'hono/secure-headers'
import { openApi } from './document.ts'
import { page } from './page.ts'

const file = (name: string) => readFileSync(new URL(name, import.meta.url), 'utf8')

/** Everything is made once, and is the same for everybody. */
export function reference() {
  const document = openApi()
  const files = {
    '/openapi.json': ['application/json', JSON.stringify(document)],
    '/docs': ['text/html; charset=utf-8', String(page(document))],
    '/docs/reference.css': ['text/css; charset=utf-8', file('reference.css')],
    '/docs/reference.js': ['text/javascript; charset=utf-8', file('reference.js')],
  } as const
  const app = new Hono()
  for (const [path, [type, body]] of Object.entries(files)) {
    const etag = `"${createHash('sha1').update(body).digest('base64url')}"`
    app.use(path, POLICY)
    app.get(path, (c) => {
      c.header('ETag', etag)
      c.header('Cache-Control', 'no-cache')
      if (c.req.header('If-None-Match') === etag) return c.body(null, 304)
      c.header('Content-Type', type)
      return c.body(body)
    })
  }
  return app
}

/** The page loads its own two files and nothing else, from nowhere else. */
const POLICY = secureHeaders({
  contentSecurityPolicy: {
    defaultSrc: ["'none'"],
    styleSrc: ["'self'"],
    scriptSrc: ["'self'"],
    baseUri: ["'none'"],
    formAction: ["'none'"],
    frameAncestors: ["'none'"],
  },
  strictTransportSecurity: false,
  xDownloadOptions: false,
  xPermittedCrossDomainPolicies: false,
  xXssProtection: false,
})
