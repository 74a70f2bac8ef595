/**
 * `npm run bench`: makes a fleet, drives the service over HTTP, and prints what it costs beside its floors, all in one run.
 * README.md in this folder says what is compared, why that is fair, and how long it takes.
 */
import { existsSync, rmSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { Agent } from 'node:http'
import { arch, availableParallelism, cpus, platform, release, tmpdir, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { ClickHouseClient } from '@clickhouse/client'
import { startEmbedded } from '../src/clickhouse/embedded/index.ts'
import { generate, landmarks, newFleet, sizes, TENANT, type Fleet, type Generated } from './fleet.ts'
import { measureIngestion, soak } from './ingest.ts'
import { get, measureLatencies } from './latency.ts'
import { measureCached, measureUncached } from './load.ts'
import { measureOthers } from './others.ts'
import { DEPTHS, depthInstant, questions, wholeDays, type Cursors, type Question } from './questions.ts'
import { report, type Results } from './report.ts'
import { eavesdrop, startService, type Eavesdropper } from './service.ts'
import { connect, say, type Connection } from './support.ts'

const USAGE = `usage: npm run bench -- [options]

  --events N        how many events the fleet has, default 10e6
  --only PART       queries, throughput, ingest, others or soak; default: all but soak
  --minutes N       how long the soak takes, default 10
  --rounds N        how often each question is asked at most, default 100
  --seconds N       how long each throughput run takes, and each contender of ingestion in three runs, default 15
  --data DIR        keep the fleet here, and use the one that is there already; default: a temporary directory
  --keep            do not remove the temporary directory
  --compare FILE    print the growth from the results of a smaller run, bench/results/10000000.json
`

const PARTS = ['queries', 'throughput', 'ingest', 'others'] as const
type Part = (typeof PARTS)[number] | 'soak'
/** Above this many events the other databases are left out: a load alone would take an hour. */
const OTHERS_MAX_EVENTS = 10_000_000
const RESULTS = fileURLToPath(new URL('results', import.meta.url))

class UsageError extends Error {}

interface Options {
  readonly events: number
  readonly parts: ReadonlySet<Part>
  readonly only: Part | undefined
  readonly minutes: number
  readonly rounds: number
  readonly seconds: number
  readonly data: string | undefined
  readonly keep: boolean
  readonly earlier: Results | undefined
}

async function readOptions(): Promise<Options> {
  const text = { type: 'string' } as const
  let values
  try {
    values = parseArgs({
      options: {
        events: { ...text, default: '10e6' },
        only: text,
        minutes: { ...text, default: '10' },
        rounds: { ...text, default: '100' },
        seconds: { ...text, default: '15' },
        data: text,
        keep: { type: 'boolean', default: false },
        compare: text,
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
  if (values.help) throw new UsageError('')
  const whole = (name: 'events' | 'minutes' | 'rounds' | 'seconds', min: number, max: number) => {
    const value = Number(values[name])
    if (Number.isInteger(value) && value >= min && value <= max) return value
    throw new UsageError(`--${name} wants a whole number from ${min} to ${max}`)
  }
  const only = values.only as Part | undefined
  if (only !== undefined && ![...PARTS, 'soak'].includes(only)) {
    throw new UsageError(`--only wants one of ${PARTS.join(', ')}, soak`)
  }
  return {
    events: whole('events', 200_000, 1_000_000_000),
    parts: new Set(only ? [only] : PARTS),
    only,
    minutes: whole('minutes', 1, 120),
    rounds: whole('rounds', 5, 10_000),
    seconds: whole('seconds', 2, 600),
    data: values.data,
    keep: values.keep || values.data !== undefined,
    earlier: values.compare === undefined ? undefined : (JSON.parse(await readFile(values.compare, 'utf8')) as Results),
  }
}

async function main(): Promise<void> {
  const options = await readOptions()
  const directory = options.data ? resolve(options.data) : await mkdtemp(join(tmpdir(), 'analytics-bench-'))
  await mkdir(directory, { recursive: true })
  const cleanUp = () => {
    if (options.keep) say(`the data is in ${directory}`)
    else rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
  }
  const server = await startEmbedded({ dataDir: directory, log: (level, message) => level !== 'info' && say(message) })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      process.kill(server.pid, 'SIGKILL')
      cleanUp()
      process.exit(130)
    })
  }
  try {
    const { url, admin, reader, writer } = server
    await measure(options, directory, { url, database: 'analytics', admin, reader, writer })
  } finally {
    await server.stop()
    cleanUp()
  }
}

async function measure(options: Options, directory: string, connection: Connection): Promise<void> {
  const { parts } = options
  const admin = connect(connection, connection.admin)
  const results: Results = { events: options.events, date: new Date().toISOString(), machine: await machine(connection) }
  let asked: Question[] = []
  try {
    if (parts.has('queries') || parts.has('throughput') || parts.has('others')) {
      asked = await askFleet(options, directory, connection, admin, results)
    }
    const place = { connection, dataDir: directory }
    if (parts.has('ingest')) {
      say('ingestion')
      results.ingestion = await measureIngestion(place, options.seconds)
    }
    if (parts.has('soak')) {
      say(`soak, ${options.minutes} minutes`)
      results.soak = await soak(place, options.minutes)
    }
  } finally {
    await admin.close()
  }
  const text = report(results, asked, options.earlier)
  process.stdout.write(`\n${text}\n`)
  await mkdir(RESULTS, { recursive: true })
  const name = join(RESULTS, options.only ? `${options.events}-${options.only}` : String(options.events))
  await writeFile(`${name}.json`, `${JSON.stringify(results, null, 2)}\n`)
  await writeFile(`${name}.md`, `${text}\n`)
  say(`\nwritten: ${name}.json and .md`)
}

/** Everything that is asked of a fleet: makes it, and measures questions, throughput and the other databases. */
async function askFleet(
  options: Options,
  directory: string,
  connection: Connection,
  admin: ClickHouseClient,
  results: Results,
): Promise<Question[]> {
  const { parts } = options
  const { fleet, generated } = await prepareFleet(options, directory, connection, admin)
  if (generated) results.generated = generated
  results.sizes = await sizes(admin, connection.database)

  const client = connect(connection, connection.reader)
  const dataDir = join(directory, 'service')
  const agent = new Agent({ keepAlive: true })
  try {
    say('overhearing what the service asks of ClickHouse')
    const { asked, heard } = await listen(connection, dataDir, admin, fleet)

    const service = await startService(connection, { dataDir, cacheMb: 0 })
    let uncachedRates
    try {
      const authorization = await service.authorization(TENANT)
      if (parts.has('queries') || parts.has('others')) {
        say('questions, one at a time, cache off')
        const subset = parts.has('queries') ? asked : asked.filter(({ elsewhere }) => elsewhere)
        results.latencies = await measureLatencies({ url: service.url, authorization, client, heard }, subset, options.rounds)
      }
      if (parts.has('throughput')) {
        say('requests per second, cache off')
        uncachedRates = await measureUncached(service, authorization, connection, heard, sets(asked), options.seconds)
      }
      if (parts.has('others') && fleet.events <= OTHERS_MAX_EVENTS) {
        say('the other databases')
        results.others = await measureOthers(admin, asked, async (question, { path }) =>
          question.figures(JSON.parse(await get(agent, service.url + path, authorization)) as unknown),
        )
      } else if (parts.has('others')) {
        say(`the other databases are left out above ${OTHERS_MAX_EVENTS} events`)
      }
    } finally {
      await service.stop()
    }
    if (uncachedRates) {
      say('requests per second, cache on')
      const cached = await startService(connection, { dataDir, cacheMb: 32 })
      try {
        const authorization = await cached.authorization(TENANT)
        const rates = await measureCached(cached, authorization, sets(asked).slice(0, 2), options.seconds)
        results.throughput = { uncached: uncachedRates, cached: rates }
      } finally {
        await cached.stop()
      }
    }
    return asked
  } finally {
    agent.destroy()
    await client.close()
  }
}

/** The fleet of an earlier run in the same directory, or a new one. */
async function prepareFleet(options: Options, directory: string, connection: Connection, admin: ClickHouseClient) {
  const file = join(directory, 'fleet.json')
  if (existsSync(file)) {
    const fleet = JSON.parse(await readFile(file, 'utf8')) as Fleet
    if (fleet.events !== options.events) {
      throw new UsageError(`${directory} holds a fleet of ${fleet.events} events: use --events ${fleet.events} or another --data`)
    }
    say(`the fleet in ${directory} ends at ${new Date(fleet.end).toISOString()}`)
    return { fleet }
  }
  const fleet = newFleet(options.events)
  say(`a fleet of ${fleet.events} events up to ${new Date(fleet.end).toISOString()}`)
  const generated: Generated = await generate(connection, admin, fleet)
  await writeFile(file, JSON.stringify(fleet))
  return { fleet, generated }
}

/** What is asked, and what the service makes of it. Ends before the service starts: two of them would take turns. */
async function listen(connection: Connection, dataDir: string, admin: ClickHouseClient, fleet: Fleet) {
  const inside = await eavesdrop(connection, { dataDir, cacheMb: 0 }, TENANT)
  try {
    const cursors = await findCursors(inside, fleet)
    const asked = questions(fleet, { ...(await landmarks(admin)), cursors })
    return { asked, heard: await inside.hear(asked.flatMap(({ variants }) => variants.map(({ path }) => path))) }
  } finally {
    await inside.close()
  }
}

/** A page of one event that ends at a depth gives a cursor at that depth, whatever is inside it. */
async function findCursors(service: Eavesdropper, fleet: Fleet): Promise<Cursors> {
  const range = wholeDays(fleet, 0)
  const cursors = new Map<number, string>()
  for (const percent of DEPTHS) {
    const endDate = new Date(depthInstant(range, percent)).toISOString()
    const query = new URLSearchParams({ startDate: range.startDate, endDate, limit: '1' })
    const answer = (await service.ask(`/analytics/events?${query}`)) as { pagination: { nextCursor: string | null } }
    if (answer.pagination.nextCursor === null) throw new Error(`there is no event below a depth of ${percent} %`)
    cursors.set(percent, answer.pagination.nextCursor)
  }
  return cursors
}

/** What the throughput runs ask: a dashboard's questions in turn, and some of them by themselves. */
function sets(asked: readonly Question[]) {
  const dashboard = asked.filter((question) => question.dashboard)
  const alone = dashboard.filter(({ name }) => !/^(rolling|snapshots)/.test(name))
  return [
    { name: 'a dashboard', questions: dashboard },
    ...alone.map((question) => ({ name: question.name, questions: [question] })),
  ]
}

async function machine(connection: Connection): Promise<Results['machine']> {
  const client = connect({ ...connection, database: 'system' }, connection.admin, 1)
  const result = await client.query({ query: 'SELECT version() AS version', format: 'JSONEachRow' })
  const [row] = await result.json<{ version: string }>()
  await client.close()
  return {
    cpu: cpus()[0]?.model ?? 'unknown CPU',
    cores: availableParallelism(),
    memoryGb: Math.round(totalmem() / 2 ** 30),
    system: `${platform()} ${release().split('-')[0]} ${arch()}`,
    node: process.versions.node,
    clickhouse: row?.version ?? '',
  }
}

try {
  await main()
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  process.stderr.write(error.message ? `${error.message}\n\n${USAGE}` : USAGE)
  process.exitCode = error.message ? 2 : 0
}
