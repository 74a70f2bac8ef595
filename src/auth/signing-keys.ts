/** The keys that tokens are verified with: from the configuration, the local key, or the URL of a key set. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { createLocalJWKSet, errors, type JWTVerifyGetKey } from 'jose'
import { type Config, ConfigError } from '../config.ts'
import { unavailable } from '../domain/errors.ts'

export interface VerifierOptions {
  /** The service's own key; needed where `config.localKey` is true. */
  localKey?: Uint8Array
  /** Told of each failed fetch of the key set, since the last good keys go on hiding the failure from callers. */
  onKeyFetchError?: (error: unknown) => void
}

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

/** The keys to verify with. */
interface Keys {
  algorithms: string[]
  find: JWTVerifyGetKey
  /** Call before each use: fetches what has to be fetched. @throws ApiError 503 where no keys were ever had. */
  ready(): Promise<void> | void
  /** Moves whenever the keys change; what was verified under another version has to be verified again. */
  version(): number
}

export function configuredKeys(config: Config, options: VerifierOptions): Keys {
  if (config.JWT_JWKS_URL !== undefined) {
    const url = new URL(config.JWT_JWKS_URL)
    if (!/^https?:$/.test(url.protocol)) throw new ConfigError('bad settings: JWT_JWKS_URL must be http(s)://…')
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
    if (secret.length < bytes) throw new ConfigError(`bad settings: ${algorithm} needs a secret of ${bytes} bytes`)
  }
  return fixedKey(secret, algorithms)
}

function pinnedAlgorithms(wanted: string[] | undefined, kind: keyof typeof ALGORITHMS): string[] {
  const { usual, possible } = ALGORITHMS[kind]
  const chosen = wanted ?? usual
  if (chosen.length === 0 || !chosen.every((algorithm) => possible.includes(algorithm))) {
    throw new ConfigError(`bad settings: JWT_ALGORITHMS must be some of ${possible.join(', ')} for a key of kind ${kind}`)
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
  throw new ConfigError('bad settings: JWT_PUBLIC_KEY must be a public key for signatures, as PEM (SPKI) or JWK')
}

function kindOf(key: KeyObject): keyof typeof ALGORITHMS {
  const { modulusLength = 0, namedCurve } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === 'rsa' && modulusLength >= 2_048) return 'RSA'
  if (key.asymmetricKeyType === 'ed25519') return 'Ed25519'
  if (namedCurve === 'prime256v1') return 'P-256'
  if (namedCurve === 'secp384r1') return 'P-384'
  if (namedCurve === 'secp521r1') return 'P-521'
  throw new ConfigError('bad settings: JWT_PUBLIC_KEY must be RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519')
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
