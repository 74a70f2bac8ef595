import type { Store } from '../clickhouse/store.ts'
import type { WriteLock } from '../clickhouse/writer-lease.ts'
import type { Log } from '../log.ts'
import type { Rebuilds } from './backfill.ts'
import type { Seals } from './compaction.ts'
import { reconcile } from './reconcile.ts'
import type { Retention } from './retention.ts'

export interface SelfCheckOptions {
  readonly store: Store
  readonly seals: Seals
  readonly rebuilds: Rebuilds
  readonly retention: Retention
  readonly exclusive: WriteLock
  /** Epoch milliseconds. */
  readonly clock: () => number
  readonly log: Log
}

/** The self-check compares this much; older days were compared when they were young. */
const SELF_CHECK_MS = 2 * 86_400_000

/** Compares the last days with the raw log every so often; the result is part of /health/ready. */
export class SelfCheck {
  readonly #options: SelfCheckOptions
  #timer: NodeJS.Timeout | undefined
  /** Drifted days found last time, and when that was (epoch milliseconds); null before the first check. */
  last: { drift: number; at: number } | null = null
  /** Checks that could not be done. */
  failures = 0

  constructor(options: SelfCheckOptions) {
    this.#options = options
  }

  /** @param minutes between two checks; 0 switches them off */
  start(minutes: number): void {
    if (minutes > 0) this.#timer = setInterval(() => void this.run(), minutes * 60_000).unref()
  }

  async run(): Promise<void> {
    const { store, seals, rebuilds, retention, exclusive, clock, log } = this.#options
    // Skip during a backfill: an incomplete rollup would be reported as drift.
    if (rebuilds.pending.size > 0) return
    try {
      const now = clock()
      const range = { from: now - SELF_CHECK_MS, to: now, repair: false, horizon: retention.horizon }
      const { drift } = await reconcile(store, seals, exclusive, range)
      this.last = { drift: drift.length, at: now }
      if (drift.length > 0) log('error', 'rollups differ from the raw log: run npm run reconcile', { days: drift.length })
    } catch (error) {
      this.failures++
      log('warn', 'the self-check failed', { error: String(error) })
    }
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}
