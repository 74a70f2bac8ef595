/** How many exports may be sent at once: each holds a connection to ClickHouse for as long as its reader takes. */
import { refusal } from './refusal.ts'

/** Exports of all tenants at once. */
export const MAX_EXPORTS = 32

export class ExportSlots {
  readonly #perTenant: number
  /** Exports that are being sent, by tenant. */
  readonly #open = new Map<string, number>()
  /** Exports that are being sent, of all tenants. */
  total = 0
  /** Exports turned away since the start. */
  refused = 0

  constructor(perTenant: number) {
    this.#perTenant = perTenant
  }

  /**
   * Begins an export. Only its first rows take a place of the tenant, as its length is up to whoever reads it; so the
   * number of open ones is limited on its own.
   * @returns to be called when it is over; more than once does no harm
   * @throws ApiError 429, or 503 where too many of all tenants are
   */
  open(tenant: string): () => void {
    const taken = this.#open.get(tenant) ?? 0
    if (taken >= this.#perTenant || this.total >= MAX_EXPORTS) this.refused++
    if (taken >= this.#perTenant) throw refusal(429, 'Too many exports are being sent to this tenant.')
    if (this.total >= MAX_EXPORTS) throw refusal(503, 'Too many exports are being sent right now.')
    this.#open.set(tenant, taken + 1)
    this.total++
    let closed = false
    return () => {
      if (closed) return
      closed = true
      this.total--
      const left = (this.#open.get(tenant) ?? 1) - 1
      if (left > 0) this.#open.set(tenant, left)
      else this.#open.delete(tenant)
    }
  }
}
