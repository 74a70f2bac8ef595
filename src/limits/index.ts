import type { ExportSlots } from './export-slots.ts'
import type { QuerySlots } from './query-slots.ts'
import type { RequestRate } from './request-rate.ts'

/** How much each tenant, and all of them together, may ask at once. */
export interface Limits {
  readonly rate: RequestRate
  readonly slots: QuerySlots
  readonly exports: ExportSlots
}
