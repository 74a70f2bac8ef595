/**
 * Who asks: verifies the bearer token of a request (RFC 6750) as a JWT, after the rules of RFC 8725.
 * Algorithms, issuer and audience come from the configuration; the token never chooses how it is checked.
 */
import { createPublicKey, hash, type KeyObject } from 'node:crypto'
import { createLocalJWKSet, errors, jwtVerify } from 'jose'
import type { JWTPayload, JWTVerifyGetKey, JWTVerifyOptions } from 'jose'
import { ConfigError, type Config } from '../config.ts'
import { ApiError, unavailable } from '../domain/errors.ts'
import { LOCAL_ISSUER } from './local-key.ts'

/** What a verified token allows. Everything that is read or written for it stays inside `tenant`. */
export interface Principal {
  /** The claim named by JWT_ORG_CLAIM: 1 to 256 characters, no control characters. */
  readonly tenant: string
  /** For example `analytics:read`; empty where the token grants nothing. */
  readonly scopes: ReadonlySet<string>
  /** The only assistants that may be seen, at least one; null where all of the tenant's may. */
  readonly assistants: readonly string[] | null
  readonly subject: string | null
  /** Epoch milliseconds, without the clock tolerance. */
  readonly expiresAt: number
}

export interface Verifier {
  /**
   * Takes the value of the `Authorization` header.
   * @throws ApiError 401 with `WWW-Authenticate` where there is no usable token, 503 with `Retry-After` where the
   * key set has never been fetched.
   */
  verify(authorization: string | undefined): Promise<Principal>
  /** Whether there are keys to verify tokens with; a key set that was never fetched is fetched now. */
  hasKeys(): Promise<boolean>
}

export interface VerifierOptions {
  /** The service's own key; needed where `config.localKey` is true. */
  localKey?: Uint8Array
  /** Told of each failed fetch of the key set, since the last good keys go on hiding the failure from callers. */
  onKeyFetchError?: (error: unknown) => void
}

/** All that a caller learns about a refused token; `error_description` never holds anything of the token itself. */
type Fault =
  | 'bad signature'
  | 'expired'
  | 'malformed'
  | 'missing tenant'
  | 'not yet valid'
  | 'too long'
  | 'unknown key'
  | 'unsupported algorithm'
  | 'wrong audience'
  | 'wrong issuer'
  | 'wrong type'

const CHALLENGE = 'Bearer realm="agnt-analytics"'

const MAX_TOKEN_BYTES = 8 * 1024
const CLOCK_TOLERANCE_SECONDS = 5

const CACHE_ENTRIES = 10_000
const CACHE_MS = 60_000

const KEY_FETCH_TIMEOUT_MS = 5_000
/** Keys of this age are fetched again behind the requests that go on using them. */
const KEYS_REFRESH_MS = 30_000
/** Keys of this age are not used before they have been fetched again, unless the last attempt failed. */
const KEYS_TRUSTED_MS = 60_000
/** The pause after a failed fetch; requests within it use the last good keys, or get 503 if there are none. */
const KEYS_RETRY_MS = 5_000
/** The least time between two fetches for an unknown `kid`, which anyone can send. */
const UNKNOWN_KID_COOLDOWN_MS = 30_000

const RSA = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']

