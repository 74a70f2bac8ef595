/**
 * Numbers of names: given out one after the other, and written before anything uses them.
 *
 * A number belongs to one name by construction: names that are new are written as one block whose deduplication token is
 * the first of their numbers, so of several instances that would give out the same numbers one succeeds, and the others
 * read what it wrote. Nothing here depends on who holds the writer lease.
 */
import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from '../clickhouse/store.ts'
import { ARRIVED_IN_TIME, isRefusedByLease, LeaseLostError, type Term } from '../clickhouse/writer-lease.ts'
import type { TenantKey } from '../domain/tenant.ts'
import type { NameKind, Names } from './dictionary.ts'

/** The end of the lease bounds how late the names may arrive: tokens are kept for the last 10,000 inserts. */
const INSERT_NAMES = `INSERT INTO names (tenant, kind, name, number)
SELECT tenant, kind, name, number
FROM input('tenant UUID, kind Enum8(''assistant'' = 1, ''user'' = 2), name String, number UInt32')
WHERE ${ARRIVED_IN_TIME}
FORMAT JSONCompactEachRow`

/** A token whose names are not there after so long belongs to an insert of a server that was killed while it stored it. */
const LOST_TOKEN_MS = 3_000

export class Numbers {
  readonly #store: Store
  readonly #names: Names

  constructor(store: Store, names: Names) {
    this.#store = store
    this.#names = names
  }

  /**
   * The number of each name; names seen for the first time get the next ones.
   * @param term of the writer lease; bounds how long the insert of new names may take to arrive
   * @throws LeaseLostError where it took longer; no number was given out then
   */
  async of(tenant: TenantKey, kind: NameKind, all: readonly string[], term: () => Promise<Term>): Promise<Map<string, number>> {
    const result = new Map<string, number>()
    const unknown: string[] = []
    for (const name of all) {
      if (result.has(name)) continue
      const number = this.#names.known(tenant, kind, name)
      result.set(name, number ?? 0)
      if (number === undefined) unknown.push(name)
    }
    let skip = 0
    let refusedSince = Infinity
    for (let missing = unknown, inserted = false; missing.length > 0; inserted = true) {
      const fresh: string[] = []
      const numbers = await this.#names.numbers(tenant, kind, missing)
      missing.forEach((name, at) => (numbers[at] ? result.set(name, numbers[at]) : fresh.push(name)))
      if (fresh.length === 0) break
      const first = Math.max(await this.#last(tenant, kind), skip) + 1
      if (!inserted || fresh.length < missing.length) refusedSince = Infinity
      else {
        // Somebody else's insert has the token, and its names are not to be seen yet, or never.
        refusedSince = Math.min(refusedSince, performance.now())
        if (performance.now() - refusedSince > LOST_TOKEN_MS) skip = first
        else await sleep(50)
      }
      await this.#insert(tenant, kind, Math.max(first, skip + 1), fresh, await term())
      missing = fresh
    }
    return result
  }

  async #last(tenant: TenantKey, kind: NameKind): Promise<number> {
    const [row] = await this.#store.readInternal<{ last: number }>(
      'names_last',
      // Nor is the number of somebody who was removed used again.
      `SELECT greatest((SELECT max(number) FROM names WHERE tenant = {tenant:UUID} AND kind = {kind:String}),
         (SELECT max(user_no) FROM removals WHERE tenant = {tenant:UUID} AND {kind:String} = 'user')) AS last`,
      { tenant, kind },
    )
    return row?.last ?? 0
  }

  async #insert(tenant: TenantKey, kind: NameKind, first: number, names: readonly string[], { until }: Term): Promise<void> {
    const rows = names.map((name, at) => JSON.stringify([tenant, kind, name, first + at])).join('\n')
    try {
      const result = await this.#store.writer.exec({
        query: INSERT_NAMES,
        values: Readable.from([Buffer.from(rows)], { objectMode: false }),
        query_id: `insert_names-${randomUUID()}`,
        query_params: { until },
        clickhouse_settings: {
          async_insert: 0,
          insert_deduplicate: 1,
          insert_deduplication_token: `${tenant}/${kind}/${first}`,
          max_block_size: '1048576',
          max_insert_block_size: '1048576',
          min_insert_block_size_rows: '1048576',
          min_insert_block_size_bytes: '1073741824',
          input_format_parallel_parsing: 0,
          max_execution_time: 10,
          wait_end_of_query: 1,
        },
      })
      result.stream.resume()
    } catch (error) {
      if (isRefusedByLease(error)) throw new LeaseLostError('the writer lease was over when the names arrived', { cause: error })
      throw error
    }
  }
}
