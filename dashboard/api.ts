/** What the client leaves to the page: to keep answers and revalidate them by ETag, and to say what failed. */
import { AnalyticsError, createAnalyticsClient, type CallOptions } from '../src/client.ts'
import { nameOf, type AnswerTo, type Method, type Question } from './questions.ts'

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

interface Kept {
  etag: string
  answer: unknown
}

export class Api {
  /** Requests under way. */
  pending = 0
  /** Epoch milliseconds before which nothing should be asked unless a person wants it. */
  notBefore = 0
  readonly #token: string
  readonly #denied: (failure: ApiFailure) => void
  /** By the name of the question, oldest use first. */
  readonly #kept = new Map<string, Kept>()

  /** @param denied told of every 401 and 403: the token is of no use */
  constructor(token: string, denied: (failure: ApiFailure) => void) {
    this.#token = token
    this.#denied = denied
  }

  /**
   * @returns the answer; the same object again while the service says that nothing has changed
   * @throws ApiFailure; what `fetch` throws where `signal` was aborted; another Error where a 2xx cannot be read
   */
  async ask<M extends Method>(question: Question<M>, signal?: AbortSignal): Promise<AnswerTo<M>> {
    const name = nameOf(question)
    const kept = this.#kept.get(name)
    let etag = null as string | null
    // A client for each question: its `fetch` knows what is kept, and notes the ETag of what comes.
    const client = createAnalyticsClient({
      // The page may lie under a path.
      url: new URL('.', location.href),
      token: this.#token,
      fetch: async (address, init) => {
        const headers = new Headers(init.headers)
        if (kept) headers.set('If-None-Match', kept.etag)
        // Answers are kept here, for as long as somebody is signed in, and not in the browser's cache.
        const response = await fetch(address, { ...init, headers, cache: 'no-store', credentials: 'omit' }).catch(
          (error: unknown) => {
            if (signal?.aborted) throw error
            throw new ApiFailure(0, 'The service cannot be reached.')
          },
        )
        etag = response.headers.get('ETag')
        return response
      },
    })
    this.pending++
    try {
      const call = client[question.method] as (query: object, options: CallOptions) => Promise<AnswerTo<M>>
      const answer = await call(question.query, { signal })
      if (etag !== null) this.#keep(name, { etag, answer })
      return answer
    } catch (error) {
      // To the client a 304 is an error like any that is not a 2xx.
      if (kept && error instanceof AnalyticsError && error.status === 304) {
        this.#keep(name, kept)
        return kept.answer as AnswerTo<M>
      }
      const failure = error instanceof AnalyticsError ? failureOf(error) : error
      if (failure instanceof ApiFailure && !signal?.aborted) {
        this.notBefore = Math.max(this.notBefore, failure.notBefore)
        if (failure.status === 401 || failure.status === 403) this.#denied(failure)
      }
      throw failure
    } finally {
      this.pending--
    }
  }

  #keep(name: string, kept: Kept): void {
    this.#kept.delete(name)
    this.#kept.set(name, kept)
    if (this.#kept.size > MAX_KEPT) this.#kept.delete(this.#kept.keys().next().value as string)
  }
}

/** As it is where a 2xx cannot be read: that is no refusal. */
function failureOf(error: AnalyticsError): Error {
  const { status, code, message, details, retryAfterSeconds } = error
  if (status >= 200 && status < 300) return error
  const reason = code === 'unknown' ? `The service answered ${status}.` : message
  return new ApiFailure(
    status,
    [reason, ...details.map((detail) => `${detail.parameter} ${detail.message}`)].join(' '),
    retryAfterSeconds === undefined ? 0 : Date.now() + retryAfterSeconds * 1_000,
  )
}
