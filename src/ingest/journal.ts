/**
 * A group of events is written to disk before it is sent to ClickHouse and removed when ClickHouse has it. An insert that
 * was cut off half way (some tables written, others not) is completed from here at the next start: events that are missing are
 * stored, and the rollups of their days are compared with the log. This is what makes "raw equals rollups" hold through a
 * crash.
 *
 * Files are not fsynced: they survive the death of the processes, not a power cut (nor do ClickHouse's own parts, by
 * default).
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

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

export class Journal {
  readonly #directory: string

  private constructor(directory: string) {
    this.#directory = directory
  }

  static async open(dataDir: string): Promise<Journal> {
    const directory = join(dataDir, 'journal')
    await mkdir(directory, { recursive: true, mode: 0o700 })
    return new Journal(directory)
  }

  /** Inserts that an earlier run did not see through, in the order they were made; half-written files were never sent. */
  async pending(): Promise<Entry[]> {
    const names = (await readdir(this.#directory)).sort()
    const found: Entry[] = []
    for (const name of names) {
      if (!name.endsWith('.json')) await rm(join(this.#directory, name), { force: true })
      else found.push({ name, ...parse(await readFile(join(this.#directory, name), 'utf8')) })
    }
    return found
  }

  /** Keeps a group until it is removed; names sort by time. */
  async write(inserts: readonly Insert[]): Promise<Entry> {
    const name = `${String(Date.now()).padStart(15, '0')}-${inserts[0]?.token}.json`
    const path = join(this.#directory, name)
    try {
      await writeFile(`${path}.part`, text(inserts), { mode: 0o600 })
      await rename(`${path}.part`, path)
    } catch (error) {
      // On a full disk, half a group for every try would keep it full.
      await rm(`${path}.part`, { force: true })
      throw error
    }
    return { name, inserts }
  }

  async remove(name: string): Promise<void> {
    await rm(join(this.#directory, name), { force: true })
  }
}

/** What stands in the first line of a file: all but the rows, which follow as they are, so many lines of each insert. */
interface Head {
  inserts: Array<Omit<Insert, 'rows'> & { lines: number }>
}

function* text(inserts: readonly Insert[]): Generator<string> {
  const head: Head = { inserts: inserts.map(({ rows, ...rest }) => ({ ...rest, lines: countLines(rows) })) }
  yield JSON.stringify(head)
  for (const { rows } of inserts) {
    yield '\n'
    yield rows
  }
}

function countLines(rows: string): number {
  let count = 1
  for (let at = rows.indexOf('\n'); at !== -1; at = rows.indexOf('\n', at + 1)) count++
  return count
}

function parse(file: string): Omit<Entry, 'name'> {
  const [first = '', ...lines] = file.split('\n')
  const { inserts } = JSON.parse(first) as Head
  return { inserts: inserts.map(({ lines: count, ...rest }) => ({ ...rest, rows: lines.splice(0, count).join('\n') })) }
}
