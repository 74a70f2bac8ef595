/**
 * Parts of rollups that cannot be read, as after a bad sector. What is in them can be made again from the log, so they are
 * set aside, and the rollup is repaired (backfill.ts) while questions read the log in its place.
 *
 * In this order, so that nobody adds up a rollup with a part missing:
 *   1. under the writer lease, a row that asks for the repair: from here on this instance does not read the rollup, and the
 *      others do not from when they next look, a few seconds later;
 *   2. under the lease, the part is detached;
 *   3. the rollup is compared with the log, and what differs is written again; then the parts set aside are deleted.
 * ClickHouse sets parts aside by itself, when it starts and cannot load them. Those are found by `look`.
 */
import type { ClickHouseError } from '@clickhouse/client'
import { setTimeout as sleep } from 'node:timers/promises'
import { isBrokenPart } from '../clickhouse/errors.ts'
import type { Store } from '../clickhouse/store.ts'
import type { WriteLock } from '../clickhouse/writer-lease.ts'
import type { Log } from '../log.ts'
import type { RollupTable } from '../rollups/granularities.ts'
import type { Instant } from '../time/instant.ts'
import type { Rebuilds } from './backfill.ts'
import type { Seals } from './compaction.ts'

const ROLLUPS: readonly RollupTable[] = ['activity', 'user_activity']
/** Lists that are made again when a question wants them: as a whole, since an old list must not come back for a new one. */
const LISTS = 'user_ranks'

/** What a restart of ClickHouse mends, it mends at once: between two there is a minute, then two, up to an hour. */
const RETRY_MS = { first: 60_000, max: 3_600_000 }
const LOOK_MS = 200
/** A query that fails may be one of many that read the same part. */
const AGAIN_MS = 2_000

export interface BrokenPartsOptions {
  readonly store: Store
  readonly rebuilds: Rebuilds
  readonly seals: Seals
  readonly exclusive: WriteLock
  readonly log: Log
  /** Epoch milliseconds: nothing of before is kept. */
  readonly horizon: () => Instant
  /**
   * After so many milliseconds nobody reads a rollup any more that is not to be read: other instances know it then, and what
   * began to be answered before has ended.
   */
  readonly settleMs: number
  /** Starts ClickHouse again, where it is the service's own. */
  readonly restart?: (() => void) | undefined
}

export class BrokenParts {
  readonly #options: BrokenPartsOptions
  #healing: Promise<number> | undefined
  /** Tables and names of parts that were detached. */
  readonly #setAside = new Set<string>()
  /** No part is looked for before. */
  #nextAt = -Infinity
  #retryMs = RETRY_MS.first
  #stopped = false

  constructor(options: BrokenPartsOptions) {
    this.#options = options
  }

  stop(): void {
    this.#stopped = true
  }

