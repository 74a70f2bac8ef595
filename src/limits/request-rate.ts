/** How many requests a tenant may send a second. */
import { refusal } from './refusal.ts'

interface Bucket {
  /** Requests left. */
  tokens: number
  /** When `tokens` was right, milliseconds. */
  at: number
}

/** Beyond this the tenant that has asked nothing for longest is forgotten: it starts again with a full second. */
const MAX_TENANTS = 10_000

export class RequestRate {
  readonly #perSecond: number
  /** Longest unused first. */
  readonly #buckets = new Map<string, Bucket>()
  /** Requests turned away since the start. */
  refused = 0

  constructor(perSecond: number) {
    this.#perSecond = perSecond
  }

  /**
   * Counts a request: a token bucket that holds a second's worth.
   * @returns the headers of draft-ietf-httpapi-ratelimit-headers
   * @throws ApiError 429 with `Retry-After`
   */
  count(tenant: string, now = performance.now()): Record<string, string> {
    const bucket = this.#buckets.get(tenant) ?? { tokens: this.#perSecond, at: now }
    this.#buckets.delete(tenant)
    this.#buckets.set(tenant, bucket)
    if (this.#buckets.size > MAX_TENANTS) this.#buckets.delete(this.#buckets.keys().next().value as string)
    bucket.tokens = Math.min(this.#perSecond, bucket.tokens + ((now - bucket.at) / 1000) * this.#perSecond)
    bucket.at = now
    const headers = {
      'RateLimit-Policy': `"tenant";q=${this.#perSecond};w=1`,
      RateLimit: `"tenant";r=${Math.max(0, Math.floor(bucket.tokens - 1))};t=1`,
    }
    if (bucket.tokens < 1) this.refused++
    if (bucket.tokens < 1) throw refusal(429, `More than ${this.#perSecond} requests a second.`, headers)
    bucket.tokens--
    return headers
  }
}
