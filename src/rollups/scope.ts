/** Whose events a question is about, and which rows may answer it. */
import type { Asker } from '../clickhouse/store.ts'
import type { Instant } from '../time/instant.ts'
import type { RollupTable } from './granularities.ts'
import type { SealedUntil } from './state.ts'

/**
 * What a question is about: a tenant's whole fleet, or some of its assistants, or some of its users, or both. Numbers are
 * those of the names table; 0 stands for a name nobody has written, which matches nothing.
 */
export interface Scope extends Asker {
  readonly assistants: readonly number[] | null
  readonly users: readonly number[] | null
  /** About how many users the tenant has (src/ids/dictionary.ts). */
  readonly userCount: number
  readonly sealedUntil: SealedUntil
  /** Rollups that are not complete: the raw log is read in their place. */
  readonly pending: ReadonlySet<RollupTable>
  /** Nothing of before is kept (src/maintenance/retention.ts), and spans that begin before it are not whole. */
  readonly horizon: Instant
}
