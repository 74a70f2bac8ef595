/** Load in two shapes: callers who wait for their answer before they ask again, and callers who do not. */
import { Agent, request } from 'node:http'
import type { Call } from './fleet.ts'

export interface Target {
  host: string
  port: number
  /** By company. */
  tokens: ReadonlyMap<string, string>
}

export interface Sample {
  call: Call
  /** Milliseconds since the load began. */
  at: number
  /** HTTP status; 0 where the connection failed. */
  status: number
  ms: number
  /** Of a 429 or 503: whether it says when to come back. */
  retryAfter: boolean
  /** Why the connection failed, or the body of an answer that should not be. */
  text: string
}

/** More than this is never under way: what would be is counted as not sent. */
const MAX_OPEN = 4_000
/** No answer takes longer; one that does has failed. */
const GIVE_UP_MS = 30_000
const EXPECTED = new Set([200, 304, 429, 503])

export class Load {
  readonly samples: Sample[] = []
  readonly #target: Target
  readonly #agent = new Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: MAX_OPEN, scheduling: 'lifo' })
  readonly #started = performance.now()
  #open = 0
  notSent = 0

  constructor(target: Target) {
    this.#target = target
  }

  get open(): number {
    return this.#open
  }

  /** Callers who each ask, wait for the answer, and ask again. */
  async closed(callers: number, seconds: number, next: () => Call): Promise<void> {
    const end = performance.now() + seconds * 1_000
    const caller = async () => {
      while (performance.now() < end) await this.send(next())
    }
    await Promise.all(Array.from({ length: callers }, caller))
  }

  /** So many calls a second, whatever becomes of them; resolves when all are answered. */
  async steady(perSecond: number, seconds: number, next: () => Call): Promise<void> {
    const began = performance.now()
    const under: Set<Promise<unknown>> = new Set()
    let due = 0
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const elapsed = (performance.now() - began) / 1_000
        const wanted = Math.floor(Math.min(elapsed, seconds) * perSecond)
        for (; due < wanted; due++) {
          if (this.#open >= MAX_OPEN) {
            this.notSent++
            continue
          }
          const sending = this.send(next()).finally(() => under.delete(sending))
          under.add(sending)
        }
        if (elapsed < seconds) return
        clearInterval(timer)
        resolve()
      }, 2)
    })
    await Promise.all(under)
  }

  send(call: Call): Promise<Sample> {
    const { host, port, tokens } = this.#target
    const started = performance.now()
    this.#open++
    return new Promise((resolve) => {
      const done = (status: number, retryAfter: boolean, text: string) => {
        if (sample) return
        this.#open--
        sample = { call, at: started - this.#started, status, ms: performance.now() - started, retryAfter, text }
        this.samples.push(sample)
        resolve(sample)
      }
      let sample: Sample | undefined
      const asked = request(
        {
          host,
          port,
          agent: this.#agent,
          method: call.method,
          path: call.path,
          timeout: GIVE_UP_MS,
          headers: {
            Authorization: `Bearer ${tokens.get(call.company)}`,
            ...(call.body
              ? { 'Content-Type': 'application/json', 'Content-Encoding': 'gzip', 'Content-Length': call.body.length }
              : {}),
          },
        },
        (response) => {
          const status = response.statusCode ?? 0
          let text = ''
          response.on('data', (chunk: Buffer) => {
            if (!EXPECTED.has(status) && text.length < 500) text += chunk.toString()
          })
          response.on('end', () => done(status, response.headers['retry-after'] !== undefined, text))
          response.on('error', (error) => done(0, false, error.message))
        },
      )
      asked.on('timeout', () => asked.destroy(new Error('no answer')))
      asked.on('error', (error: NodeJS.ErrnoException) => done(0, false, error.code ?? error.message))
      asked.end(call.body)
    })
  }

  close(): void {
    this.#agent.destroy()
  }
}
