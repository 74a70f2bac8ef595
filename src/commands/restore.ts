/** `npm run restore -- NAME`: brings a backup into an empty database, before a service is started on it. */
import { readdir, rename } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Store } from '../clickhouse/store.ts'
import { readConfig, type Config } from '../config.ts'
import { createLog } from '../log.ts'
import { restore } from '../maintenance/restore.ts'
import { openClickHouse } from '../service.ts'

const [name, ...more] = process.argv.slice(2)
if (name === undefined || more.length > 0) {
  process.stderr.write('usage: npm run restore -- NAME\n')
  process.exit(2)
}

/**
 * What is in the journal was on its way into the database before the restore, under numbers of names that the restored one
 * may not have or may have given to others. It is kept for the operator, and no service stores it.
 */
async function setJournalAside(config: Config): Promise<void> {
  const journal = join(resolve(config.DATA_DIR), 'journal')
  const entries = await readdir(journal).catch(() => [])
  if (entries.length === 0) return
  const aside = `${journal}-before-restore-${Date.now()}`
  await rename(journal, aside)
  process.stdout.write(`${entries.length} inserts that were under way before belong to another database: moved to ${aside}\n`)
}

try {
  const config = readConfig()
  const log = createLog('warn')
  const clickhouse = await openClickHouse(config, log)
  try {
    const connect = (database: string) =>
      new Store({ ...clickhouse, database, queryTimeoutSeconds: 600, queryMemoryMb: config.QUERY_MEMORY_MB })
    const options = { database: config.CLICKHOUSE_DATABASE, name, disk: config.BACKUP_DISK, log }
    const { bytes, files, events, repaired } = await restore(connect, options)
    await setJournalAside(config)
    const also = repaired === 0 ? '' : `, ${repaired} days and spans of rollups that differed from the log in it were repaired`
    process.stdout.write(`restored ${name}: ${files} files, ${(bytes / 1e6).toFixed(1)} MB, ${events} events, verified${also}\n`)
  } finally {
    await clickhouse.stop()
  }
  process.exit(0)
} catch (error) {
  process.stderr.write(`restore failed: ${(error as Error).message}\n`)
  process.exit(1)
}
