/**
 * `npm run reconcile [-- --repair] [--from DATE] [--to DATE] [--url URL]`: compares the raw log with every rollup and
 * prints what drifted. A running service is asked to do it, since it is the one that writes; otherwise the database is
 * opened here.
 */
import { parseArgs } from 'node:util'
import { EmbeddedError } from '../clickhouse/embedded/index.ts'
import { readConfig } from '../config.ts'
import { DataDirInUseError } from '../data-dir.ts'
import { readable } from '../http/routes/operations.ts'
import { reconcile } from '../maintenance/reconcile.ts'
import { MAX_INSTANT, MIN_INSTANT } from '../time/instant.ts'
import { parseInstant } from '../time/iso8601.ts'
import { askService, withService } from './operator.ts'

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

const query = new URLSearchParams({
  repair: String(range.repair),
  ...(given.from === undefined ? {} : { startDate: given.from }),
  ...(given.to === undefined ? {} : { endDate: given.to }),
})

const here = () =>
  withService(config, async ({ store, seals, writer, tenants, retention, broken }) => {
    const kept = { ...range, horizon: retention.horizon }
    const compare = () => reconcile(store, seals, (work) => writer.exclusive(work), kept)
    return readable(await (range.repair ? broken.healing(compare) : compare()), tenants)
  })

try {
  const { days, drift, repaired } = (await askService<Result>(config, `/operations/reconcile?${query}`, given)) ?? (await here())
  for (const { tenant, start, rollup, sourceEvents, rollupEvents } of drift) {
    process.stdout.write(`${tenant}\t${start}\t${rollup}\tsource ${sourceEvents}\trollup ${rollupEvents}\n`)
  }
  process.stdout.write(`${days} days of tenants compared, ${drift.length} differences, ${repaired} repaired\n`)
  process.exit(drift.length === repaired ? 0 : 1)
} catch (error) {
  process.stderr.write(`reconcile failed: ${error instanceof EmbeddedError || error instanceof DataDirInUseError ? error.message : String(error)}\n`)
  process.exit(1)
}
