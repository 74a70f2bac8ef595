/** A whole reconciliation, ids and numbers first, and one that goes on while whoever asked for it asks again. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from '../clickhouse/store.ts'
import type { WriteLock } from '../clickhouse/writer-lease.ts'
import type { Names } from '../ids/dictionary.ts'
import type { Seals } from './compaction.ts'
import { reconcile, type ReconcileOptions, type Reconciliation } from './reconcile.ts'
import { reconcileIds, type IdentityReport } from './reconcile-ids.ts'

export type Reconciled = Reconciliation & IdentityReport

export interface ReconcileDeps {
  readonly store: Store
  readonly seals: Seals
  readonly names: Names
  readonly exclusive: WriteLock
}

/** Repairs of ids and numbers change the log, so the rollups are compared afterwards with what it says then. */
export async function reconcileAll(
  { store, seals, names, exclusive }: ReconcileDeps,
  options: ReconcileOptions,
): Promise<Reconciled> {
  const ids = await reconcileIds(store, seals, names, exclusive, options)
  return { ...(await reconcile(store, seals, exclusive, options)), ...ids }
}

/** Shorter than what proxies (60 s) and connections of this service (100 s) wait in silence. */
const PATIENCE_MS = 50_000
/** So long a result is kept for whoever asked for it. */
const KEPT_MS = 600_000

interface Job {
  readonly key: string
  readonly result: Promise<Reconciled>
  /** On the monotonic clock; Infinity while it runs. */
  endedAt: number
}

/** One reconciliation at a time. */
export class ReconcileJobs {
  readonly #run: (options: ReconcileOptions) => Promise<Reconciled>
  readonly #patienceMs: number
  #job: Job | undefined

  constructor(run: (options: ReconcileOptions) => Promise<Reconciled>, patienceMs = PATIENCE_MS) {
    this.#run = run
    this.#patienceMs = patienceMs
  }

  /**
   * Starts a reconciliation, or waits for the one that was asked for with the same `key` before. Its result, or its
   * failure, is given out once.
   * @returns 'running' where it takes longer than a request may: ask again; 'busy' where another one runs
   */
  async ask(key: string, options: ReconcileOptions): Promise<Reconciled | 'running' | 'busy'> {
    if (this.#job && performance.now() - this.#job.endedAt > KEPT_MS) this.#job = undefined
    if (this.#job && this.#job.key !== key) {
      if (this.#job.endedAt === Infinity) return 'busy'
      this.#job = undefined
    }
    this.#job ??= this.#start(key, options)
    const job = this.#job
    const result = await Promise.race([job.result, sleep(this.#patienceMs, 'running' as const, { ref: false })]).finally(() => {
      if (job.endedAt < Infinity && this.#job === job) this.#job = undefined
    })
    return result
  }

  #start(key: string, options: ReconcileOptions): Job {
    const job: Job = { key, result: this.#run(options), endedAt: Infinity }
    const ended = () => void (job.endedAt = performance.now())
    job.result.then(ended, ended)
    return job
  }
}
