/** Answers kept under an Idempotency-Key (clickhouse/006_answers.sql), so that a repeated request gets the same one. */
import * as v from 'valibot'
import { LRUCache } from 'lru-cache'
import type { Store } from '../clickhouse/store.ts'
import { tenantSql } from '../clickhouse/tenant-filter.ts'
import { ApiError } from '../domain/errors.ts'
import { tenantKey } from '../domain/tenant.ts'
import type { Receipt } from './deduplicate.ts'

interface Kept {
  body: string
  answer: Receipt
}

export class Answers {
  readonly #store: Store
  readonly #recent = new LRUCache<string, Kept>({ max: 10_000 })
  readonly #running = new Set<string>()

  constructor(store: Store) {
    this.#store = store
  }

  /**
   * Runs `work` unless the key was used before; then gives the answer of that time.
   * @param body hex SHA-256 of the request body
   * @param work stores the events and, in the same step, what `answer` says
   * @throws ApiError 422 where the key belongs to another body, 409 while the first request is still under way
   */
  async once(
    tenant: string,
    key: string,
    body: string,
    work: (answer: { key: string; body: string }) => Promise<Receipt>,
  ): Promise<Receipt> {
    const name = `${tenant}\0${key}`
    if (this.#running.has(name)) {
      throw new ApiError(409, 'in_progress', 'A request with this Idempotency-Key is still under way.', {
        headers: { 'Retry-After': '1' },
      })
    }
    this.#running.add(name)
    try {
      const kept = this.#recent.get(name) ?? (await this.#stored(tenant, key))
      if (kept) {
        if (kept.body !== body) {
          throw new ApiError(422, 'key_reused', 'This Idempotency-Key was used with another body.')
        }
        return kept.answer
      }
      const answer = await work({ key, body })
      this.#recent.set(name, { body, answer })
      return answer
    } finally {
      this.#running.delete(name)
    }
  }

  async #stored(tenantName: string, key: string): Promise<Kept | undefined> {
    const rows = await this.#store.read({ tenant: tenantKey(tenantName) }, answerByKey(key))
    return rows[0] && { body: rows[0].body, answer: JSON.parse(rows[0].answer) as Receipt }
  }
}

const answerByKey = (key: string) => ({
  name: 'answer_by_key',
  sql: tenantSql(`SELECT body, answer FROM answers WHERE tenant = {tenant:UUID} AND key = {key:String} LIMIT 1`),
  params: { key },
  row: v.strictObject({
    /** SHA-256 of the request's body, hexadecimal. */
    body: v.string(),
    /** JSON */
    answer: v.string(),
  }),
})
