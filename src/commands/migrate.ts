/** `npm run migrate`: brings the database up to this build and says what it did. */
import { readConfig } from '../config.ts'
import { createLog } from '../log.ts'
import { migrateDatabase, openClickHouse } from '../service.ts'

const config = readConfig()
const log = createLog(config.LOG_LEVEL)
const clickhouse = await openClickHouse(config, log)
try {
  const { applied } = await migrateDatabase(clickhouse, config.CLICKHOUSE_DATABASE, log)
  process.stdout.write(applied.length > 0 ? `applied ${applied.join(', ')}\n` : 'nothing to apply\n')
} finally {
  await clickhouse.stop()
}
