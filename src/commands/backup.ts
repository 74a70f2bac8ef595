/**
 * `npm run backup [-- NAME] [--url URL] [--token TOKEN]`: makes a backup. A running service is asked to, since it knows
 * when nothing is half stored; otherwise the database is opened here.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { readConfig } from '../config.ts'
import { backUp, BACKUP_NAME, type Backup } from '../maintenance/backup.ts'
import { backupPlace } from '../service.ts'
import { askService, withService } from './operator.ts'

const USAGE = 'usage: npm run backup -- [NAME] [--url http://127.0.0.1:8787] [--token TOKEN]'

function options() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { url: { type: 'string' }, token: { type: 'string' } },
    })
    const [name = `analytics-${new Date().toISOString().replace(/[:.]/g, '-')}`, ...more] = positionals
    if (more.length > 0 || !BACKUP_NAME.test(name)) throw new Error('NAME must be 1 to 100 letters, digits and . _ -')
    return { ...values, name }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`)
    process.exit(2)
  }
}

const given = options()
const config = readConfig()

/** Asks the running service until the backup is complete; undefined where none answers. */
async function ask(): Promise<Backup | undefined> {
  for (;;) {
    const made = await askService<Backup & { status: string }>(config, `/operations/backup?name=${given.name}`, given)
    if (!made || made.status === 'complete') return made
    await sleep(1_000)
  }
}

const here = () =>
  withService(config, ({ store, writer }) =>
    backUp(store, (work) => writer.exclusive(work), {
      database: config.CLICKHOUSE_DATABASE,
      name: given.name,
      ...backupPlace(config),
    }),
  )

try {
  const { name, bytes, files } = (await ask()) ?? (await here())
  process.stdout.write(`backup ${name}: ${files} files, ${(bytes / 1e6).toFixed(1)} MB\n`)
  process.exit(0)
} catch (error) {
  process.stderr.write(`backup failed: ${(error as Error).message}\n`)
  process.exit(1)
}
