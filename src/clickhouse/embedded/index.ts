/**
 * The embedded ClickHouse: started with the service, ended with it, restarted where it falls over. What runs in the
 * child is told in `server.ts`.
 *
 *     <dataDir>/clickhouse/   the data, ClickHouse's own layout
 *     <dataDir>/backups/      backups (src/maintenance/backup.ts)
 *     <dataDir>/run/          configuration, written anew at every start, and clickhouse.log (warnings, 2 MB at most)
 */
import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { extname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { DataDirInUseError } from '../../data-dir.ts'
import { DiskWatch, freeBytes, KEPT_FREE_BYTES, removeEmptyFiles } from './disk-watch.ts'
import type { Unavailable } from './server.ts'

export type Log = (level: 'info' | 'warn' | 'error', message: string) => void

export interface User {
  readonly username: string
  readonly password: string
}

export interface EmbeddedServer {
  /** `http://127.0.0.1:PORT`; stays the same over restarts. */
  readonly url: string
  /** May do everything in the databases `analytics` and `analytics_test_…`. */
  readonly admin: User
  /** May SELECT there, and nothing else. */
  readonly reader: User
  /** May INSERT there, and nothing else. */
  readonly writer: User
  /** Of the process that serves now, or of the last one while the next one starts. */
  readonly pid: number
  /**
   * Calls back each time the server ends without having been asked to; a restart is then already on its way.
   * @returns ends that
   */
  onExit(callback: () => void): () => void
  /**
   * Ends the server and starts it again, as after a crash. At its start ClickHouse looks at every part and sets broken
   * ones aside; the parts that one was merged from are still there for 8 minutes, and take its place.
   */
  restart(): void
  /** @throws DiskFullError where what has been written may not be there, or what is written now would not be (disk-watch.ts) */
  assertWritten(): void
  /** Ends the server within a fraction of a second; what it has acknowledged is kept. May be called twice. */
  stop(): Promise<void>
}

/** The embedded ClickHouse cannot run; `message` says why and is meant for whoever started the service. */
export class EmbeddedError extends Error {
  override name = 'EmbeddedError'
}

/** How long a start may take: a large database loads its tables before it listens. */
const START_TIMEOUT_MS = 120_000
/** A killed predecessor keeps its lock until the system has torn it down. */
const LOCK_RETRY_MS = 3_000
const BACK_OFF_MS = { first: 100, max: 5_000, forgottenAfter: 30_000 }

/** Makes the server one shard of several on this machine. */
export interface ShardOptions {
  /** Of the cluster, in SQL: an identifier. */
  readonly cluster: string
  /** What the shards listen on for each other, in their order; the same list for each. */
  readonly tcpPorts: readonly number[]
  /** This server's position in `tcpPorts`. */
  readonly index: number
  /** Known to the shards alone: with it they ask each other in the name of the user who asked them, with that user's grants. */
  readonly secret: string
  /** Of the shard that was started first: the service has one password a role. */
  readonly users?: Pick<EmbeddedServer, 'admin' | 'reader' | 'writer'> | undefined
}

const clusterConfig = ({ cluster, tcpPorts, secret }: ShardOptions) => `
  <remote_servers>
    <${cluster}>
      <secret>${secret}</secret>
      ${tcpPorts.map((port) => `<shard><replica><host>127.0.0.1</host><port>${port}</port></replica></shard>`).join('\n      ')}
    </${cluster}>
  </remote_servers>`

/**
 * What ClickHouse acknowledges is on the disk then: the files of a part and its directory are synced when it is inserted, and
 * when it comes from a merge or a change of rows. By default none is, and old parts are deleted 8 minutes after the merge
 * that replaced them, whether that is on the disk or not.
 */
const SYNC_PARTS = `
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <min_rows_to_fsync_after_merge>1</min_rows_to_fsync_after_merge>`

const configOf = (dataDir: string, syncWrites: boolean, shard?: ShardOptions) => `<clickhouse>
  <logger>
    <log>clickhouse.log</log>
    <size>1M</size>
    <count>1</count>
  </logger>
  <users_config>users.xml</users_config>
  <backups>
    <allowed_path>${join(dataDir, 'backups').replace(/&/g, '&amp;').replace(/</g, '&lt;')}</allowed_path>
  </backups>
  <storage_configuration>
    <disks>
      <default>
        <!-- See disk-watch.ts. -->
        <keep_free_space_bytes>${KEPT_FREE_BYTES}</keep_free_space_bytes>
      </default>
    </disks>
  </storage_configuration>
  <merge_tree>
    <!-- By default a table whose broken parts have more than 1 GiB, as a single large merge has, is not loaded at all. -->
    <max_suspicious_broken_parts>10000</max_suspicious_broken_parts>
    <max_suspicious_broken_parts_bytes>1099511627776</max_suspicious_broken_parts_bytes>${syncWrites ? SYNC_PARTS : ''}
  </merge_tree>
  <max_concurrent_queries>200</max_concurrent_queries>
  <!-- 0 by default in this program, 8 GiB in a server's own configuration; see FEW_ROWS. -->
  <uncompressed_cache_size>268435456</uncompressed_cache_size>
  <!-- The machine has other things to do. -->
  <max_server_memory_usage_to_ram_ratio>0.7</max_server_memory_usage_to_ram_ratio>
  <!-- The program's 2 threads delay merges as soon as a few tables want one. -->
  <background_schedule_pool_size>16</background_schedule_pool_size>${shard ? clusterConfig(shard) : ''}
</clickhouse>
`

/**
 * The user that exists in the embedded server alone; those of the service are in clickhouse/users.xml.
 *
 * The program's own session is always `default` without a password, from 127.0.0.1, so `default` must exist and any
 * local process can be it. Nobody else gets anything from it: no table, no change, one second of one thread.
 */
const USERS = `<clickhouse>
  <profiles>
    <default/>
    <starter>
      <readonly>1</readonly>
      <max_execution_time>1</max_execution_time>
      <max_threads>1</max_threads>
      <max_memory_usage>100000000</max_memory_usage>
      <max_concurrent_queries_for_user>1</max_concurrent_queries_for_user>
    </starter>
  </profiles>
  <quotas>
    <default/>
  </quotas>
  <users>
    <default>
      <no_password/>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>starter</profile>
      <quota>default</quota>
      <grants><query>GRANT SYSTEM LISTEN ON *.*</query></grants>
    </default>
  </users>
</clickhouse>
`

const HERE = fileURLToPath(import.meta.url)
const SERVER_FILE = resolve(HERE, '..', `server${extname(HERE)}`)
const SHARED_USERS_FILE = resolve(HERE, '../../../../clickhouse/users.xml')

const EXEC_ARGV = extname(HERE) === '.ts' ? ['--import', pathToFileURL(createRequire(HERE).resolve('tsx')).href] : []

const newUser = (username: string): User => ({ username, password: randomBytes(24).toString('base64url') })

/**
 * Starts ClickHouse on `dataDir` (made where it is missing) and returns when it answers. From then on it is restarted,
 * on the same port, whenever it ends by itself. The passwords are new at each start and stand in no file.
 * @param options.syncWrites whether what is acknowledged survives a power cut; true where it is not said
 * @param options.free what is said to be free on the disk, in bytes, where a test wants it full
 * @throws DataDirInUseError where another process serves from `dataDir`
 * @throws EmbeddedError where the engine is not installed, does not exist for this machine, or refuses to start
 */
export async function startEmbedded(options: {
  dataDir: string
  log: Log
  shard?: ShardOptions
  syncWrites?: boolean
  free?: () => number
}): Promise<EmbeddedServer> {
  const { log, shard } = options
  const dataDir = resolve(options.dataDir)
  const users = {
    admin: shard?.users?.admin ?? newUser('analytics_admin'),
    reader: shard?.users?.reader ?? newUser('analytics_reader'),
    writer: shard?.users?.writer ?? newUser('analytics_writer'),
  }
  const passwords = Object.fromEntries(
    Object.entries(users).map(([role, user]) => [`ANALYTICS_${role.toUpperCase()}_PASSWORD`, user.password]),
  )
  await writeConfiguration(dataDir, configOf(dataDir, options.syncWrites ?? true, shard))

  const data = join(dataDir, 'clickhouse')
  const tcpPort = shard?.tcpPorts[shard.index]
  const start = (port: number) => {
    try {
      for (const path of removeEmptyFiles(data)) log('warn', `removed ${path}: it is empty, as a full disk leaves it`)
    } catch (error) {
      log('error', `empty files cannot be removed: ${(error as Error).message}`)
    }
    return launch(dataDir, port, passwords, tcpPort)
  }
  const disk = new DiskWatch({
    free: options.free ?? (() => freeBytes(data)),
    restart: () => server.kill(),
    log: (message) => log('error', `${dataDir}: ${message}`),
  })
  const lockDeadline = performance.now() + LOCK_RETRY_MS
  const started = disk.starting()
  let server = start(0)
  let port: number
  for (;;) {
    try {
      port = await server.ready
      break
    } catch (error) {
      server.kill()
      if (!(error instanceof DataDirInUseError) || performance.now() > lockDeadline) {
        disk.stop()
        throw error
      }
      await sleep(200)
      server = start(0)
    }
  }
  started()
  const url = `http://127.0.0.1:${port}`
  log('info', `embedded ClickHouse: ${url}, process ${server.pid}, data in ${dataDir}`)

  const exitCallbacks = new Set<() => void>()
  const stopping = new AbortController()

  async function supervise(): Promise<void> {
    let delay = BACK_OFF_MS.first
    for (;;) {
      const launched = performance.now()
      const reason = await server.ended
      if (stopping.signal.aborted) return
      for (const callback of exitCallbacks) callback()
      if (performance.now() - launched > BACK_OFF_MS.forgottenAfter) delay = BACK_OFF_MS.first
      log('error', `embedded ClickHouse ended (${reason}), starting it again in ${delay / 1_000} s`)
      await sleep(delay, undefined, { signal: stopping.signal }).catch(() => {})
      if (stopping.signal.aborted) return
      delay = Math.min(delay * 2, BACK_OFF_MS.max)
      const startedAgain = disk.starting()
      server = start(port)
      // A start that fails ends the process as well, and that is seen above.
      server.ready.then(
        () => {
          startedAgain()
          return log('info', `embedded ClickHouse: ${url} again, process ${server.pid}`)
        },
        () => {},
      )
    }
  }
  const supervised = supervise()

  return {
    url,
    ...users,
    get pid() {
      return server.pid
    },
    onExit(callback) {
      exitCallbacks.add(callback)
      return () => void exitCallbacks.delete(callback)
    },
    restart: () => server.kill(),
    assertWritten: () => disk.assertWritten(),
    // The same SIGKILL as a crash, which has to be harmless anyway. Killing the sleeping query would end the program
    // gracefully, but in 1.2 s, in 6 s where a client keeps a connection open, and with nothing more on disk for it.
    async stop() {
      stopping.abort()
      disk.stop()
      server.kill()
      await supervised
    },
  }
}

interface Launched {
  readonly pid: number
  /** The port, once /ping answers. Rejects where the server ends before that. */
  readonly ready: Promise<number>
  /** One line that says why the server ended. Never rejects. */
  readonly ended: Promise<string>
  kill(): void
}

/** @param port 0 for one that is free, which is told in a file: of any other it is known, and a full disk has no files */
function launch(dataDir: string, port: number, passwords: Record<string, string>, tcpPort?: number): Launched {
  const runDirectory = join(dataDir, 'run')
  const portFile = port === 0 ? `port-${randomBytes(8).toString('hex')}` : ''
  const child = fork(
    SERVER_FILE,
    [join(dataDir, 'clickhouse'), 'config.xml', String(port), portFile, ...(tcpPort ? [String(tcpPort)] : [])],
    {
      cwd: runDirectory,
      execArgv: EXEC_ARGV,
      // Not settings of the service: the child needs PATH and the like, and users.xml takes the passwords from here.
      env: { ...process.env, ...passwords },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      // A process group of its own: Ctrl-C in a terminal goes to the whole group, and ClickHouse has to outlive what the
      // service still writes while it shuts down.
      detached: true,
    },
  )
  let stderr = ''
  let unavailable: string | undefined
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(-4_000)))
  child.on('message', (message: Unavailable) => (unavailable = message.unavailable))
  child.on('error', (error) => (stderr += error.message))
  const ended = new Promise<string>((done) => {
    child.once('close', (code, signal) => {
      // The program greets with one line about its log; every other line is a complaint.
      const complaints = stderr.split('\n').filter((line) => line !== '' && !line.startsWith('Logging '))
      done(complaints.at(-1) ?? `exit code ${code}, signal ${signal}`)
    })
  })

  async function waitUntilReady(): Promise<number> {
    const deadline = performance.now() + START_TIMEOUT_MS
    try {
      while (child.exitCode === null && child.signalCode === null) {
        const listening = port || (await portIn(join(runDirectory, portFile)))
        if (listening > 0 && (await answers(listening))) return listening
        if (performance.now() > deadline) {
          stderr += `\nno answer within ${START_TIMEOUT_MS / 1_000} s`
          child.kill('SIGKILL')
        }
        await sleep(20)
      }
    } finally {
      if (portFile) await rm(join(runDirectory, portFile), { force: true })
    }
    const reason = await ended
    if (unavailable !== undefined) {
      throw new EmbeddedError(
        `the embedded ClickHouse cannot run here: ${unavailable}. Set CLICKHOUSE_URL to use a ClickHouse server, ` +
          'or install the optional dependencies with npm install --include=optional (linux and macOS, x64 and arm64)',
      )
    }
    if (stderr.includes('Cannot lock file')) {
      throw new DataDirInUseError(`the data directory ${dataDir} is in use: another service runs on it`)
    }
    throw new EmbeddedError(`the embedded ClickHouse does not start: ${reason}`)
  }

  return {
    pid: child.pid ?? 0,
    ready: waitUntilReady(),
    ended,
    kill: () => void child.kill('SIGKILL'),
  }
}

