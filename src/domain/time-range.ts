/** Ranges of time. */
import type { Instant } from '../time/instant.ts'

/** A half-open range of instants, epoch milliseconds. */
export interface Range {
  readonly from: Instant
  readonly to: Instant
}
