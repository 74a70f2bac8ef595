/**
 * Watches the disk under the embedded ClickHouse, because ClickHouse does not notice that it is full.
 *
 * Where write(2) fails with ENOSPC, ClickHouse 26.7 goes on (seen with strace): the part is put in its place with empty
 * files, the insert is acknowledged or the merge is done, and no error is in any log. The rows are there until the part is
 * read from disk. A start sets it aside: then those of an insert are gone, and those of a merge come back, from the parts
 * that it was made of, which ClickHouse keeps for 8 minutes. fsync makes no difference. Of a change of rows or a new table an
 * empty file stays, with which ClickHouse does not start any more.
 *
 * So ClickHouse keeps some space free (`KEPT_FREE_BYTES`): inserts and merges are refused before they fill the disk. That
 * leaves others who fill it, while something is being written. Once the disk was seen to be low, nothing is written, and
 * nothing counts as written, until there is space again and ClickHouse was started anew: what is missing then is seen to be
 * missing, and is sent again.
 */
import { readdirSync, rmSync, statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** What ClickHouse leaves free (`keep_free_space_bytes`, as in clickhouse/server.xml): with less, inserts and merges are refused. */
export const KEPT_FREE_BYTES = 128 * 2 ** 20
/** With less than this free, others fill the disk, or a backup does: what else ClickHouse writes unasked is less than the other half. */
const LOW_BYTES = KEPT_FREE_BYTES / 2
/** A look takes microseconds. In this time 1.3 GB a second fill what is left between low and full. */
const LOOK_MS = 50
/** A merge that went wrong is undone by a start within 8 minutes: on a disk that stays full, it comes after so long. */
const LONGEST_LOW_MS = 300_000

/** The disk was full, and what was just written may have been cut off. */
export class DiskFullError extends Error {
  override name = 'DiskFullError'
}

export interface DiskWatchOptions {
  /** Bytes that are free. */
  readonly free: () => number
  /** Ends ClickHouse, which is then started again. */
  readonly restart: () => void
  readonly log: (message: string) => void
}

export class DiskWatch {
  readonly #options: DiskWatchOptions
  /** From less than LOW_BYTES until KEPT_FREE_BYTES are free again. */
  #low = false
  #lowSince = 0
  /** Whether it was low since ClickHouse was started last; `#doubts` counts how often there was a reason. */
  #doubtful = false
  #doubts = 0
  #starting = false
  readonly #timer: NodeJS.Timeout

  constructor(options: DiskWatchOptions) {
    this.#options = options
    this.#timer = setInterval(() => this.look(), LOOK_MS).unref()
  }

  look(): void {
    const free = this.#options.free()
    if (free < LOW_BYTES && !this.#low) {
      this.#low = true
      this.#lowSince = performance.now()
      this.#doubt()
      this.#options.log(`the disk is full: nothing is stored until ${KEPT_FREE_BYTES / 2 ** 20} MiB are free`)
    } else if (free >= KEPT_FREE_BYTES && this.#low) {
      this.#low = false
      // There may have been space for a moment before.
      this.#doubt()
    }
    const over = !this.#low || performance.now() - this.#lowSince > LONGEST_LOW_MS
    if (this.#doubtful && over && !this.#starting) {
      this.#starting = true
      this.#options.log('the disk was full: ClickHouse is started again, to look at what it has written')
      this.#options.restart()
    }
  }

  #doubt(): void {
    this.#doubtful = true
    this.#doubts++
  }

  /** @throws DiskFullError where what was written may have been cut off, or would be */
  assertWritten(): void {
    this.look()
    if (this.#low || this.#doubtful) throw new DiskFullError('the disk is full, or was, and what was written may be cut off')
  }

  /**
   * To be called when ClickHouse is being started, for whatever reason. Until it answers it is not started again.
   * @returns to be called when it answers
   */
  starting(): () => void {
    this.#starting = true
    const doubts = this.#doubts
    return () => {
      this.#starting = false
      // What it has written itself since may be cut off too.
      if (this.#doubts === doubts) this.#doubtful = false
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

/**
 * Removes the empty files with which ClickHouse does not start (26.7): definitions of databases and tables, and changes of
 * rows, that were begun on a full disk. All get their name when they are complete, so an empty one is of nothing that was
 * acknowledged, as long as no migration alters a table: a definition that is written anew takes the place of the one before.
 * @param directory of ClickHouse's data, which need not exist
 * @returns their paths
 */
export function removeEmptyFiles(directory: string): string[] {
  const removed: string[] = []
  const remove = (...names: string[]) => {
    const path = join(directory, ...names)
    if (statSync(path, { throwIfNoEntry: false })?.size !== 0) return
    rmSync(path, { force: true })
    removed.push(path)
  }
  for (const name of list(join(directory, 'metadata'))) if (name.endsWith('.sql')) remove('metadata', name)
  for (const shelf of list(join(directory, 'store'))) {
    for (const table of list(join(directory, 'store', shelf))) {
      for (const name of list(join(directory, 'store', shelf, table))) {
        if (/^mutation_\d+\.txt$|\.sql$/.test(name)) remove('store', shelf, table, name)
      }
    }
  }
  return removed
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}
