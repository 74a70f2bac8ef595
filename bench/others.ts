/**
 * The same events and the same questions on PostgreSQL and on DuckDB, both set up as somebody would who likes them:
 * sorted by tenant and time, sensible indexes and memory, dense numbers to group by instead of strings. They may answer
 * with numbers instead of names, and are asked in this process or over a local socket, without a service in between.
 */
import { spawn, execFile, type ChildProcess } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { access, chmod, chown, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { ClickHouseClient } from '@clickhouse/client'
import { DuckDBInstance } from '@duckdb/node-api'
import { Client } from 'pg'
import { TENANT_KEYS } from './fleet.ts'
import { same, sumUp } from './latency.ts'
import type { Figures, Question, Variant } from './questions.ts'
import { percentiles, say, seconds, type Percentiles } from './support.ts'

const run = promisify(execFile)

export interface Other {
  readonly name: string
  readonly version: string
  readonly loadSeconds: number
  readonly bytes: number
  readonly questions: Array<{ name: string; time: Percentiles }>
}

/** A database that could not be measured, and why. */
export interface Skipped {
  readonly name: string
  readonly skipped: string
}

const SAMPLES = 5
const BUDGET_SECONDS = 15
const LIMIT_SECONDS = 300

const COLUMNS = `toInt32(indexOf(${TENANT_KEYS}, events.tenant)) AS tenant, toUnixTimestamp64Milli(timestamp) AS ms, id, toInt8(event_type) AS event_type, assistant,
  user AS user_name, assistant_no, user_no, cost_nanos, input_tokens, output_tokens, model`
/** In the order of the sort key, which is how a table that is loaded once should be laid out. */
const EXPORT = `SELECT ${COLUMNS} FROM events ORDER BY events.tenant, events.timestamp, events.id SETTINGS max_execution_time = 0`

type Ask = (sql: string) => Promise<Array<Record<keyof Figures, unknown>>>

/** @param expected what the service answered to a variant */
export async function measureOthers(
  clickhouse: ClickHouseClient,
  questions: readonly Question[],
  expected: (question: Question, variant: Variant) => Promise<Figures>,
): Promise<Array<Other | Skipped>> {
  const asked = questions.filter(({ elsewhere }) => elsewhere)
  const results: Array<Other | Skipped> = []
  for (const [name, measure] of Object.entries({ PostgreSQL: postgres, DuckDB: duckdb })) {
    // Not beside the fleet: PostgreSQL's own user has to get there.
    const directory = await mkdtemp(join(tmpdir(), 'analytics-bench-others-'))
    await chmod(directory, 0o755)
    try {
      results.push(
        await measure(clickhouse, join(directory, name.toLowerCase()), (ask) => measureAll(name, ask, asked, expected)),
      )
    } catch (error) {
      if (!(error instanceof SkipError)) throw error
      say(`  ${name} is skipped: ${error.message}`)
      results.push({ name, skipped: error.message })
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  }
  return results
}

class SkipError extends Error {}

async function emptied(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true })
  await mkdir(directory, { recursive: true })
}

type MeasureAll = (ask: Ask) => Promise<Other['questions']>

async function measureAll(
  name: string,
  ask: Ask,
  questions: readonly Question[],
  expected: (question: Question, variant: Variant) => Promise<Figures>,
): Promise<Other['questions']> {
  const results: Other['questions'] = []
  for (const question of questions) {
    const samples: number[] = []
    const begun = performance.now()
    for (let sample = 0; sample < SAMPLES && seconds(begun) < BUDGET_SECONDS; sample++) {
      const variant = question.variants[sample % question.variants.length] as Variant
      const started = performance.now()
      let first: Awaited<ReturnType<Ask>> = []
      for (const [at, sql] of variant.portable.entries()) {
        const rows = await ask(sql)
        if (at === 0) first = rows
      }
      samples.push(performance.now() - started)
      same(question, variant, await expected(question, variant), sumUp(first))
    }
    say(`  ${name}, ${question.name}: ${Math.round(percentiles(samples).p50)} ms`)
    results.push({ name: question.name, time: percentiles(samples) })
  }
  return results
}

