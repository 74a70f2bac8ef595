/**
 * `npm run reconcile [-- --repair] [--from DATE] [--to DATE] [--url URL]`: compares the raw log with every rollup and
 * prints what drifted. A running service is asked to do it, since it is the one that writes; otherwise the database is
 * opened here.
 */
import { parseArgs } from 'node:util'
import { resolve } from 'node:path'
import { readConfig, type Config } from '../config.ts'
import { EmbeddedError } from '../clickhouse/embedded.ts'
import { DataDirInUseError } from '../data-dir.ts'
import { readable } from '../http/operations.ts'
import { loadLocalKey, signLocalToken } from '../http/local-key.ts'
import { reconcile } from '../ingest/reconcile.ts'
import { createLog } from '../log.ts'
import { createService, openClickHouse } from '../service.ts'
import { MAX_INSTANT, MIN_INSTANT, parseInstant } from '../time/calendar.ts'

type Result = Awaited<ReturnType<typeof readable>>

const USAGE = `usage: npm run reconcile -- [--repair] [--from DATE] [--to DATE] [--url http://127.0.0.1:8787] [--token TOKEN]`

function options() {
  try {
    return parseArgs({
      options: {
        repair: { type: 'boolean', default: false },
        from: { type: 'string' },
        to: { type: 'string' },
        url: { type: 'string' },
        token: { type: 'string' },
      },
    }).values
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`)
    process.exit(2)
  }
}

function instant(text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback
  const parsed = parseInstant(text, 'UTC')
  if ('instant' in parsed) return parsed.instant
  process.stderr.write(`${text} ${parsed.error}\n${USAGE}\n`)
  process.exit(2)
}

const given = options()
const range = { from: instant(given.from, MIN_INSTANT), to: instant(given.to, MAX_INSTANT), repair: given.repair }
const config = readConfig()

/** Asks the running service; undefined where none answers. */
async function ask(url: string, { DATA_DIR, localKey }: Config): Promise<Result | undefined> {
  const query = new URLSearchParams({
    repair: String(range.repair),
    ...(given.from === undefined ? {} : { startDate: given.from }),
    ...(given.to === undefined ? {} : { endDate: given.to }),
  })
  const token =
    given.token ??
    (localKey
      ? await signLocalToken(await loadLocalKey(resolve(DATA_DIR)), { org: 'operator', scope: 'analytics:operate' }, config)
      : '')
  let response: Response
  try {
    response = await fetch(`${url}/operations/reconcile?${query}`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}` },
    })
  } catch {
    return undefined
  }
  const body = (await response.json()) as { data?: Result; error?: { message: string } }
  if (!body.data) throw new Error(`the service at ${url} answered ${response.status}: ${body.error?.message}`)
  return body.data
}

async function here(): Promise<Result> {
  const log = createLog('warn')
  const clickhouse = await openClickHouse(config, log)
  try {
    const service = await createService({ config, clickhouse, database: config.CLICKHOUSE_DATABASE, log })
    try {
      const { store, seals, writer, names, retention } = service
      const kept = { ...range, horizon: retention.horizon }
      return await readable(await reconcile(store, seals, (work) => writer.exclusive(work), kept), names)
    } finally {
      await service.close()
    }
  } finally {
    await clickhouse.stop()
  }
}

try {
  const { days, drift, repaired } = (await ask(given.url ?? `http://127.0.0.1:${config.PORT}`, config)) ?? (await here())
  for (const { tenant, start, rollup, sourceEvents, rollupEvents } of drift) {
    process.stdout.write(`${tenant}\t${start}\t${rollup}\tsource ${sourceEvents}\trollup ${rollupEvents}\n`)
  }
  process.stdout.write(`${days} days of tenants compared, ${drift.length} differences, ${repaired} repaired\n`)
  process.exit(drift.length === repaired ? 0 : 1)
} catch (error) {
  process.stderr.write(`reconcile failed: ${error instanceof EmbeddedError || error instanceof DataDirInUseError ? error.message : String(error)}\n`)
  process.exit(1)
}
