/**
 * A group of events is written to disk before it is sent to ClickHouse and removed when ClickHouse has it. An insert that
 * was cut off half way (some tables written, others not) is completed from here at the next start: events that are missing are
 * stored, and the rollups of their days are compared with the log. This is what makes "raw equals rollups" hold through a
 * crash.
 *
 * A file is one line that says how long the rest is and what its checksum is, then the rest: a line of JSON (`Head`) and the
 * rows. A file that is not what was written is moved to `quarantine/` and keeps nothing else from being completed. It is
 * never deleted: it may hold events, and an operator decides.
 *
 * A file and its name in the directory are synced to the disk before anything of the group is sent, so a power cut leaves
 * the entry of each insert that it cut off. The removal of an entry is not synced: an entry that comes back is found to be
 * stored. For how long the rows themselves last, see `SYNC_WRITES` (src/clickhouse/embedded/index.ts).
 */
import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { Log } from '../log.ts'

/** One insert: rows as JSONCompactEachRow text, and the token that makes repeating it harmless. */
export interface Insert {
  readonly token: string
  readonly table: 'events' | 'answers'
  readonly rows: string
}

/** A group of events on its way: one insert, or two where an answer is kept with them. */
export interface Entry {
  readonly name: string
  readonly inserts: readonly Insert[]
}

export interface JournalOptions {
  /** Whether an entry is synced to the disk before `write` returns; true where it is not said. */
  readonly sync?: boolean
  readonly log?: Log
}

const QUARANTINE = 'quarantine'

export class Journal {
  readonly #directory: string
  readonly #sync: boolean
  readonly #log: Log

  private constructor(directory: string, { sync = true, log = () => {} }: JournalOptions) {
    this.#directory = directory
    this.#sync = sync
    this.#log = log
  }

  static async open(dataDir: string, options: JournalOptions = {}): Promise<Journal> {
    const directory = join(dataDir, 'journal')
    await mkdir(directory, { recursive: true, mode: 0o700 })
    if (options.sync !== false) await syncDirectory(dataDir)
    return new Journal(directory, options)
  }

  /**
   * Inserts that an earlier run did not see through, in the order they were made. Half-written files were never sent and are
   * removed; a file that is damaged is set aside, with a message.
   * @throws where the directory itself cannot be read
   */
  async pending(): Promise<Entry[]> {
    const found: Entry[] = []
    for (const name of (await readdir(this.#directory)).sort()) {
      if (name === QUARANTINE) continue
      const path = join(this.#directory, name)
      try {
        if (name.endsWith('.part')) await rm(path, { force: true })
        else found.push({ name, inserts: parse(await readFile(path)) })
      } catch (error) {
        await this.quarantine(name, error instanceof DamagedError ? error.message : `it cannot be read: ${String(error)}`)
      }
    }
    return found
  }

  /**
   * Keeps a group until it is removed; names sort by time. When it returns, the entry survives a power cut, unless the
   * journal was opened without `sync`.
   */
  async write(inserts: readonly Insert[]): Promise<Entry> {
    const name = `${String(Date.now()).padStart(15, '0')}-${inserts[0]?.token}.json`
    const path = join(this.#directory, name)
    try {
      const file = await open(`${path}.part`, 'w', 0o600)
      try {
        await file.writeFile(bytesOf(inserts))
        if (this.#sync) await file.sync()
      } finally {
        await file.close()
      }
      await rename(`${path}.part`, path)
      if (this.#sync) await syncDirectory(this.#directory)
    } catch (error) {
      // On a full disk, half a group for every try would keep it full. Nothing of a whole one was sent either.
      await rm(`${path}.part`, { force: true })
      await rm(path, { force: true })
      throw error
    }
    return { name, inserts }
  }

  async remove(name: string): Promise<void> {
    await rm(join(this.#directory, name), { force: true })
  }

  /** Sets an entry aside that cannot be completed, and says so. Where it cannot be moved, it stays and is found again. */
  async quarantine(name: string, reason: string): Promise<void> {
    const path = join(this.#directory, name)
    const aside = join(this.#directory, QUARANTINE, `${name}.${randomBytes(4).toString('hex')}`)
    try {
      await mkdir(join(this.#directory, QUARANTINE), { recursive: true, mode: 0o700 })
      await rename(path, aside)
      this.#log('error', 'a file of the journal cannot be used and was set aside: events in it may not be stored', {
        file: path,
        movedTo: aside,
        reason,
      })
    } catch (error) {
      this.#log('error', 'a file of the journal cannot be used, nor set aside', { file: path, reason, error: String(error) })
    }
  }
}

/** Makes the names in a directory survive a power cut. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** The second line of a file: all but the rows, which follow as they are, so many lines of each insert. */
interface Head {
  inserts: Array<Omit<Insert, 'rows'> & { lines: number }>
}

/** A file is not what was written; `message` says why. */
class DamagedError extends Error {
  override name = 'DamagedError'
}

/** The first line: a mark with the version of the format, then bytes and CRC-32 of what follows the line. */
const FIRST_LINE = /^agnt-journal 1 (\d+) ([0-9a-f]{8})\n/
const LONGEST_FIRST_LINE = 64

const checksumOf = (bytes: Buffer): string => crc32(bytes).toString(16).padStart(8, '0')

function bytesOf(inserts: readonly Insert[]): Buffer {
  const head: Head = { inserts: inserts.map(({ rows, ...rest }) => ({ ...rest, lines: countLines(rows) })) }
  const rest = Buffer.from([JSON.stringify(head), ...inserts.map(({ rows }) => rows)].join('\n'))
  return Buffer.concat([Buffer.from(`agnt-journal 1 ${rest.length} ${checksumOf(rest)}\n`), rest])
}

function countLines(rows: string): number {
  let count = 1
  for (let at = rows.indexOf('\n'); at !== -1; at = rows.indexOf('\n', at + 1)) count++
  return count
}

/** @throws DamagedError where the file is not, byte by byte, what `bytesOf` made */
function parse(file: Buffer): Insert[] {
  if (file.length === 0) throw new DamagedError('it is empty')
  const first = FIRST_LINE.exec(file.toString('latin1', 0, LONGEST_FIRST_LINE))
  if (!first) throw new DamagedError('it does not begin with the length and checksum of an entry')
  const [line, length, checksum] = first
  const rest = file.subarray(line.length)
  if (rest.length !== Number(length))
    throw new DamagedError(`it has ${rest.length} bytes after its first line instead of ${length}`)
  if (checksumOf(rest) !== checksum) throw new DamagedError('its checksum is another one')
  try {
    const [head = '', ...lines] = rest.toString().split('\n')
    const { inserts } = JSON.parse(head) as Head
    return inserts.map(({ lines: count, ...insert }) => ({ ...insert, rows: lines.splice(0, count).join('\n') }))
  } catch (error) {
    throw new DamagedError(`its content has another form: ${String(error)}`)
  }
}
