/**
 * The service's own key, for a service on one machine that nobody gave a key: it signs the tokens that it accepts.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { link, mkdir, readFile, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { ConfigError, type Config } from '../config.ts'

/** `iss` of the tokens that the service signs itself. */
export const LOCAL_ISSUER = 'agnt-analytics-local'

const KEY_BYTES = 32
const THIRTY_DAYS_SECONDS = 30 * 86_400

/** What a token shall allow. */
export interface Grant {
  /** The tenant: 1 to 256 characters, no control characters. */
  org: string
  /** Space separated, for example `analytics:read analytics:write`. */
  scope: string
  subject?: string
  /** Narrows the token to these, at least one. */
  assistants?: readonly string[]
  /** 30 days by default. */
  expiresInSeconds?: number
}

/**
 * Reads the key in `<dataDir>/local-token-key` (32 random bytes as base64url, mode 0600), made at the first call.
 * @returns 32 bytes
 * @throws ConfigError where the file holds something else
 */
export async function loadLocalKey(dataDir: string): Promise<Uint8Array> {
  const path = join(dataDir, 'local-token-key')
  let text = await readIfThere(path)
  if (text === undefined) {
    await mkdir(dataDir, { recursive: true })
    // Linked into place whole: an O_EXCL file of its own could be read by a second starter before it is filled, or
    // stay empty for good after a crash. link(2) fails like O_EXCL does, so that the first of two starters wins.
    const draft = `${path}.${randomUUID()}`
    await writeFile(draft, randomBytes(KEY_BYTES).toString('base64url'), { flag: 'wx', mode: 0o600, flush: true })
    try {
      await link(draft, path)
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error
    } finally {
      await unlink(draft)
    }
    text = await readFile(path, 'utf8')
  }
  const key = Buffer.from(text.trim(), 'base64url')
  if (key.length !== KEY_BYTES) throw new ConfigError(`${path} holds no key: delete it, and a new one will be made`)
  return new Uint8Array(key)
}

/**
 * Signs a token that a service with the same key and `config` accepts: HS256 unless JWT_ALGORITHMS says otherwise.
 * @param key the local key, or the bytes of JWT_SECRET
 */
export async function signLocalToken(key: Uint8Array, grant: Grant, config: Config): Promise<string> {
  const now = Math.floor(Date.now() / 1_000)
  const claims = {
    scope: grant.scope,
    ...(grant.subject === undefined ? {} : { sub: grant.subject }),
    ...(grant.assistants === undefined ? {} : { assistants: grant.assistants }),
    [config.JWT_ORG_CLAIM]: grant.org,
  }
  return new SignJWT(claims)
    .setProtectedHeader({ alg: config.JWT_ALGORITHMS?.[0] ?? 'HS256', typ: 'JWT' })
    .setIssuer(config.localKey ? LOCAL_ISSUER : (config.JWT_ISSUER ?? LOCAL_ISSUER))
    .setAudience(config.JWT_AUDIENCE)
    .setIssuedAt(now)
    .setExpirationTime(now + (grant.expiresInSeconds ?? THIRTY_DAYS_SECONDS))
    .sign(key)
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

const hasCode = (error: unknown, code: string) => error instanceof Error && 'code' in error && error.code === code
