/**
 * Brings a database up to the schema in `clickhouse/`: numbered SQL files, each applied once and in order, also where
 * several services start at the same moment.
 */
import { randomUUID } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ClickHouseClient, ClickHouseSettings } from '@clickhouse/client'
import { checksumOf } from './checksums.ts'
import { clustered, clusterSettings, type Cluster } from './cluster-config.ts'
import type { Log } from './embedded/index.ts'

export interface MigrateOptions {
  /** Connected as a user who may do everything in `database`; needs no database of its own. */
  readonly client: ClickHouseClient
  /** Made where it is missing. */
  readonly database: string
  /** Holds `001_name.sql`, `002_name.sql`, …, beside other kinds of files. Default: the project's `clickhouse/`. */
  readonly directory?: string
  /**
   * After how long another runner's unfinished file is taken for abandoned, 60 s by default. A file that can take
   * longer may run twice at once.
   */
  readonly takeoverMs?: number
  /** Installs on every server of a cluster. */
  readonly cluster?: ClusterAccess | undefined
  /** Throws where what has been written may not be there, as on a full disk. */
  readonly assertWritten?: (() => void) | undefined
  readonly log?: Log
}

export interface ClusterAccess {
  readonly cluster: Cluster
  /** One for each of the cluster's `urls`, connected as `client` is. */
  readonly servers: readonly ClickHouseClient[]
  /** The user that `client` is connected as; the views have this user's rights. */
  readonly definer: string
}

/** The database cannot be brought up to date; `message` says why and names the file. */
export class MigrationError extends Error {
  override name = 'MigrationError'
}

const DEFAULT_DIRECTORY = fileURLToPath(new URL('../../clickhouse', import.meta.url))
const POLL_MS = 100

/** The migrator's own tables: run at every start, and not numbered like the others. */
const OWN_TABLES = '000_migrations.sql'
/** Of a cluster alone. */
const SHARDS = 'cluster/shards.sql'

const projectFile = (name: string) => readFile(join(DEFAULT_DIRECTORY, name), 'utf8')

interface MigrationFile {
  readonly version: number
  readonly name: string
  readonly checksum: string
  readonly statements: string[]
  /** Rollups that a line `-- rebuild: …` names: in a database with events they are to be made anew from those. */
  readonly rebuild: string[]
}

type State = 'started' | 'failed' | 'done'

/** The row that decides about one version: `done` where there is one, else the latest of the latest attempt. */
interface Latest {
  readonly version: number
  readonly checksum: string
  readonly attempt: number
  readonly runner: string
  readonly state: State
  /** Milliseconds since the row was written, by the server's clock at both ends. */
  readonly age: number
}

/**
 * Applies every file that the database has not seen. Safe to call from any number of processes at once, as long as they
 * reach the same server: each waits until all files are applied, whoever does it. Statements have to bear repetition
 * (IF NOT EXISTS), since a file whose runner died half way is run again from its start.
 * @returns the names of the files that this call applied, `001_events.sql` and so on
 * @throws MigrationError where the files are not numbered 1, 2, 3, …; where an applied file has changed or the database
 * is newer than the files (nothing is changed then); where a statement fails or the disk is full (its file is not marked
 * done)
 */
