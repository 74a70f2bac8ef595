/** Tokens that every instance accepts: all have one JWT_SECRET. */
import { createHmac, randomBytes } from 'node:crypto'
import type { Tokens } from '../faults/post.ts'

const DAY_SECONDS = 86_400

export class SharedTokens implements Tokens {
  readonly secret = randomBytes(32).toString('base64url')
  readonly #made = new Map<string, string>()

  /** A token with which a tenant reads, writes, and removes its users. */
  get(tenant: string): string {
    let token = this.#made.get(tenant)
    if (!token) this.#made.set(tenant, (token = this.sign(tenant, 'analytics:read analytics:write analytics:admin')))
    return token
  }

  sign(org: string, scope: string): string {
    // Clocks may be minutes apart.
    const now = Math.floor(Date.now() / 1_000)
    const claims = { org, scope, iss: 'instances', aud: 'agnt-analytics', iat: now - DAY_SECONDS, exp: now + DAY_SECONDS }
    const signed = [{ alg: 'HS256', typ: 'JWT' }, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
    return `${signed}.${createHmac('sha256', Buffer.from(this.secret)).update(signed).digest('base64url')}`
  }
}