async function duckdb(clickhouse: ClickHouseClient, directory: string, measure: MeasureAll): Promise<Other> {
  await emptied(directory)
  const parquet = join(directory, 'events.parquet')
  const exported = await clickhouse.exec({ query: `${EXPORT} FORMAT Parquet` })
  await pipeline(exported.stream, createWriteStream(parquet))
  const path = join(directory, 'events.duckdb')
  const instance = await DuckDBInstance.create(path, { threads: String(availableParallelism()) })
  const connection = await instance.connect()
  try {
    const started = performance.now()
    await connection.run(`CREATE TABLE events AS
      SELECT tenant, epoch_ms(ms) AS ts, * EXCLUDE (tenant, ms) FROM read_parquet('${parquet.replaceAll("'", "''")}')`)
    await connection.run('CREATE INDEX by_user ON events (user_name)')
    await connection.run('CHECKPOINT')
    const loadSeconds = seconds(started)
    const ask: Ask = async (sql) => (await connection.runAndReadAll(sql)).getRowObjectsJson() as never
    const [row] = (await ask(`SELECT version() AS version,
      (SELECT sum(total_blocks * block_size) FROM pragma_database_size()) AS bytes`)) as never as Array<{
      version: string
      bytes: string
    }>
    return { name: 'DuckDB', version: row?.version ?? '', loadSeconds, bytes: Number(row?.bytes), questions: await measure(ask) }
  } finally {
    connection.closeSync()
    instance.closeSync()
    await rm(directory, { recursive: true, force: true })
  }
}

const TABLE = `
  CREATE TABLE events (
    tenant int NOT NULL, ts timestamp(3) NOT NULL, id text NOT NULL, event_type smallint NOT NULL, assistant text NOT NULL,
    user_name text NOT NULL, assistant_no int NOT NULL, user_no int NOT NULL, cost_nanos bigint NOT NULL,
    input_tokens int NOT NULL, output_tokens int NOT NULL, model text NOT NULL)`

const INDEXES = [
  'ALTER TABLE events ADD PRIMARY KEY (tenant, id)',
  'CREATE INDEX by_time ON events (tenant, ts, id)',
  'CREATE INDEX by_user ON events (tenant, user_name, ts, id)',
  'CREATE INDEX by_user_no ON events (tenant, user_no)',
  'CREATE INDEX by_assistant ON events (tenant, assistant, ts)',
  'VACUUM (ANALYZE) events',
]

async function postgres(clickhouse: ClickHouseClient, directory: string, measure: MeasureAll): Promise<Other> {
  const bin = await findPostgres()
  const owner = await unprivileged()
  await emptied(directory)
  if (owner) await chown(directory, owner.uid, owner.gid)
  await chmod(directory, 0o700)
  const data = join(directory, 'data')
  const initdb = ['-D', data, '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale=C', '--no-sync']
  await run(join(bin, 'initdb'), initdb, { ...owner, cwd: '/' })

  const server = startPostgres(bin, data, directory, owner)
  try {
    const client = await connected(directory, server)
    try {
      const started = performance.now()
      await client.query(TABLE)
      await copy(clickhouse, bin, directory)
      for (const sql of INDEXES) await client.query(sql)
      const loadSeconds = seconds(started)
      const ask: Ask = async (sql) => (await client.query<Record<keyof Figures, unknown>>(sql)).rows
      const [row] = (await ask(
        `SELECT split_part(version(), ' (', 1) AS version, pg_total_relation_size('events') AS bytes`,
      )) as never as Array<{ version: string; bytes: string }>
      return {
        name: 'PostgreSQL',
        version: row?.version ?? '',
        loadSeconds,
        bytes: Number(row?.bytes),
        questions: await measure(ask),
      }
    } finally {
      await client.end()
    }
  } finally {
    await stopPostgres(server)
    await rm(directory, { recursive: true, force: true })
  }
}

