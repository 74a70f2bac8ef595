/**
 * The dashboard at `/`: the files of `dashboard/`, bundled in memory when first asked for. Pages are static and the same
 * for everybody; what they show comes from the public API, with the token of whoever signs in.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { brotliCompress, gzip } from 'node:zlib'
import { Hono, type Context, type Next } from 'hono'

const SOURCES = fileURLToPath(new URL('../../../dashboard/', import.meta.url))

const HEADERS = {
  // uPlot sets styles of elements through their properties, which style-src does not concern.
  'Content-Security-Policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join('; '),
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}

/** The name of an asset holds the hash of its content, so what it names never changes. */
const FOR_EVER = 'public, max-age=31536000, immutable'

interface Asset {
  readonly type: string
  readonly etag: string
  readonly cacheControl: string
  /** By content coding; `identity` is the plain content. */
  readonly bodies: Record<Coding, Uint8Array<ArrayBuffer>>
}

/** Best first. */
const CODINGS = ['br', 'gzip', 'identity'] as const
type Coding = (typeof CODINGS)[number]

/** Routes to be mounted before any middleware that sets the headers of data. */
export function dashboard(): Hono {
  const routes = new Hono()
  let built: Promise<ReadonlyMap<string, Asset>> | undefined
  const assets = () => {
    built ??= build()
    // What failed is tried again: the cause may pass, such as too many open files.
    built.catch(() => (built = undefined))
    return built
  }
  const send = async (c: Context, next: Next, name: string) => {
    const asset = (await assets()).get(name)
    if (!asset) return next()
    const headers = { ...HEADERS, ETag: asset.etag, 'Cache-Control': asset.cacheControl, Vary: 'Accept-Encoding' }
    if (
      c.req
        .header('If-None-Match')
        ?.split(',')
        .some((tag) => tag.trim().replace(/^W\//, '') === asset.etag)
    ) {
      return c.body(null, 304, headers)
    }
    const coding = codingFor(c.req.header('Accept-Encoding'))
    return c.body(asset.bodies[coding], 200, {
      ...headers,
      'Content-Type': asset.type,
      ...(coding === 'identity' ? {} : { 'Content-Encoding': coding }),
    })
  }
  routes.get('/', (c, next) => send(c, next, ''))
  routes.get('/dashboard/:name{.+\\.(js|css|svg)}', (c, next) => send(c, next, c.req.param('name')))
  return routes
}

/** Bundles the sources: the page under '', the others under their names, which the page refers to. */
async function build(): Promise<ReadonlyMap<string, Asset>> {
  // Loaded when needed: the service starts without it.
  const { build: bundle, stop } = await import('esbuild')
  const result = await bundle({
    absWorkingDir: SOURCES,
    entryPoints: { app: 'main.tsx' },
    outdir: '.',
    write: false,
    bundle: true,
    minify: true,
    format: 'esm',
    target: ['es2022', 'chrome109', 'firefox115', 'safari16.4'],
    jsx: 'automatic',
    jsxImportSource: 'preact',
    // Which tsconfig.json applies depends on where the package is installed.
    tsconfigRaw: '{}',
    legalComments: 'none',
    logLevel: 'silent',
  })
  // esbuild keeps a process for the next build, and there is none.
  await stop()

  const assets = new Map<string, Asset>()
  let page = await readFile(`${SOURCES}index.html`, 'utf8')
  const add = async (kind: string, type: string, content: Uint8Array) => {
    const name = kind.replace('.', `-${digest(content)}.`)
    page = page.replaceAll(`{{${kind}}}`, `dashboard/${name}`)
    assets.set(name, await assetOf(type, content, FOR_EVER))
  }
  for (const { path, contents } of result.outputFiles) {
    if (path.endsWith('.js')) await add('app.js', 'text/javascript; charset=utf-8', contents)
    else await add('app.css', 'text/css; charset=utf-8', contents)
  }
  await add('icon.svg', 'image/svg+xml', await readFile(`${SOURCES}icon.svg`))
  assets.set('', await assetOf('text/html; charset=utf-8', Buffer.from(page), 'no-cache'))
  return assets
}

const digest = (content: Uint8Array) => createHash('sha256').update(content).digest('base64url').slice(0, 12)

async function assetOf(type: string, content: Uint8Array, cacheControl: string): Promise<Asset> {
  const [br, gzipped] = await Promise.all([promisify(brotliCompress)(content), promisify(gzip)(content, { level: 9 })])
  const bodies = { br, gzip: gzipped, identity: new Uint8Array(content) }
  return { type, etag: `"${digest(content)}"`, cacheControl, bodies: bodies as Asset['bodies'] }
}

/** The best coding that a request accepts; `*` and weights other than 0 are not told apart. */
function codingFor(header = ''): Coding {
  const accepted = new Set(
    header
      .split(',')
      .filter((part) => !/;\s*q=0(\.0*)?\s*$/.test(part))
      .map((part) => part.split(';')[0]?.trim().toLowerCase()),
  )
  return CODINGS.find((coding) => accepted.has(coding)) ?? 'identity'
}
