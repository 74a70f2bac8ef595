/**
 * The checksums of the migration files, as they are committed in `clickhouse/checksums.json`. A file of a release has been
 * applied to databases that refuse any other text of it, so it never changes again: `npm run freeze` keeps the list, and a
 * test compares it with the files.
 */
import { createHash } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

export interface Checksums {
  /** False until the first release: files may still change, and the list is written again with them. */
  readonly released: boolean
  /** SHA-256 by file name, hexadecimal. */
  readonly files: Readonly<Record<string, string>>
}

export const CHECKSUMS_FILE = 'checksums.json'

/** The checksum by which `migrate` compares a file with what was applied. */
export const checksumOf = (text: string): string => createHash('sha256').update(text).digest('hex')

/** Checksums of the SQL files in a directory, by name, in order. */
export async function checksumsOfFiles(directory: string): Promise<Record<string, string>> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql')).toSorted()
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, checksumOf(await readFile(join(directory, name), 'utf8'))])),
  )
}

/** The list of a directory; an empty one that is not released where there is none. */
export async function readChecksums(directory: string): Promise<Checksums> {
  const text = await readFile(join(directory, CHECKSUMS_FILE), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{ "released": false, "files": {} }'
    throw error
  })
  return JSON.parse(text) as Checksums
}

/**
 * Adds the files that are not in the list yet.
 * @param release says that from now on no file of the list changes; before, the list is written again as a whole
 * @returns the new list
 * @throws Error where a file of a released list has changed or is gone; the message names it and says what to do
 */
export function freeze(list: Checksums, found: Readonly<Record<string, string>>, release = false): Checksums {
  if (list.released) {
    const changed = Object.keys(list.files).filter((name) => found[name] !== list.files[name])
    if (changed.length > 0) {
      throw new Error(
        `${changed.join(', ')}: a migration file of a release must not change, since databases that it was applied to refuse ` +
          'another one. Restore it (git checkout), and put the change into a new file with the next number',
      )
    }
  }
  return { released: list.released || release, files: found }
}

/** Writes the list of a directory. */
export async function writeChecksums(directory: string, list: Checksums): Promise<void> {
  await writeFile(join(directory, CHECKSUMS_FILE), `${JSON.stringify(list, null, 2)}\n`)
}
