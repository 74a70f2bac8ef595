/** Numbers of names: given out one after the other, and written before anything uses them. */
import { randomUUID } from 'node:crypto'
import type { Store } from '../clickhouse/store.ts'
import type { TenantKey } from '../domain/tenant.ts'
import type { NameKind, Names } from './dictionary.ts'
import type { Inserts } from '../ingest/insert.ts'

export class Numbers {
  readonly #store: Store
  readonly #names: Names
  readonly #inserts: Inserts
  /** Highest number given out, by tenant and kind. */
  readonly #last = new Map<string, number>()

  constructor(store: Store, names: Names, inserts: Inserts) {
    this.#store = store
    this.#names = names
    this.#inserts = inserts
  }

  /** Forgets what was given out last: another instance may have gone on from there. */
  forget(): void {
    this.#last.clear()
  }

  /** The number of each name; names seen for the first time get the next ones. Only within a turn of the lane. */
  async of(tenant: TenantKey, kind: NameKind, all: readonly string[]): Promise<Map<string, number>> {
    const result = new Map<string, number>()
    const unknown: string[] = []
    for (const name of all) {
      if (result.has(name)) continue
      const number = this.#names.known(tenant, kind, name)
      result.set(name, number ?? 0)
      if (number === undefined) unknown.push(name)
    }
    const fresh: string[] = []
    const numbers = await this.#names.numbers(tenant, kind, unknown)
    unknown.forEach((name, i) => (numbers[i] ? result.set(name, numbers[i]) : fresh.push(name)))
    if (fresh.length > 0) {
      const counter = `${tenant}/${kind}`
      let last = this.#last.get(counter)
      if (last === undefined) {
        const [row] = await this.#store.readInternal<{ last: number }>(
          'names_last',
          // Nor is the number of somebody who was removed used again.
          `SELECT greatest((SELECT max(number) FROM names WHERE tenant = {tenant:UUID} AND kind = {kind:String}),
             (SELECT max(user_no) FROM removals WHERE tenant = {tenant:UUID} AND {kind:String} = 'user')) AS last`,
          { tenant, kind },
        )
        last = row?.last ?? 0
      }
      const first = last + 1
      // Numbers of a failed insert are not used again: it may have been written after all.
      this.#last.set(counter, last + fresh.length)
      await this.#inserts.send({
        token: randomUUID(),
        table: 'names',
        columns: ['tenant', 'kind', 'name', 'number'],
        rows: fresh.map((name, i) => JSON.stringify([tenant, kind, name, first + i])).join('\n'),
      })
      fresh.forEach((name, i) => {
        this.#names.remember(tenant, kind, name, first + i)
        result.set(name, first + i)
      })
    }
    return result
  }
}