async function writeConfiguration(dataDir: string, config: string): Promise<void> {
  const run = join(dataDir, 'run')
  await mkdir(join(dataDir, 'clickhouse'), { recursive: true, mode: 0o700 })
  await mkdir(join(run, 'users.d'), { recursive: true, mode: 0o700 })
  // A second service on the same directory gets this far before ClickHouse's lock turns it away. It writes what is
  // there already, under a name of its own first, so that a server which restarts just then reads whole files.
  const files = {
    'config.xml': config,
    'users.xml': USERS,
    'users.d/analytics.xml': await readFile(SHARED_USERS_FILE, 'utf8'),
  }
  for (const [name, text] of Object.entries(files)) {
    const draft = join(run, `draft-${randomBytes(8).toString('hex')}`)
    await writeFile(draft, text, { mode: 0o600 })
    await rename(draft, join(run, name))
  }
}

/** The port that a file tells; 0 while the file is not there, or not whole. */
async function portIn(path: string): Promise<number> {
  const text = await readFile(path, 'utf8').catch(() => '')
  return text.endsWith('\n') ? Number(text) : 0
}

const answers = (port: number): Promise<boolean> =>
  fetch(`http://127.0.0.1:${port}/ping`, { signal: AbortSignal.timeout(1_000) }).then(
    (response) => response.ok,
    () => false,
  )