export async function migrate(options: MigrateOptions): Promise<{ applied: string[] }> {
  const { database, takeoverMs = 60_000, assertWritten = () => {}, log = () => {} } = options
  const files = await readFiles(options.directory ?? DEFAULT_DIRECTORY)
  const server = connect(options.client, database, options.cluster)
  const runner = `${hostname()}:${process.pid}:${randomUUID()}`

  await server.createDatabase()
  for (const statement of splitStatements(await projectFile(OWN_TABLES))) await server.command(statement)
  refuseForeign(files, await server.latest(), database)

  const applied: string[] = []
  for (const file of files) {
    if (await applyOnce(file)) applied.push(file.name)
  }
  return { applied }

  /** True where this runner applied the file, false where it was done, or got done, without it. */
  async function applyOnce(file: MigrationFile): Promise<boolean> {
    let tried = 0
    for (;;) {
      const latest = (await server.latest()).find((row) => row.version === file.version)
      if (latest?.state === 'done') {
        refuseChanged(file, latest, database)
        return false
      }
      if (latest?.state === 'started' && latest.age < takeoverMs) {
        await sleep(POLL_MS)
        continue
      }
      if (latest?.state === 'started') {
        log('warn', `migration ${file.name}: ${latest.runner} has left it unfinished ${latest.age} ms ago, taking over`)
      }
      // Counted here as well: a server that died while it wrote the claim may know the token and not have the row.
      tried = Math.max(tried, latest?.attempt ?? 0) + 1
      await record(file, tried, 'started')
      if (!(await server.holds(file, tried, runner))) continue
      await apply(file, tried)
      return true
    }
  }

  async function apply(file: MigrationFile, attempt: number): Promise<void> {
    const began = performance.now()
    for (const [index, statement] of file.statements.entries()) {
      try {
        assertWritten()
        await server.command(statement)
        assertWritten()
      } catch (error) {
        // For the others, who need not wait for the takeover then. The first error is the one to tell.
        await server.record(file, attempt, runner, 'failed').catch(() => {})
        const reason = error instanceof Error ? error.message : String(error)
        throw new MigrationError(`migration ${file.name}, statement ${index + 1}: ${reason}`, { cause: error })
      }
    }
    for (const rollup of file.rebuild) await server.askForRebuild(rollup, file.version)
    await record(file, attempt, 'done')
    log('info', `migration ${file.name} applied in ${Math.round(performance.now() - began)} ms`)
  }

  async function record(file: MigrationFile, attempt: number, state: State): Promise<void> {
    try {
      assertWritten()
      await server.record(file, attempt, runner, state)
      assertWritten()
    } catch (error) {
      throw new MigrationError(`migration ${file.name}: ${(error as Error).message}`, { cause: error })
    }
  }
}

/** What the migrator asks of ClickHouse, in `database`: the files name their tables without one. */
function connect(client: ClickHouseClient, database: string, access?: ClusterAccess) {
  const http_headers = { 'X-ClickHouse-Database': database }
  const onCluster: ClickHouseSettings = access ? clusterSettings(access.cluster) : {}
  const servers = access && access.servers.length > 0 ? access.servers : [client]
  return {
    async createDatabase(): Promise<void> {
      const on = access && access.servers.length === 0 ? ` ON CLUSTER ${access.cluster.name}` : ''
      for (const one of servers) {
        await one.command({ query: `CREATE DATABASE IF NOT EXISTS {database:Identifier}${on}`, query_params: { database } })
      }
      if (access) {
        const shards = await projectFile(SHARDS)
        const query = shards.replace('EXISTS shards', `$&${on}`).replaceAll('{cluster}', access.cluster.name)
        await client.command({ query, http_headers })
      }
    },

    /** Runs a statement of the SQL files, in its form for the cluster where there is one. */
    async command(query: string): Promise<void> {
      const statements = access ? clustered(query, { ...access, database }) : [{ sql: query, everywhere: false }]
      for (const { sql, everywhere } of statements) {
        for (const one of everywhere ? servers : [client]) {
          await one.command({ query: sql, http_headers, clickhouse_settings: onCluster })
        }
      }
    },

    async latest(): Promise<Latest[]> {
      const result = await client.query({
        query: `
          SELECT version, checksum, attempt, runner, state, dateDiff('millisecond', at, now64(3)) AS age
          FROM migrations
          ORDER BY version, state = 'done' DESC, attempt DESC, state DESC
          LIMIT 1 BY version`,
        format: 'JSONEachRow',
        http_headers,
        clickhouse_settings: { ...onCluster, output_format_json_quote_64bit_integers: 0 },
      })
      return result.json<Latest>()
    },

    async record(file: MigrationFile, attempt: number, runner: string, state: State): Promise<void> {
      await client.insert({
        table: 'migrations',
        values: [{ version: file.version, name: file.name, checksum: file.checksum, attempt, runner, state }],
        format: 'JSONEachRow',
        http_headers,
        clickhouse_settings: {
          ...onCluster,
          insert_deduplicate: 1,
          insert_deduplication_token: `${state}-${file.version}-${attempt}`,
          async_insert: 0,
        },
      })
    },

    /** Where there are no events there is nothing to make anew. */
    async askForRebuild(name: string, version: number): Promise<void> {
      await client.command({
        query: `
          INSERT INTO rebuilds (name, version, phase, tenant, level, start)
          SELECT {name:String}, greatest({version:UInt32}, (SELECT max(version) + 1 FROM rebuilds WHERE name = {name:String})), 0, '', 0, 0
          WHERE (SELECT count() FROM events) > 0`,
        query_params: { name, version },
        http_headers,
        clickhouse_settings: { insert_deduplicate: 0, wait_end_of_query: 1 },
      })
    },

    /** Whether the claim of this attempt is this runner's. */
    async holds(file: MigrationFile, attempt: number, runner: string): Promise<boolean> {
      const result = await client.query({
        query: `
          SELECT count() AS claims
          FROM migrations
          WHERE version = {version:UInt32} AND attempt = {attempt:UInt32} AND runner = {runner:String}`,
        query_params: { version: file.version, attempt, runner },
        format: 'JSONEachRow',
        http_headers,
        clickhouse_settings: { ...onCluster, output_format_json_quote_64bit_integers: 0 },
      })
      const [row] = await result.json<{ claims: number }>()
      return row?.claims === 1
    },
  }
}

