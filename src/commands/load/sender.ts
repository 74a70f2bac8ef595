/** Sends batches to the service until each is acknowledged. */
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { type AnalyticsClient, AnalyticsError, createAnalyticsClient, type Receipt } from '../../client.ts'
import { codeOf, LoadError } from './errors.ts'
import { isLoopback } from './options.ts'
import type { Batch } from './read-batches.ts'

const PROBE_MS = 10_000
/** The service answers within 10 s, if only to say that it cannot store anything right now. */
const ATTEMPT_MS = 60_000
const NEWS_MS = 2_000
const BACK_OFF_MS = { first: 250, most: 10_000 }
/** What the service, or a proxy in front of it, says when it may be better later. */
const RETRIED_STATUS = new Set([429, 502, 503, 504])

const compress = promisify(gzip)

interface ClientOptions {
  readonly url: URL
  readonly token: string
  /** Added to the answer where the service does not accept the token. */
  readonly tokenHint: string
  readonly patienceMs: number
  readonly signal: AbortSignal
  readonly onNote: (text: string) => void
}

/** The service as seen from here. */
export class Client {
  readonly #options: ClientOptions
  readonly #service: AnalyticsClient
  #lastProgress = 0
  #troubled = false
  bytesSent = 0

  constructor(options: ClientOptions) {
    this.#options = options
    this.#service = createAnalyticsClient(options)
  }

  /** @throws LoadError where nothing speaks HTTP at the address */
  static async probe(url: URL): Promise<void> {
    try {
      await fetch(new URL('analytics/events', url), { method: 'HEAD', redirect: 'manual', signal: AbortSignal.timeout(PROBE_MS) })
    } catch (error) {
      const advice = isLoopback(url)
        ? ': start one with npm start in another terminal, or name another with --url'
        : ` (${codeOf(error)})`
      throw new LoadError(`no service answers at ${url.origin}${advice}`)
    }
  }

  /** Sends a batch until it is acknowledged. */
  async send({ lines }: Batch): Promise<Receipt> {
    if (lines.length === 0) return { accepted: 0, duplicates: 0, rejected: [] }
    const { patienceMs, signal, onNote } = this.#options
    const newline = Buffer.from('\n')
    const body = await compress(Buffer.concat(lines.flatMap(({ bytes }) => [bytes as Buffer, newline])), { level: 1 })
    const started = performance.now()
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted()
      const result = await this.#attempt(body)
      if ('receipt' in result) {
        const { accepted, duplicates, rejected } = result.receipt
        if (accepted + duplicates + rejected.length !== lines.length) {
          throw new LoadError(`the service answered for ${accepted + duplicates + rejected.length} of ${lines.length} events`)
        }
        this.#lastProgress = performance.now()
        if (this.#troubled) onNote('the service answers again')
        this.#troubled = false
        return result.receipt
      }
      const stalled = performance.now() - Math.max(this.#lastProgress, started)
      const left = patienceMs - stalled
      if (left <= 0) throw new LoadError(`no progress for ${patienceMs / 1000} s: ${result.trouble}`)
      // To be asked to wait a moment is how a busy service sets the pace; it is no news.
      if (stalled > NEWS_MS && !this.#troubled) {
        this.#troubled = true
        onNote(`${result.trouble}: trying again for up to ${patienceMs / 1000} s`)
      }
      const backOff = Math.min(BACK_OFF_MS.first * 2 ** attempt, BACK_OFF_MS.most)
      // Spread out, or everyone who was turned away would come back at once.
      const wait = Math.max(backOff * (0.5 + Math.random() / 2), result.retryAfterMs * (1 + Math.random() / 4))
      await sleep(Math.min(wait, left), undefined, { signal })
    }
  }

  async #attempt(body: Uint8Array<ArrayBuffer>): Promise<{ receipt: Receipt } | { trouble: string; retryAfterMs: number }> {
    const { signal, url } = this.#options
    // Not AbortSignal.any: on Node 20 the long-lived signal would keep every signal derived from it.
    const attempt = new AbortController()
    const abort = () => attempt.abort()
    signal.addEventListener('abort', abort)
    const timer = setTimeout(abort, ATTEMPT_MS)
    try {
      const receipt = await this.#service.postEvents(body, {
        contentType: 'application/x-ndjson',
        contentEncoding: 'gzip',
        signal: attempt.signal,
      })
      this.bytesSent += body.length
      return { receipt }
    } catch (error) {
      if (error instanceof AnalyticsError) {
        if (!RETRIED_STATUS.has(error.status)) throw new LoadError(this.#said(error))
        return { trouble: this.#said(error), retryAfterMs: 1000 * (error.retryAfterSeconds ?? 0) }
      }
      signal.throwIfAborted()
      const reason = attempt.signal.aborted
        ? `does not answer within ${ATTEMPT_MS / 1000} s`
        : `is out of reach (${codeOf(error)})`
      return { trouble: `the service at ${url.origin} ${reason}`, retryAfterMs: 0 }
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
  }

  #said({ status, code, message, details }: AnalyticsError): string {
    if (code === 'unknown') {
      const why = status < 300 ? '' : ' without a reason'
      return `${this.#options.url.origin} answered ${status}${why}: is it an AGNT Analytics service?`
    }
    const all = details.map((detail) => ` ${detail.parameter} ${detail.message}.`).join('')
    const hint = status === 401 ? this.#options.tokenHint : status === 413 ? ' Try a smaller --batch.' : ''
    return `the service answered ${status}: ${message}${all}${hint}`.replace(/\.$/, '')
  }
}