/** Where `initdb` and `postgres` are: Debian keeps them out of the PATH. */
async function findPostgres(): Promise<string> {
  const places = ['/usr/lib/postgresql/15/bin', ...(process.env['PATH'] ?? '').split(':').filter(Boolean)]
  for (const place of places) {
    const there = await Promise.all(
      ['initdb', 'postgres', 'psql'].map((name) =>
        access(join(place, name)).then(
          () => true,
          () => false,
        ),
      ),
    )
    if (there.every(Boolean)) return place
  }
  throw new SkipError('initdb, postgres and psql are not installed (on Debian: apt-get install postgresql)')
}

interface Owner {
  uid: number
  gid: number
}

/** PostgreSQL refuses to run as root; its package brings a user for it. */
async function unprivileged(): Promise<Owner | undefined> {
  if (process.getuid?.() !== 0) return undefined
  for (const name of ['postgres', 'nobody']) {
    try {
      const [{ stdout: uid }, { stdout: gid }] = await Promise.all([run('id', ['-u', name]), run('id', ['-g', name])])
      return { uid: Number(uid), gid: Number(gid) }
    } catch {
      // The next one.
    }
  }
  throw new SkipError('there is no unprivileged user to run PostgreSQL as')
}

/** Ends with this process, however this process ends: the shell stops the server when its standard input closes. */
function startPostgres(bin: string, data: string, socketDirectory: string, owner: Owner | undefined): ChildProcess {
  const megabytes = Math.floor(totalmem() / 1_048_576)
  const settings = {
    listen_addresses: '',
    unix_socket_directories: socketDirectory,
    shared_buffers: `${Math.min(4_096, Math.floor(megabytes / 4))}MB`,
    effective_cache_size: `${Math.floor(megabytes / 2)}MB`,
    work_mem: '1GB',
    maintenance_work_mem: '1GB',
    max_wal_size: '8GB',
    wal_level: 'minimal',
    max_wal_senders: '0',
    // Only the load is faster by it.
    fsync: 'off',
    random_page_cost: '1.1',
    max_parallel_workers_per_gather: String(availableParallelism()),
    max_parallel_maintenance_workers: String(availableParallelism()),
    statement_timeout: `${LIMIT_SECONDS * 4}s`,
    timezone: 'UTC',
  }
  const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const script = '"$@" </dev/null & server=$!; cat >/dev/null; kill -INT $server; wait $server'
  return spawn('/bin/sh', ['-c', script, 'sh', join(bin, 'postgres'), '-D', data, ...args], {
    ...owner,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
  })
}

async function connected(host: string, server: ChildProcess): Promise<Client> {
  const deadline = performance.now() + 30_000
  for (;;) {
    const client = new Client({ host, user: 'postgres', database: 'postgres' })
    client.on('error', () => {})
    try {
      await client.connect()
      return client
    } catch (error) {
      if (performance.now() > deadline || server.exitCode !== null)
        throw new SkipError(`PostgreSQL does not start: ${String(error)}`)
      await sleep(200)
    }
  }
}

async function stopPostgres(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null) return
  const gone = new Promise((resolve) => server.once('exit', resolve))
  server.stdin?.end()
  await Promise.race([gone, sleep(20_000, undefined, { ref: false })])
}

/** From ClickHouse through a pipe into COPY. */
async function copy(clickhouse: ClickHouseClient, bin: string, host: string): Promise<void> {
  const columns = COLUMNS.replace('toUnixTimestamp64Milli(timestamp) AS ms', 'timestamp AS ts')
  const exported = await clickhouse.exec({ query: `${EXPORT.replace(COLUMNS, columns)} FORMAT CSV` })
  const psql = spawn(join(bin, 'psql'), ['-qX', '-h', host, '-U', 'postgres', '-c', 'COPY events FROM STDIN (FORMAT csv)'], {
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  let complaint = ''
  psql.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text))
  const done = new Promise<number | null>((resolve) => psql.once('close', resolve))
  await pipeline(exported.stream, psql.stdin)
  const code = await done
  if (code !== 0) throw new Error(`COPY failed: ${complaint.slice(0, 500)}`)
}