/** By kind of key: the algorithms accepted by default, and all that JWT_ALGORITHMS may choose from. */
const ALGORITHMS = {
  secret: { usual: ['HS256'], possible: ['HS256', 'HS384', 'HS512'] },
  RSA: { usual: ['RS256', 'PS256'], possible: RSA },
  'P-256': { usual: ['ES256'], possible: ['ES256'] },
  'P-384': { usual: ['ES384'], possible: ['ES384'] },
  'P-521': { usual: ['ES512'], possible: ['ES512'] },
  Ed25519: { usual: ['EdDSA', 'Ed25519'], possible: ['EdDSA', 'Ed25519'] },
  'key set': {
    usual: ['RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
    possible: [...RSA, 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
  },
}

/** Lone surrogates are refused too: on the wire they all become U+FFFD, and two tenants would become one. */
const TENANT = /^[^\p{Cc}\p{Cs}]{1,256}$/u
const ASSISTANT = /^\P{Cs}{1,256}$/u
const MAX_ASSISTANTS = 1_000

/**
 * RFC 7519 leaves `typ` optional and some issuers (Amazon Cognito) send none, so absent is accepted, as are `JWT` and
 * the `at+jwt` of RFC 9068. Any other value declares another kind of JWT (`logout+jwt`, `dpop+jwt`) and is refused,
 * RFC 8725 section 3.11. ID tokens, which may share `typ: JWT`, fail on `aud`: theirs is the client.
 */
const TOKEN_TYPE = /^(application\/)?(at\+)?jwt$/i

/** The keys to verify with. */
interface Keys {
  algorithms: string[]
  find: JWTVerifyGetKey
  /** Call before each use: fetches what has to be fetched. @throws ApiError 503 where no keys were ever had. */
  ready(): Promise<void> | void
  /** Moves whenever the keys change; what was verified under another version has to be verified again. */
  version(): number
}

/**
 * Makes the verifier of this service.
 *
 * A verified token is remembered for up to 60 s, never beyond its `exp`. A changed key set empties that memory at once
 * and key sets are at most 60 s old while their URL answers, so a key that was withdrawn, or added, counts within 60 s.
 * Refusals are not remembered; concurrent requests with one token share one verification.
 *
 * @throws ConfigError where the key cannot be used, or JWT_ALGORITHMS does not fit it: an HS* algorithm beside a public
 * key would let anyone sign with that key's text (RFC 8725 section 2.1).
 */
export function createVerifier(config: Config, options: VerifierOptions = {}): Verifier {
  const keys = configuredKeys(config, options)
  const issuer = config.localKey ? LOCAL_ISSUER : config.JWT_ISSUER
  const rules: JWTVerifyOptions = {
    algorithms: keys.algorithms,
    audience: config.JWT_AUDIENCE,
    clockTolerance: CLOCK_TOLERANCE_SECONDS,
    requiredClaims: ['exp'],
    ...(issuer === undefined ? {} : { issuer }),
  }
  /** Oldest use first. Keyed by digest: tokens of 8 KiB would make this 80 MB of credentials. */
  const verified = new Map<string, { principal: Principal; version: number; until: number }>()
  const running = new Map<string, Promise<Principal>>()

  async function check(token: string, id: string): Promise<Principal> {
    const version = keys.version()
    const principal = principalOf(await claimsOf(token, keys.find, rules), config.JWT_ORG_CLAIM)
    verified.delete(id)
    verified.set(id, { principal, version, until: Math.min(principal.expiresAt, Date.now() + CACHE_MS) })
    if (verified.size > CACHE_ENTRIES) verified.delete(verified.keys().next().value!)
    return principal
  }

  return {
    async verify(authorization) {
      const token = bearerToken(authorization)
      await keys.ready()
      const id = hash('sha256', token, 'base64')
      const known = verified.get(id)
      if (known && known.version === keys.version() && known.until > Date.now()) {
        verified.delete(id)
        verified.set(id, known)
        return known.principal
      }
      let checking = running.get(id)
      if (!checking) {
        checking = check(token, id).finally(() => running.delete(id))
        running.set(id, checking)
      }
      return checking
    },

    async hasKeys() {
      try {
        await keys.ready()
        return true
      } catch {
        return false
      }
    },
  }
}

/** @throws ApiError 403 naming the scope that the token lacks, as RFC 6750 section 3.1 wants. */
export function requireScope(principal: Principal, scope: string): void {
  if (principal.scopes.has(scope)) return
  throw new ApiError(403, 'forbidden', `The token lacks the scope ${scope}.`, {
    headers: { 'WWW-Authenticate': `${CHALLENGE}, error="insufficient_scope", scope="${scope}"` },
  })
}

/** @throws ApiError 403 where the token is narrowed to some assistants: what is asked for concerns all of them. */
export function requireAllAssistants(principal: Principal): void {
  if (principal.assistants === null) return
  throw new ApiError(403, 'forbidden', 'The token reaches some assistants only.', {
    headers: { 'WWW-Authenticate': `${CHALLENGE}, error="insufficient_scope"` },
  })
}

/**
 * RFC 6750 section 3.1: a request without credentials, or with another scheme's, gets a challenge without an error
 * code. It asks for 400 where the header is malformed; this service says 401 `invalid_token` there as well, because
 * what comes as `Bearer` and nothing is a client that lost its token, and 401 is what makes it fetch one.
 */
function bearerToken(authorization: string | undefined): string {
  if (!authorization || !/^Bearer(?= |$)/i.test(authorization)) {
    throw new ApiError(401, 'unauthorized', 'A bearer token is needed.', { headers: { 'WWW-Authenticate': CHALLENGE } })
  }
  const token = authorization.slice('Bearer'.length).trim()
  if (token.length > MAX_TOKEN_BYTES) throw refused('too long')
  if (!/^[\w.-]+$/.test(token)) throw refused('malformed')
  return token
}

function refused(fault: Fault, cause?: unknown): ApiError {
  return new ApiError(401, 'unauthorized', `The token is refused: ${fault}.`, {
    headers: { 'WWW-Authenticate': `${CHALLENGE}, error="invalid_token", error_description="${fault}"` },
    cause,
  })
}

async function claimsOf(token: string, key: JWTVerifyGetKey, rules: JWTVerifyOptions): Promise<JWTPayload> {
  const { payload, protectedHeader } = await jwtVerify(token, key, rules).catch((error: unknown) => {
    // The cause of a JOSEError holds the claims of the token, which are not for the log.
    throw refused(faultOf(error), error instanceof errors.JOSEError ? undefined : error)
  })
  const { typ } = protectedHeader
  if (typ !== undefined && (typeof typ !== 'string' || !TOKEN_TYPE.test(typ))) throw refused('wrong type')
  return payload
}

function faultOf(error: unknown): Fault {
  if (error instanceof errors.JWTExpired) return 'expired'
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'bad signature'
  if (error instanceof errors.JOSEAlgNotAllowed) return 'unsupported algorithm'
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'aud') return 'wrong audience'
    if (error.claim === 'iss') return 'wrong issuer'
    if (error.claim === 'nbf' && error.reason === 'check_failed') return 'not yet valid'
    return 'malformed'
  }
  if (
    error instanceof errors.JWSInvalid ||
    error instanceof errors.JWTInvalid ||
    // With the algorithms pinned this is left for `crit` extensions alone.
    error instanceof errors.JOSENotSupported
  ) {
    return 'malformed'
  }
  // No key, several without a `kid`, or one that cannot be used (a private key, RSA below 2048 bits).
  return 'unknown key'
}

