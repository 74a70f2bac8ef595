/**
 * `npm run freeze [-- --release]`: brings clickhouse/checksums.json up to the migration files. Before the first release it
 * writes the list again; with `--release`, and ever after, it adds new files and refuses where an old one has changed.
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { checksumsOfFiles, freeze, readChecksums, writeChecksums } from '../clickhouse/checksums.ts'

const USAGE = 'usage: npm run freeze -- [--release] [--directory clickhouse]'

function options() {
  try {
    return parseArgs({ options: { release: { type: 'boolean', default: false }, directory: { type: 'string' } } }).values
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`)
    process.exit(2)
  }
}

const { release, directory = fileURLToPath(new URL('../../clickhouse', import.meta.url)) } = options()
try {
  const before = await readChecksums(directory)
  const list = freeze(before, await checksumsOfFiles(directory), release)
  await writeChecksums(directory, list)
  const added = Object.keys(list.files).filter((name) => !(name in before.files))
  const state = list.released
    ? 'they are frozen'
    : 'nothing is released yet, so they may still change: run this again when they do, and with --release for the first release'
  process.stdout.write(`${Object.keys(list.files).length} migration files, ${added.length} of them new; ${state}\n`)
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`)
  process.exit(1)
}
