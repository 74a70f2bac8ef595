/**
 * Answers that are still right, kept so that a polling dashboard costs ClickHouse nothing.
 *
 * An answer is dropped when an event of its tenant is stored inside the range it covers, and expires soon where it
 * depends on the present. A question that is asked while the same one is under way shares its answer, unless something
 * was stored in between: whoever has seen a write acknowledged sees it in every later answer.
 */
import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Range } from '../domain/time-range.ts'
import type { TenantKey } from '../domain/tenant.ts'

export interface Kept {
  readonly body: string
  /** Strong validator, quoted as in the header. */
  readonly etag: string
}

interface Entry extends Kept {
  readonly tenant: TenantKey
  readonly covers: Range
  readonly expires: number
}

interface Flight {
  readonly version: number
  readonly answer: Promise<Kept>
  readonly controller: AbortController
  /** Callers that still want the answer; when the last one goes, the work is cancelled. */
  waiting: number
}

/** An answer about a range that has not ended is at most this old. */
const OPEN_MS = 1_000

export class AnswerCache {
  readonly #entries: LRUCache<string, Entry> | null
  readonly #byTenant = new Map<TenantKey, Set<string>>()
  readonly #flights = new Map<string, Flight>()
  /** Counts the commits of each tenant. */
  readonly #versions = new Map<TenantKey, number>()
  /** Counts what changed the answers of all tenants; part of each one's version. */
  #all = 0
  readonly #maxAgeMs: number
  /** Since the start: answers that were kept, that somebody else was waiting for already, and that had to be found. */
  hits = 0
  shared = 0
  misses = 0

  /**
   * @param megabytes 0 switches keeping off; sharing what is under way stays on
   * @param maxAgeMs how long an answer may be kept where another instance of the service may write unseen
   */
  constructor(megabytes: number, maxAgeMs = Infinity) {
    this.#maxAgeMs = maxAgeMs
    this.#entries =
      megabytes === 0
        ? null
        : new LRUCache<string, Entry>({
            maxSize: megabytes * 1_048_576,
            // Text of Latin characters takes a byte each; the rest is the entry and its key.
            sizeCalculation: ({ body }, key) => body.length + 2 * key.length + 200,
            dispose: ({ tenant }, key) => this.#byTenant.get(tenant)?.delete(key),
          })
  }

  /** Answers kept, and the bytes that they take by estimate. */
  get size(): { entries: number; bytes: number } {
    return { entries: this.#entries?.size ?? 0, bytes: this.#entries?.calculatedSize ?? 0 }
  }

  /** @param key names the tenant, what its token may see, and the question */
  get(key: string, now: number): Kept | undefined {
    const entry = this.#entries?.get(key)
    if (!entry) return undefined
    if (entry.expires <= now) {
      this.#entries?.delete(key)
      return undefined
    }
    this.hits++
    return entry
  }

  /**
   * Finds the answer, once for all who ask at the same time. What was stored before this call is in it, so whatever
   * else the answer depends on (numbers of names) has to be looked up by `find`.
   * @param caller aborted when this caller goes away
   * @param find gives the body and the range that it depends on; its signal is aborted when every caller is gone
   */
  async find(
    key: string,
    tenant: TenantKey,
    now: number,
    caller: AbortSignal,
    find: (signal: AbortSignal) => Promise<{ body: string; covers: Range }>,
  ): Promise<Kept> {
    const version = this.#versionOf(tenant)
    const shared = this.#flights.get(key)
    const flight =
      shared?.version === version && !shared.controller.signal.aborted ? shared : this.#start(key, tenant, version, now, find)
    if (flight === shared) this.shared++
    else this.misses++
    flight.waiting++
    const leave = () => {
      if (--flight.waiting === 0) flight.controller.abort()
    }
    caller.addEventListener('abort', leave, { once: true })
    if (caller.aborted) leave()
    try {
      return await flight.answer
    } finally {
      caller.removeEventListener('abort', leave)
    }
  }

  #start(
    key: string,
    tenant: TenantKey,
    version: number,
    now: number,
    find: (signal: AbortSignal) => Promise<{ body: string; covers: Range }>,
  ): Flight {
    const controller = new AbortController()
    const answer = find(controller.signal)
      .then(({ body, covers }) => {
        const kept = { body, etag: `"${createHash('sha1').update(body).digest('base64url')}"` }
        if (this.#versionOf(tenant) === version) {
          this.#keep(key, { ...kept, tenant, covers, expires: this.#expiry(covers, now) })
        }
        return kept
      })
      .finally(() => {
        if (this.#flights.get(key)?.controller === controller) this.#flights.delete(key)
      })
    const flight = { version, answer, controller, waiting: 0 }
    this.#flights.set(key, flight)
    return flight
  }

  /** Drops what the stored events touch. Call it before the write is acknowledged. */
  stored(tenant: TenantKey, timestamps: readonly number[]): void {
    this.#versions.set(tenant, (this.#versions.get(tenant) ?? 0) + 1)
    const keys = this.#byTenant.get(tenant)
    if (!keys || keys.size === 0 || !this.#entries) return
    const sorted = [...timestamps].sort((a, b) => a - b)
    for (const key of keys) {
      const entry = this.#entries.peek(key)
      if (!entry || touches(sorted, entry.covers)) this.#entries.delete(key)
    }
  }

  /** Drops every answer, also what is under way. */
  forgetAll(): void {
    this.#all++
    this.#entries?.clear()
  }

  /** Drops every answer of a tenant, also what is under way. */
  forget(tenant: TenantKey): void {
    this.#versions.set(tenant, (this.#versions.get(tenant) ?? 0) + 1)
    for (const key of this.#byTenant.get(tenant) ?? []) this.#entries?.delete(key)
  }

  #versionOf(tenant: TenantKey): number {
    return (this.#versions.get(tenant) ?? 0) + this.#all
  }

  #keep(key: string, entry: Entry): void {
    if (!this.#entries) return
    this.#entries.set(key, entry)
    // One that is larger than the whole cache is not in it.
    if (!this.#entries.has(key)) return
    const keys = this.#byTenant.get(entry.tenant) ?? new Set()
    keys.add(key)
    this.#byTenant.set(entry.tenant, keys)
  }

  #expiry(covers: Range, now: number): number {
    return now + Math.min(covers.to > now ? OPEN_MS : Infinity, this.#maxAgeMs)
  }
}

/** Whether one of the ascending timestamps lies in the range. */
function touches(sorted: readonly number[], { from, to }: Range): boolean {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] as number) < from) low = middle + 1
    else high = middle
  }
  return low < sorted.length && (sorted[low] as number) < to
}