function principalOf(claims: JWTPayload, orgClaim: string): Principal {
  const tenant = claims[orgClaim]
  if (typeof tenant !== 'string' || !TENANT.test(tenant)) throw refused('missing tenant')
  if (claims.sub !== undefined && typeof claims.sub !== 'string') throw refused('malformed')
  return Object.freeze({
    tenant,
    scopes: scopesOf(claims),
    assistants: assistantsOf(claims),
    subject: claims.sub ?? null,
    expiresAt: claims.exp! * 1_000,
  })
}

/** The first claim present counts, so that what `scope` was narrowed to is not widened by `permissions`. */
function scopesOf(claims: JWTPayload): ReadonlySet<string> {
  const granted = claims['scope'] ?? claims['scp'] ?? claims['permissions']
  const scopes: unknown[] = typeof granted === 'string' ? granted.split(' ') : Array.isArray(granted) ? granted : []
  return new Set(scopes.filter((scope) => typeof scope === 'string').filter(Boolean))
}

/** A narrowing that cannot be read refuses the token: taken as absent it would show everything. */
function assistantsOf(claims: JWTPayload): readonly string[] | null {
  if (!Object.hasOwn(claims, 'assistants')) return null
  const { assistants } = claims
  if (!Array.isArray(assistants) || assistants.length === 0 || assistants.length > MAX_ASSISTANTS) {
    throw refused('malformed')
  }
  if (!assistants.every((assistant) => typeof assistant === 'string' && ASSISTANT.test(assistant))) {
    throw refused('malformed')
  }
  return Object.freeze(assistants)
}

function configuredKeys(config: Config, options: VerifierOptions): Keys {
  if (config.JWT_JWKS_URL !== undefined) {
    const url = new URL(config.JWT_JWKS_URL)
    if (!/^https?:$/.test(url.protocol)) throw new ConfigError('bad settings: JWT_JWKS_URL wants http(s)://…')
    return remoteKeys(url, pinnedAlgorithms(config.JWT_ALGORITHMS, 'key set'), options.onKeyFetchError)
  }
  if (config.JWT_PUBLIC_KEY !== undefined) {
    const { key, algorithm } = publicKey(config.JWT_PUBLIC_KEY)
    return fixedKey(key, pinnedAlgorithms(config.JWT_ALGORITHMS ?? algorithm, kindOf(key)))
  }
  const secret = config.JWT_SECRET === undefined ? options.localKey : new TextEncoder().encode(config.JWT_SECRET)
  if (!secret) throw new ConfigError('bad settings: there is no key to verify tokens with')
  const algorithms = pinnedAlgorithms(config.JWT_ALGORITHMS, 'secret')
  for (const algorithm of algorithms) {
    const bytes = Number(algorithm.slice(2)) / 8
    // RFC 7518 section 3.2.
    if (secret.length < bytes) throw new ConfigError(`bad settings: ${algorithm} wants a secret of ${bytes} bytes`)
  }
  return fixedKey(secret, algorithms)
}

function pinnedAlgorithms(wanted: string[] | undefined, kind: keyof typeof ALGORITHMS): string[] {
  const { usual, possible } = ALGORITHMS[kind]
  const chosen = wanted ?? usual
  if (chosen.length === 0 || !chosen.every((algorithm) => possible.includes(algorithm))) {
    throw new ConfigError(`bad settings: JWT_ALGORITHMS wants some of ${possible.join(', ')} for a key of kind ${kind}`)
  }
  return chosen
}

