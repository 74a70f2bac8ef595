import { setTimeout as sleep } from 'node:timers/promises'

/** How long background work may keep a service from ending; what takes longer fails when the store is closed. */
const SETTLE_MS = 2_000

/** What a service has opened and started, so that all of it can be undone. */
export class Resources {
  readonly #undo: Array<() => unknown> = []
  readonly #running: Promise<unknown>[] = []

  /** @param undo called by `close`, after those that are added later */
  add(undo: () => unknown): void {
    this.#undo.push(undo)
  }

  /**
   * Background work, which `settled` waits for.
   * @param work must end by itself when what it needs is undone, and never rejects
   */
  run(work: Promise<unknown>): void {
    this.#running.push(work)
  }

  /** Calls `work` again and again until `close`; `work` must not reject. */
  every(ms: number, work: () => Promise<unknown>): void {
    const timer = setInterval(() => void work(), ms).unref()
    this.add(() => clearInterval(timer))
  }

  /** Resolves when all background work has ended, or after SETTLE_MS. */
  async settled(): Promise<void> {
    const ended = new AbortController()
    const patience = sleep(SETTLE_MS, undefined, { ref: false, signal: ended.signal }).catch(() => {})
    await Promise.race([Promise.all(this.#running), patience])
    ended.abort()
  }

  /**
   * Undoes everything in reverse, one after the other; what fails does not keep the rest from being undone.
   * @throws the first error
   */
  async close(): Promise<void> {
    const errors: unknown[] = []
    for (let undo = this.#undo.pop(); undo; undo = this.#undo.pop()) {
      try {
        await undo()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }
}
