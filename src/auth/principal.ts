/** What a verified token allows, and the refusals of what it does not. */
import type { JWTPayload } from 'jose'
import { ApiError } from '../domain/errors.ts'

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

/** All that a caller learns about a refused token; `error_description` never holds anything of the token itself. */
export type Fault =
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

export const CHALLENGE = 'Bearer realm="agnt-analytics"'

/** Lone surrogates are refused too: on the wire they all become U+FFFD, and two tenants would become one. */
const TENANT = /^[^\p{Cc}\p{Cs}]{1,256}$/u
const ASSISTANT = /^\P{Cs}{1,256}$/u
const MAX_ASSISTANTS = 1_000

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

export function refused(fault: Fault, cause?: unknown): ApiError {
  return new ApiError(401, 'unauthorized', `The token is refused: ${fault}.`, {
    headers: { 'WWW-Authenticate': `${CHALLENGE}, error="invalid_token", error_description="${fault}"` },
    cause,
  })
}

export function principalOf(claims: JWTPayload, orgClaim: string): Principal {
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
