/** What one tenant may ask for, so that no tenant's load is another's outage. */
import { ApiError } from './errors.ts'

interface Bucket {
  /** Requests left. */
  tokens: number
  /** When `tokens` was right, milliseconds. */
  at: number
}

interface Gate {
  running: number
  readonly waiting: Array<() => void>
}

/** Questions that may wait for each that may run; more are turned away. */
const WAITING_PER_RUNNING = 4
/** A question that waits longer than this would be answered late by a service that is too busy anyway. */
const WAIT_MS = 2_000
/** Idle tenants are forgotten once there are more than this. */
const MAX_TENANTS = 10_000

export class TenantLimits {
  readonly #perSecond: number
  readonly #concurrent: number
  readonly #buckets = new Map<string, Bucket>()
  readonly #gates = new Map<string, Gate>()

  constructor(perSecond: number, concurrent: number) {
    this.#perSecond = perSecond
    this.#concurrent = concurrent
  }

  /**
   * Counts a request: a token bucket that holds a second's worth.
   * @returns the headers of draft-ietf-httpapi-ratelimit-headers
   * @throws ApiError 429 with `Retry-After`
   */
  count(tenant: string, now = performance.now()): Record<string, string> {
    const bucket = this.#buckets.get(tenant) ?? { tokens: this.#perSecond, at: now }
    if (!this.#buckets.has(tenant)) {
      if (this.#buckets.size >= MAX_TENANTS) this.#buckets.clear()
      this.#buckets.set(tenant, bucket)
    }
    bucket.tokens = Math.min(this.#perSecond, bucket.tokens + ((now - bucket.at) / 1000) * this.#perSecond)
    bucket.at = now
    const headers = {
      'RateLimit-Policy': `"tenant";q=${this.#perSecond};w=1`,
      RateLimit: `"tenant";r=${Math.max(0, Math.floor(bucket.tokens - 1))};t=1`,
    }
    if (bucket.tokens < 1) throw tooMany(`More than ${this.#perSecond} requests a second.`, headers)
    bucket.tokens--
    return headers
  }

  /**
   * Runs a query of a tenant when one of its places is free.
   * @throws ApiError 429 where too many wait already, 503 where waiting took too long
   */
  async run<T>(tenant: string, work: () => Promise<T>): Promise<T> {
    const gate = this.#gates.get(tenant) ?? { running: 0, waiting: [] }
    this.#gates.set(tenant, gate)
    if (gate.running >= this.#concurrent) {
      if (gate.waiting.length >= this.#concurrent * WAITING_PER_RUNNING) {
        throw tooMany('Too many questions are being answered for this tenant.')
      }
      await this.#turn(gate)
    } else gate.running++
    try {
      return await work()
    } finally {
      const next = gate.waiting.shift()
      if (next) next()
      else if (--gate.running === 0) this.#gates.delete(tenant)
    }
  }

  /** Resolves when a place is handed over; `running` then counts this one already. */
  #turn(gate: Gate): Promise<void> {
    return new Promise((resolve, reject) => {
      const enter = () => {
        clearTimeout(timer)
        resolve()
      }
      const timer = setTimeout(() => {
        gate.waiting.splice(gate.waiting.indexOf(enter), 1)
        reject(tooMany('Too many questions are being answered for this tenant.', {}, 503))
      }, WAIT_MS)
      gate.waiting.push(enter)
    })
  }
}

const tooMany = (message: string, headers: Record<string, string> = {}, status: 429 | 503 = 429) =>
  new ApiError(status, status === 429 ? 'too_many_requests' : 'unavailable', message, {
    headers: { ...headers, 'Retry-After': '1' },
  })
