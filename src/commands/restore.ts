/** `npm run restore -- NAME`: brings a backup into an empty database, before a service is started on it. */
import { Store } from '../clickhouse/store.ts'
import { readConfig } from '../config.ts'
import { createLog } from '../log.ts'
import { restore } from '../maintenance/backup.ts'
import { openClickHouse } from '../service.ts'

const [name, ...more] = process.argv.slice(2)
if (name === undefined || more.length > 0) {
  process.stderr.write('usage: npm run restore -- NAME\n')
  process.exit(2)
}

try {
  const config = readConfig()
  const clickhouse = await openClickHouse(config, createLog('warn'))
  // The database need not exist yet, and a connection to one that does not is refused.
  const store = new Store({ ...clickhouse, database: 'system', queryTimeoutSeconds: 60, queryMemoryMb: config.QUERY_MEMORY_MB })
  try {
    const { bytes, files } = await restore(store, { database: config.CLICKHOUSE_DATABASE, name, disk: config.BACKUP_DISK })
    process.stdout.write(`restored ${name}: ${files} files, ${(bytes / 1e6).toFixed(1)} MB\n`)
  } finally {
    await store.close()
    await clickhouse.stop()
  }
  process.exit(0)
} catch (error) {
  process.stderr.write(`restore failed: ${(error as Error).message}\n`)
  process.exit(1)
}
