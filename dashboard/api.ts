/** The public API as the dashboard uses it: one GET at a time, with a token, revalidated by ETag. */
import type { Body } from './answers.ts'

/** An answer that is not a 2xx, or none at all (`status` 0). `message` is fit to be shown. */
export class ApiFailure extends Error {
  readonly status: number
  /** Epoch milliseconds before which the service asked not to be asked again; 0 where it did not. */
  readonly notBefore: number

  constructor(status: number, message: string, notBefore = 0) {
    super(message)
    this.status = status
    this.notBefore = notBefore
  }
}

/** Answers kept for revalidation: more than the panels of a few visited states. */
const MAX_KEPT = 40

export class Api {
  /** Requests under way. */
  pending = 0
  /** Epoch milliseconds before which nothing should be asked unless a person wants it. */
  notBefore = 0
  readonly #token: string
  readonly #denied: (failure: ApiFailure) => void
  /** Oldest use first. */
  readonly #kept = new Map<string, { etag: string; body: Body<unknown> }>()

  /** @param denied told of every 401 and 403: the token is of no use */
  constructor(token: string, denied: (failure: ApiFailure) => void) {
    this.#token = token
    this.#denied = denied
  }

  /**
   * @param path relative to the page, such as `analytics/rolling?window=7`
   * @returns the body; the same object again while the service says that nothing has changed
   * @throws ApiFailure; what `fetch` throws where `signal` was aborted
   */
  async get<T>(path: string, signal?: AbortSignal): Promise<Body<T>> {
    this.pending++
    try {
      const kept = this.#kept.get(path)
      const response = await fetch(path, {
        headers: { Authorization: `Bearer ${this.#token}`, ...(kept ? { 'If-None-Match': kept.etag } : {}) },
        // Answers are kept here, for as long as somebody is signed in, and not in the browser's cache.
        cache: 'no-store',
        credentials: 'omit',
        ...(signal ? { signal } : {}),
      }).catch((error: unknown) => {
        if (signal?.aborted) throw error
        throw new ApiFailure(0, 'The service cannot be reached.')
      })
      if (response.status === 304 && kept) return this.#keep(path, kept) as Body<T>
      if (!response.ok) throw await failureOf(response)
      const body = (await response.json()) as Body<T>
      const etag = response.headers.get('ETag')
      if (etag) this.#keep(path, { etag, body })
      return body
    } catch (error) {
      if (error instanceof ApiFailure && !signal?.aborted) {
        this.notBefore = Math.max(this.notBefore, error.notBefore)
        if (error.status === 401 || error.status === 403) this.#denied(error)
      }
      throw error
    } finally {
      this.pending--
    }
  }

  #keep(path: string, entry: { etag: string; body: Body<unknown> }): Body<unknown> {
    this.#kept.delete(path)
    this.#kept.set(path, entry)
    if (this.#kept.size > MAX_KEPT) this.#kept.delete(this.#kept.keys().next().value as string)
    return entry.body
  }
}

async function failureOf(response: Response): Promise<ApiFailure> {
  const body = (await response.json().catch(() => ({}))) as {
    error?: { message?: string; details?: Array<{ parameter: string; message: string }> }
  }
  const details = (body.error?.details ?? []).map(({ parameter, message }) => `${parameter} ${message}`)
  const message = body.error?.message ?? `The service answered ${response.status}.`
  return new ApiFailure(response.status, [message, ...details].join(' '), instantOf(response.headers.get('Retry-After')))
}

/** Retry-After is seconds or an HTTP date; 0 where it is neither. */
function instantOf(header: string | null): number {
  if (!header) return 0
  const at = /^\d+$/.test(header) ? Date.now() + Number(header) * 1_000 : Date.parse(header)
  return Number.isNaN(at) ? 0 : at
}