  /**
   * Called with the error of a query that could not read a part: heals a rollup, without being waited for. A part of another
   * table cannot be made again; ClickHouse is started again then, where it is the service's own, since the parts that one
   * was merged from are still there for 8 minutes.
   */
  noticed(error: ClickHouseError): void {
    const now = performance.now()
    if (this.#stopped || this.#healing || now < this.#nextAt) return
    this.#nextAt = now + AGAIN_MS
    const table = /\bin table \w+\.(\w+)/.exec(error.message)?.[1]
    const isDerived = table === undefined || table === LISTS || ROLLUPS.some((rollup) => rollup === table)
    void this.#mend(isDerived)
  }

  async #mend(isDerived: boolean): Promise<void> {
    const { restart, log } = this.#options
    try {
      if (isDerived && (await this.heal()) > 0) return
      if (this.#stopped) return
      // Neither a check of the rollups nor a restart is cheap.
      const now = performance.now()
      if (now - this.#nextAt > RETRY_MS.max) this.#retryMs = RETRY_MS.first
      this.#nextAt = now + this.#retryMs
      this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS.max)
      if (!restart)
        return log(
          'error',
          'ClickHouse has a part that cannot be read, of a table that cannot be made again from others: see its log',
        )
      log('error', 'ClickHouse has a part that cannot be read: it is started again, to return to those it was merged from')
      restart()
    } catch (error) {
      log('error', 'a part that cannot be read could not be set aside yet', { error: String((error as Error).cause ?? error) })
    }
  }

  /**
   * Reads all parts of the rollups, sets those aside that are broken, and begins the repair, without waiting for its end.
   * @returns how many were set aside
   * @throws where ClickHouse is out of reach or the parts cannot be detached
   */
  heal(): Promise<number> {
    this.#healing ??= this.#heal().finally(() => (this.#healing = undefined))
    return this.#healing
  }

  async #heal(): Promise<number> {
    const { store, rebuilds, exclusive, log, settleMs } = this.#options
    // Which server has the part cannot be said in SQL, and a replica fetches it from another one by itself.
    if (store.isClustered) return 0
    let count = 0
    if ((await this.#brokenParts(LISTS)).length > 0) {
      await exclusive(() => store.admin.command({ query: `TRUNCATE TABLE ${LISTS}` }))
      log('error', `${LISTS} had a part that cannot be read: its lists are made again when they are asked for`)
      count++
    }
    const broken = new Map<RollupTable, string[]>()
    for (const rollup of ROLLUPS) {
      const parts = await this.#brokenParts(rollup)
      if (parts.length > 0) broken.set(rollup, parts)
    }
    if (broken.size === 0) return count
    await exclusive(async () => {
      for (const rollup of broken.keys()) await rebuilds.request(rollup)
    })
    await sleep(settleMs)
    await exclusive(async () => {
      for (const [rollup, parts] of broken) {
        for (const part of parts) {
          const [there] = await store.adminRows<{ rows: string; bytes: string }>(
            `SELECT rows, bytes_on_disk AS bytes FROM system.parts
             WHERE active AND database = currentDatabase() AND table = {rollup:String} AND name = {part:String}`,
            { rollup, part },
          )
          // A merge may have been able to read it after all.
          if (!there) continue
          await store.admin.command({ query: `ALTER TABLE ${rollup} DETACH PART '${part}'` })
          this.#setAside.add(`${rollup} ${part}`)
          log('error', 'a part of a rollup cannot be read: it was set aside, and the rollup is repaired from the log', {
            rollup,
            part,
            ...there,
          })
        }
      }
    })
    this.#repair()
    return count + [...broken.values()].flat().length
  }

  /** The active parts of a table that differ from their checksums. */
  async #brokenParts(table: string): Promise<string[]> {
    const { store } = this.#options
    const parts = await store.adminRows<{ name: string }>(
      `SELECT name FROM system.parts WHERE active AND database = currentDatabase() AND table = {table:String} ORDER BY name`,
      { table },
    )
    const broken: string[] = []
    for (const { name } of parts) {
      try {
        const rows = await store.adminRows<{ is_passed: number }>(
          `CHECK TABLE ${table} PART '${name}' SETTINGS check_query_single_value_result = 0, max_execution_time = 0`,
        )
        if (rows.some(({ is_passed }) => is_passed === 0)) broken.push(name)
      } catch (error) {
        if (isBrokenPart(error)) broken.push(name)
        // 232: it was merged meanwhile.
        else if ((error as ClickHouseError).code !== '232') throw error
      }
    }
    return broken
  }

  /**
   * Looks for parts of rollups that ClickHouse set aside by itself when it started, and asks for the repair of what is
   * missing. Nothing may read the rollups before.
   */
  async look(): Promise<void> {
    const { store, rebuilds, exclusive, log } = this.#options
    if (store.isClustered) return
    const lost = (await this.#detached()).filter(({ reason }) => reason.startsWith('broken'))
    if (lost.length === 0) return
    await exclusive(async () => {
      for (const rollup of new Set(lost.map(({ table }) => table))) await rebuilds.request(rollup)
    })
    for (const { table, name } of lost) {
      log('error', 'ClickHouse could not load a part of a rollup: the rollup is repaired from the log', {
        rollup: table,
        part: name,
      })
    }
    this.#repair()
  }

  /** `look`, again and again until ClickHouse answers or the service is stopped. */
  async lookUntilDone(): Promise<void> {
    while (!this.#stopped) {
      try {
        return await this.look()
      } catch {
        await sleep(LOOK_MS, undefined, { ref: false })
      }
    }
  }

  /**
   * Runs work that reads rollups, such as a reconciliation, and once more where it met a part that cannot be read and that
   * could be set aside.
   */
  async healing<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (!isBrokenPart(error) || (await this.heal()) === 0) throw error
      return work()
    }
  }

  #detached() {
    return this.#options.store.adminRows<{ table: RollupTable; name: string; reason: string }>(
      `SELECT table, name, reason FROM system.detached_parts
       WHERE database = currentDatabase() AND table IN {rollups:Array(String)} AND (reason = '' OR startsWith(reason, 'broken'))`,
      { rollups: ROLLUPS },
    )
  }

  /** Beside everything else. What is not done at the end of the service is done by the next one. */
  #repair(): void {
    const { store, rebuilds, seals, exclusive, horizon, log } = this.#options
    const dropDetached = async () => {
      if (rebuilds.pending.size > 0 || this.#stopped) return
      for (const { table, name, reason } of await this.#detached()) {
        // What an operator has detached stays.
        if (reason === '' && !this.#setAside.has(`${table} ${name}`)) continue
        await store.admin.command({ query: `ALTER TABLE ${table} DROP DETACHED PART '${name}' SETTINGS allow_drop_detached = 1` })
      }
    }
    rebuilds
      .run(seals, exclusive, horizon)
      .then(dropDetached)
      .catch((error: unknown) => {
        log('warn', 'parts that were set aside could not be deleted: the next start repairs once more', { error: String(error) })
      })
  }
}
