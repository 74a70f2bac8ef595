/**
 * `npm run backup [-- NAME] [--url URL] [--token TOKEN]`: makes a backup. A running service is asked to, since it knows
 * when nothing is half stored; otherwise the database is opened here.
 */
import { parseArgs } from 'node:util'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { backUp, BACKUP_NAME, type Backup } from '../clickhouse/backup.ts'
import { readConfig, type Config } from '../config.ts'
import { loadLocalKey, signLocalToken } from '../http/local-key.ts'
import { createLog } from '../log.ts'
import { createService, openClickHouse } from '../service.ts'

const USAGE = 'usage: npm run backup -- [NAME] [--url http://127.0.0.1:8787] [--token TOKEN]'

function options() {
  try {
    const { values, positionals } = parseArgs({ allowPositionals: true, options: { url: { type: 'string' }, token: { type: 'string' } } })
    const [name = `analytics-${new Date().toISOString().replace(/[:.]/g, '-')}`, ...more] = positionals
    if (more.length > 0 || !BACKUP_NAME.test(name)) throw new Error('NAME wants 1 to 100 letters, digits and . _ -')
    return { ...values, name }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`)
    process.exit(2)
  }
}

const given = options()
const config = readConfig()

/** Asks the running service; undefined where none answers. */
async function ask(url: string, { DATA_DIR, localKey }: Config): Promise<Backup | undefined> {
  const token =
    given.token ??
    (localKey
      ? await signLocalToken(await loadLocalKey(resolve(DATA_DIR)), { org: 'operator', scope: 'analytics:operate' }, config)
      : '')
  for (;;) {
    const response = await fetch(`${url}/operations/backup?name=${given.name}`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}` },
    }).catch(() => undefined)
    if (!response) return undefined
    const body = (await response.json()) as { data?: Backup & { status: string }; error?: { message: string } }
    if (!body.data) throw new Error(`the service at ${url} answered ${response.status}: ${body.error?.message}`)
    if (body.data.status === 'complete') return body.data
    await sleep(1_000)
  }
}

async function here(): Promise<Backup> {
  const log = createLog('warn')
  const database = config.CLICKHOUSE_DATABASE
  const clickhouse = await openClickHouse(config, log)
  try {
    const service = await createService({ config, clickhouse, database, log })
    try {
      const { store, writer } = service
      return await backUp(store, (work) => writer.exclusive(work), { database, name: given.name, disk: config.BACKUP_DISK })
    } finally {
      await service.close()
    }
  } finally {
    await clickhouse.stop()
  }
}

try {
  const { name, bytes, files } = (await ask(given.url ?? `http://127.0.0.1:${config.PORT}`, config)) ?? (await here())
  process.stdout.write(`backup ${name}: ${files} files, ${(bytes / 1e6).toFixed(1)} MB\n`)
  process.exit(0)
} catch (error) {
  process.stderr.write(`backup failed: ${(error as Error).message}\n`)
  process.exit(1)
}
