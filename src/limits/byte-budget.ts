import { unavailable } from '../domain/errors.ts'

/** A bounded resource: what does not fit is refused at once, so that memory stays bounded under any load. */
export class Budget {
  readonly #size: number
  #left: number
  /** How often something did not fit. */
  refused = 0

  constructor(size: number) {
    this.#size = size
    this.#left = size
  }

  get taken(): number {
    return this.#size - this.#left
  }

  take(amount: number): void {
    if (amount > this.#left) {
      this.refused++
      throw unavailable('Too many events are waiting to be stored.', 1)
    }
    this.#left -= amount
  }

  give(amount: number): void {
    this.#left += amount
  }
}
