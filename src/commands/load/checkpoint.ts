/** How far the load of each file is, so that a stopped load goes on from there. */
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { codeOf } from './errors.ts'
import type { Input } from './read-batches.ts'

/** What is known about the lines up to `lines`, all of which are acknowledged; over all runs of a load. */
export interface Tally {
  lines: number
  accepted: number
  duplicates: number
  rejected: number
  /** The first few refusals. */
  reasons: Array<{ line: number; message: string }>
  /** Kept until every file of the command is through, so that a stopped command does not begin at its first file. */
  finished: boolean
}

export const nothing = (): Tally => ({ lines: 0, accepted: 0, duplicates: 0, rejected: 0, reasons: [], finished: false })

/**
 * Where a load of one file into one company of one service is. Acknowledged batches become a new file under DATA_DIR/load,
 * named after everything that must be the same for it to hold: a file that changed has another name.
 */
export class Checkpoint {
  readonly #path: string | undefined
  #broken = false

  constructor(dataDir: string, { path, size, modified }: Input, url: URL, org: string) {
    if (size === undefined) return
    const key = createHash('sha256')
      .update(JSON.stringify([path, size, modified, url.href, org]))
      .digest('hex')
    this.#path = join(resolve(dataDir), 'load', `${key.slice(0, 32)}.json`)
  }

  read(): Tally | undefined {
    if (!this.#path) return undefined
    try {
      return JSON.parse(readFileSync(this.#path, 'utf8')) as Tally
    } catch {
      return undefined
    }
  }

  /** @returns why it cannot be kept, the first time that is so; the load goes on without */
  write(tally: Tally): string | undefined {
    if (!this.#path || this.#broken) return undefined
    try {
      mkdirSync(join(this.#path, '..'), { recursive: true, mode: 0o700 })
      writeFileSync(`${this.#path}.part`, JSON.stringify(tally), { mode: 0o600 })
      renameSync(`${this.#path}.part`, this.#path)
      return undefined
    } catch (error) {
      this.#broken = true
      return codeOf(error)
    }
  }

  remove(): void {
    if (this.#path) rmSync(this.#path, { force: true })
  }
}
