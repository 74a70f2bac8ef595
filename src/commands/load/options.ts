/** The arguments of `npm run load`, and whom it sends as. */
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { decodeJwt } from 'jose'
import { loadLocalKey, signLocalToken } from '../../auth/local-key.ts'
import type { Config } from '../../config.ts'
import { UsageError } from './errors.ts'

export const USAGE = `usage: npm run load -- FILE... [options]

  FILE                 events, a JSON object a line, plain or gzip; - is standard input
  --org NAME           the company whose events they are; default demo. A token that is given must be of this company
  --url URL            the service; default http://HOST:PORT of the settings, http://127.0.0.1:8787
  --token TOKEN        with the scope analytics:write; default $TOKEN, else made with the key of the service under DATA_DIR
  --batch N            events a request, 1 to 10000; default 5000
  --connections N      requests under way at once, 1 to 64; default 2
  --rejects FILE       writes refused lines there, as {"file","line","message","text"}, one a line
  --patience SECONDS   gives up after so long without progress; default 300
  --restart            forgets where a stopped load was
  --help               prints this

A load that was stopped goes on where it was when the same file is loaded again into the same company of the same service.
An event without an id gets one made from the file's name (without .gz), the line's number and the line, so that loading
it again, with other batches too, does not count it twice.
`

export function readOptions() {
  let parsed
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        org: { type: 'string' },
        url: { type: 'string' },
        token: { type: 'string' },
        batch: { type: 'string', default: '5000' },
        connections: { type: 'string', default: '2' },
        rejects: { type: 'string' },
        patience: { type: 'string', default: '300' },
        restart: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
  const { values, positionals } = parsed
  if (values.help) return undefined
  if (positionals.length === 0) throw new UsageError('a FILE is needed')
  if (values.org === '') throw new UsageError('--org must be a name')
  if (values.url !== undefined && !/^https?:\/\/./.test(values.url)) throw new UsageError('--url must be http(s)://host:port')
  // npm runs commands in the project's directory; a path is meant from where it was typed.
  const typedIn = (process.env['npm_lifecycle_event'] === 'load' && process.env['INIT_CWD']) || process.cwd()
  return {
    ...values,
    files: [...new Set(positionals)].map((file) => (file === '-' ? file : resolve(typedIn, file))),
    rejects: values.rejects === undefined ? undefined : resolve(typedIn, values.rejects),
    batch: whole('--batch', values.batch, 10_000),
    connections: whole('--connections', values.connections, 64),
    patienceMs: whole('--patience', values.patience, 86_400) * 1000,
  }
}

export type Options = Exclude<ReturnType<typeof readOptions>, undefined>

function whole(option: string, text: string, max: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > max) throw new UsageError(`${option} must be an integer from 1 to ${max}`)
  return value
}

export function serviceUrl(given: string | undefined, { HOST, PORT }: Config): URL {
  const host = ['0.0.0.0', '::'].includes(HOST) ? '127.0.0.1' : HOST
  const url = given ?? `http://${host.includes(':') ? `[${host}]` : host}:${PORT}`
  return new URL(url.endsWith('/') ? url : `${url}/`)
}

export const isLoopback = ({ hostname }: URL) => /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname)

/** The token to send, and the company it is for. */
export async function credentials({ token, org }: Options, url: URL, config: Config) {
  // Not a setting of the service, so not in config.ts: it is what the README tells callers to export.
  const given = token ?? (process.env['TOKEN'] || undefined)
  if (given !== undefined) {
    const tenant = claimOf(given, config.JWT_ORG_CLAIM)
    // Events in another company's books are worse than no events: --org must not be silently overruled.
    if (org !== undefined && tenant !== org) throw new UsageError(`the token is for ${tenant}, not for ${org}`)
    return { token: given, org: tenant, made: false }
  }
  if (!isLoopback(url)) throw new UsageError(`${url.origin} needs a token: give --token or set TOKEN`)
  if (!config.localKey && config.JWT_SECRET === undefined) {
    throw new UsageError('with JWT_JWKS_URL or JWT_PUBLIC_KEY tokens come from the issuer: give --token or set TOKEN')
  }
  const key = config.JWT_SECRET === undefined ? await loadLocalKey(config.DATA_DIR) : new TextEncoder().encode(config.JWT_SECRET)
  const tenant = org ?? 'demo'
  return { token: await signLocalToken(key, { org: tenant, scope: 'analytics:write' }, config), org: tenant, made: true }
}

function claimOf(token: string, claim: string): string {
  try {
    return String(decodeJwt(token)[claim] ?? 'nobody')
  } catch {
    throw new UsageError('the token is no JWT')
  }
}
