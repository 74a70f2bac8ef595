/**
 * Watches the disk under the embedded ClickHouse, because ClickHouse does not notice that it is full.
 *
 * Where write(2) fails with ENOSPC, ClickHouse 26.7 goes on (seen with strace): the part is put in its place with empty
 * files, the insert is acknowledged or the merge is done, and no error is in any log. The rows are there until the part is
 * read from disk. A start sets it aside: then those of an insert are gone, and those of a merge come back, from the parts
 * that it was made of, which ClickHouse keeps for 8 minutes. fsync makes no difference.
 *
 * So ClickHouse keeps some space free (`KEPT_FREE_BYTES`): what it writes is refused before it fills the disk. That leaves
 * others, who fill it while something is being written. Once the disk was seen to be low, nothing counts as written until
 * ClickHouse was started again, with space to write in: what is missing then is seen to be missing, and is sent again.
 */
import { statfsSync } from 'node:fs'

/** What ClickHouse leaves free (`keep_free_space_bytes`): with less, inserts and merges are refused. */
export const KEPT_FREE_BYTES = 64 * 2 ** 20
/** With less than this, more was taken than ClickHouse takes: half of it is for what is small and not reserved. */
const LOW_BYTES = KEPT_FREE_BYTES / 2
const LOOK_MS = 100
/** A merge that went wrong is undone by a start within 8 minutes: on a disk that stays full, it comes after so long. */
const LONGEST_LOW_MS = 300_000

/** The disk was full, and what was just written may have been cut off. */
export class DiskFullError extends Error {
  override name = 'DiskFullError'
}

export interface DiskWatchOptions {
  /** Bytes that are free. */
  readonly free: () => number
  /** Ends ClickHouse and starts it again; `starting` is called when the new one is on its way. */
  readonly restart: () => void
  readonly log: (message: string) => void
  /** Milliseconds, of any origin. */
  readonly clock?: () => number
}

export class DiskWatch {
  readonly #options: DiskWatchOptions
  readonly #clock: () => number
  #low = false
  #lowSince = 0
  /** How often the disk has become low. */
  #times = 0
  /** Whether it was low since ClickHouse was started last. */
  #doubtful = false
  #restarting = false
  readonly #timer: NodeJS.Timeout

  constructor(options: DiskWatchOptions) {
    this.#options = options
    this.#clock = options.clock ?? (() => performance.now())
    this.#timer = setInterval(() => this.look(), LOOK_MS).unref()
  }

  look(): void {
    const free = this.#options.free()
    if (free < LOW_BYTES && !this.#low) {
      this.#low = true
      this.#lowSince = this.#clock()
      this.#times++
      this.#doubtful = true
      this.#options.log(`the disk is full: nothing is stored while less than ${KEPT_FREE_BYTES / 2 ** 20} MiB are free`)
    } else if (free >= KEPT_FREE_BYTES) this.#low = false
    const over = !this.#low || this.#clock() - this.#lowSince > LONGEST_LOW_MS
    if (this.#doubtful && over && !this.#restarting) {
      this.#restarting = true
      this.#options.log('the disk was full: ClickHouse is started again, to look at what it has written')
      this.#options.restart()
    }
  }

  /**
   * Whether what ClickHouse has said so far can be relied on.
   * @throws DiskFullError where it cannot
   */
  settled(): void {
    this.look()
    if (this.#doubtful) throw new DiskFullError('the disk was full, and what was written may be cut off')
  }

  /**
   * To be called when ClickHouse is being started, for whatever reason.
   * @returns to be called when it answers
   */
  starting(): () => void {
    const times = this.#times
    return () => {
      this.#restarting = false
      // What it wrote itself since may be cut off too.
      if (this.#times === times) this.#doubtful = false
    }
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}

/** Bytes that are free for this process on the disk of a directory; Infinity where the system does not say. */
export function freeBytes(directory: string): number {
  try {
    const { bavail, bsize } = statfsSync(directory)
    return bavail * bsize
  } catch {
    return Infinity
  }
}
