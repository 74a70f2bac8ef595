/**
 * Who asks: verifies the bearer token of a request (RFC 6750) as a JWT, after the rules of RFC 8725.
 * Algorithms, issuer and audience come from the configuration; the token never chooses how it is checked.
 */
import { hash } from 'node:crypto'
import { errors, jwtVerify } from 'jose'
import type { JWTPayload, JWTVerifyGetKey, JWTVerifyOptions } from 'jose'
import type { Config } from '../config.ts'
import { ApiError } from '../domain/errors.ts'
import { LOCAL_ISSUER } from './local-key.ts'
import { CHALLENGE, type Fault, type Principal, principalOf, refused } from './principal.ts'
import { configuredKeys, type VerifierOptions } from './signing-keys.ts'

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

const MAX_TOKEN_BYTES = 8 * 1024
const CLOCK_TOLERANCE_SECONDS = 5

const CACHE_ENTRIES = 10_000
const CACHE_MS = 60_000

/**
 * RFC 7519 leaves `typ` optional and some issuers (Amazon Cognito) send none, so absent is accepted, as are `JWT` and
 * the `at+jwt` of RFC 9068. Any other value declares another kind of JWT (`logout+jwt`, `dpop+jwt`) and is refused,
 * RFC 8725 section 3.11. ID tokens, which may share `typ: JWT`, fail on `aud`: theirs is the client.
 */
const TOKEN_TYPE = /^(application\/)?(at\+)?jwt$/i

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