/**
 * PEM (SPKI, line ends may be written `\n`) or a JWK, whose `alg` then pins the algorithm (RFC 8725 section 3.1).
 * A private key is refused: it has no place in this service.
 */
function publicKey(setting: string): { key: KeyObject; algorithm?: string[] } {
  const text = setting.trim()
  try {
    if (text.startsWith('-----BEGIN PUBLIC KEY-----')) {
      return { key: createPublicKey(text.replaceAll('\\n', '\n')) }
    }
    const jwk = JSON.parse(text)
    if (!('d' in jwk) && (jwk.use ?? 'sig') === 'sig') {
      const key = createPublicKey({ key: jwk, format: 'jwk' })
      return jwk.alg === undefined ? { key } : { key, algorithm: [jwk.alg] }
    }
  } catch {
    // Said below, without the parser's message: that quotes the setting.
  }
  throw new ConfigError('bad settings: JWT_PUBLIC_KEY wants a public key for signatures, as PEM (SPKI) or JWK')
}

function kindOf(key: KeyObject): keyof typeof ALGORITHMS {
  const { modulusLength = 0, namedCurve } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === 'rsa' && modulusLength >= 2_048) return 'RSA'
  if (key.asymmetricKeyType === 'ed25519') return 'Ed25519'
  if (namedCurve === 'prime256v1') return 'P-256'
  if (namedCurve === 'secp384r1') return 'P-384'
  if (namedCurve === 'secp521r1') return 'P-521'
  throw new ConfigError('bad settings: JWT_PUBLIC_KEY wants RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519')
}

function fixedKey(key: KeyObject | Uint8Array, algorithms: string[]): Keys {
  return { algorithms, find: async () => key, ready() {}, version: () => 0 }
}

/**
 * The key set behind a URL, by `kid`. A token without one is good only where a single key fits its algorithm.
 *
 * jose's createRemoteJWKSet is not used: it fails every token once its keys are older than `cacheMaxAge` and the URL is
 * down, takes any `{"keys": []}` for a good answer, and its cooldown counts from the last success, so that unknown
 * `kid`s drive one fetch after the other at a URL that fails.
 */
function remoteKeys(url: URL, algorithms: string[], onError: VerifierOptions['onKeyFetchError']): Keys {
  let find: ReturnType<typeof createLocalJWKSet> | undefined
  let text = ''
  let version = 0
  let fetchedAt = -Infinity
  let searchedAt = -Infinity
  /** Of the last attempt; undefined where that was good. */
  let failure: { at: number; error: unknown } | undefined
  let loading: Promise<void> | undefined

  async function fetchKeys() {
    const response = await fetch(url, {
      headers: { Accept: 'application/jwk-set+json, application/json' },
      redirect: 'error',
      signal: AbortSignal.timeout(KEY_FETCH_TIMEOUT_MS),
    })
    const answer = await response.text()
    if (response.status !== 200) throw new Error(`the key set's URL answered ${response.status}`)
    if (answer !== text) {
      const next = createLocalJWKSet(JSON.parse(answer))
      // A set that yields no key for any algorithm is as good as none, and must not replace one that works.
      await Promise.any(next.jwks().keys.flatMap((key) => algorithms.map((alg) => next({ ...key, alg })))).catch(() => {
        throw new Error(`the key set holds no public key for ${algorithms.join(', ')}`)
      })
      find = next
      text = answer
      version += 1
    }
    fetchedAt = Date.now()
    failure = undefined
  }

  /** Never rejects; what went wrong is in `failure`. */
  function load(): Promise<void> {
    loading ??= fetchKeys()
      .catch((error: unknown) => {
        failure = { at: Date.now(), error }
        onError?.(error)
      })
      .finally(() => {
        loading = undefined
      })
    return loading
  }

  return {
    algorithms,
    version: () => version,
    async ready() {
      const now = Date.now()
      const age = now - fetchedAt
      if (age < KEYS_REFRESH_MS) return
      if (!failure || now - failure.at >= KEYS_RETRY_MS) void load()
      if (!find || (age >= KEYS_TRUSTED_MS && !failure)) await loading
      if (!find) {
        const message = 'The keys that tokens are verified with cannot be had now.'
        throw unavailable(message, KEYS_RETRY_MS / 1_000, failure?.error)
      }
    },
    async find(header, token) {
      try {
        return await find!(header, token)
      } catch (error) {
        if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
        const now = Date.now()
        if (!loading) {
          if (now - searchedAt < UNKNOWN_KID_COOLDOWN_MS) throw error
          searchedAt = now
        }
        await load()
        return find!(header, token)
      }
    },
  }
}