/** Stops before the first change where the database was made by other files than these. */
function refuseForeign(files: MigrationFile[], rows: Latest[], database: string): void {
  const newest = Math.max(0, ...rows.map((row) => row.version))
  if (newest > files.length) {
    throw new MigrationError(
      `the database ${database} is at migration ${newest}, this build knows ${files.length}: run the newer build. Nothing was changed`,
    )
  }
  for (const row of rows) {
    const file = files[row.version - 1]
    if (row.state === 'done' && file) refuseChanged(file, row, database)
  }
}

function refuseChanged(file: MigrationFile, row: Latest, database: string): void {
  if (row.checksum === file.checksum) return
  throw new MigrationError(
    `migration ${file.name} has changed since it was applied to the database ${database} (applied: ${row.checksum.slice(0, 12)}…, ` +
      `here: ${file.checksum.slice(0, 12)}…). Nothing was changed. Files of a release stay as they are, so either the file was edited ` +
      'here: restore it (git checkout) and put the change into a new file; or the database belongs to a build that was never ' +
      'released: run that build, or start with an empty database and send the events again',
  )
}

async function readFiles(directory: string): Promise<MigrationFile[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql') && name !== OWN_TABLES).sort()
  return Promise.all(
    names.map(async (name, index) => {
      const version = Number(/^(\d{3})_\w+\.sql$/.exec(name)?.[1])
      if (version !== index + 1) {
        const wanted = String(index + 1).padStart(3, '0')
        throw new MigrationError(`${join(directory, name)} should be ${wanted}_name.sql: no gaps, no twins`)
      }
      const text = await readFile(join(directory, name), 'utf8')
      return {
        version,
        name,
        checksum: checksumOf(text),
        statements: splitStatements(text),
        rebuild: /^-- rebuild: (.+)$/m.exec(text)?.[1]?.split(', ') ?? [],
      }
    }),
  )
}

/**
 * Cuts a file at the semicolons that end statements: not those in quotes ('…', "…", `…`, with a doubled quote or a
 * backslash inside) nor in comments (`--` and block comments, which nest in ClickHouse).
 * @returns the statements without their semicolons, comments kept, in order; pieces that hold comments alone are left
 * out. What is never closed runs to the end of the file, for ClickHouse to complain about.
 */
export function splitStatements(sql: string): string[] {
  const statements: string[] = []
  let start = 0
  let hasCode = false
  let at = 0
  const end = (): void => {
    if (hasCode) statements.push(sql.slice(start, at).trim())
    start = at + 1
    hasCode = false
  }
  while (at < sql.length) {
    const character = sql.charAt(at)
    if (sql.startsWith('--', at)) {
      at = endOfLine(sql, at)
    } else if (sql.startsWith('/*', at)) {
      at = endOfBlockComment(sql, at)
    } else if (character === ';') {
      end()
      at++
    } else {
      hasCode ||= character.trim() !== ''
      at = QUOTES.has(character) ? endOfQuoted(sql, at) : at + 1
    }
  }
  end()
  return statements
}

const QUOTES = new Set(["'", '"', '`'])

function endOfLine(sql: string, start: number): number {
  const at = sql.indexOf('\n', start)
  return at === -1 ? sql.length : at
}

function endOfBlockComment(sql: string, start: number): number {
  let at = start
  let depth = 0
  do {
    if (sql.startsWith('/*', at)) {
      depth++
      at += 2
    } else if (sql.startsWith('*/', at)) {
      depth--
      at += 2
    } else {
      at++
    }
  } while (depth > 0 && at < sql.length)
  return at
}

/** A doubled quote needs no care: it ends one quoted piece and starts the next. */
function endOfQuoted(sql: string, start: number): number {
  const quote = sql.charAt(start)
  let at = start + 1
  while (at < sql.length && sql.charAt(at) !== quote) at += sql.charAt(at) === '\\' ? 2 : 1
  return Math.min(at + 1, sql.length)
}
