/**
 * `npm run reconcile [-- --repair] [--from DATE] [--to DATE] [--url URL]`: compares the raw log with every rollup, looks for
 * ids that are stored twice and for numbers of names that are mixed up, and prints what it found. A running service is asked to do it, since it is the one that writes; otherwise the database is
 * opened here.
 */
import { parseArgs } from 'node:util'
import { EmbeddedError } from '../clickhouse/embedded/index.ts'
import { readConfig } from '../config.ts'
import { DataDirInUseError } from '../data-dir.ts'
import { readable } from '../http/routes/operations.ts'
import { reconcileAll } from '../maintenance/reconcile-job.ts'
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

function instant(text: string | undefined, fallback: number, kind: 'moment' | 'end'): number {
  if (text === undefined) return fallback
  const parsed = parseInstant(text, 'UTC', kind)
  if ('instant' in parsed) return parsed.instant
  process.stderr.write(`${text} ${parsed.error}\n${USAGE}\n`)
  process.exit(2)
}

const given = options()
const range = {
  from: instant(given.from, MIN_INSTANT, 'moment'),
  to: instant(given.to, MAX_INSTANT, 'end'),
  repair: given.repair,
}
const config = readConfig()

const query = new URLSearchParams({
  repair: String(range.repair),
  ...(given.from === undefined ? {} : { startDate: given.from }),
  ...(given.to === undefined ? {} : { endDate: given.to }),
})

const here = () =>
  withService(config, async ({ store, seals, names, writer, tenants, retention, broken }) => {
    const kept = { ...range, horizon: retention.horizon }
    const compare = () => reconcileAll({ store, seals, names, exclusive: (work) => writer.exclusive(work) }, kept)
    return readable(await (range.repair ? broken.healing(compare) : compare()), tenants)
  })

/** Asks a running service until it is done; undefined where none runs. */
async function there(): Promise<Result | undefined> {
  for (;;) {
    const result = await askService<Result | { status: 'running' }>(config, `/operations/reconcile?${query}`, given)
    if (result?.status !== 'running') return result
  }
}

try {
  const { days, drift, repaired, duplicateIds, sharedNumbers, splitNames, identitiesRepaired } = (await there()) ?? (await here())
  const lines = [
    ...duplicateIds.map(({ tenant, id, copies, contents }) => [tenant, 'id', id, `${copies} copies`, `${contents} contents`]),
    ...sharedNumbers.map(({ tenant, kind, number, names }) => [
      tenant,
      kind,
      `number ${number}`,
      `names ${JSON.stringify(names)}`,
    ]),
    ...splitNames.map(({ tenant, kind, name, numbers }) => [
      tenant,
      kind,
      `name ${JSON.stringify(name)}`,
      `numbers ${numbers.join(', ')}`,
    ]),
    ...drift.map(({ tenant, start, rollup, sourceEvents, rollupEvents }) => [
      tenant,
      start,
      rollup,
      `source ${sourceEvents}`,
      `rollup ${rollupEvents}`,
    ]),
  ]
  for (const line of lines) process.stdout.write(`${line.join('\t')}\n`)
  const identities = duplicateIds.length + sharedNumbers.length + splitNames.length
  process.stdout.write(`${duplicateIds.length} ids stored more than once, ${sharedNumbers.length} numbers with several names, `)
  process.stdout.write(`${splitNames.length} names with several numbers, ${identitiesRepaired} repaired\n`)
  process.stdout.write(`${days} days of tenants compared, ${drift.length} differences, ${repaired} repaired\n`)
  process.exit(drift.length === repaired && identities === identitiesRepaired ? 0 : 1)
} catch (error) {
  process.stderr.write(
    `reconcile failed: ${error instanceof EmbeddedError || error instanceof DataDirInUseError ? error.message : String(error)}\n`,
  )
  process.exit(1)
}
