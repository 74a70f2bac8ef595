/** The service as a real process, its ClickHouse a child of it unless it is given one: started, killed, started again. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href
const CLOCK = new URL('clock.ts', import.meta.url).href

const RESPAWN_MS = 100
/** A service that cannot start is started again, but not for ever. */
const MAX_FAILED_STARTS = 40

export interface ServiceOptions {
  dataDir: string
  port: number
  /** What the service writes to stderr goes here. */
  logFile: string
  /** How far the clock runs ahead, in milliseconds; asked before each start. */
  ahead: (starts: number) => number
  /** More settings of the service; with CLICKHOUSE_URL it has no ClickHouse of its own. */
  env?: Readonly<Record<string, string>>
}

export class ServiceProcess {
  readonly url: string
  readonly #options: ServiceOptions
  #child: ChildProcess | undefined
  #stopping = false
  #failedStarts = 0
  /** How often it was started, and how often it ended without having been killed. */
  starts = 0
  exits = 0
  /** How long it stays away after it has ended, in milliseconds. */
  respawnMs = RESPAWN_MS

  constructor(options: ServiceOptions) {
    this.#options = options
    this.url = `http://127.0.0.1:${options.port}`
    this.#spawn()
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** True where it was started too often in vain; it is not started any more. */
  get gaveUp(): boolean {
    return this.#failedStarts >= MAX_FAILED_STARTS
  }

  #spawn(): void {
    const { dataDir, port, logFile, ahead, env: more } = this.#options
    const log = openSync(logFile, 'a')
    // Not the settings of whoever runs the suite: only what any process needs.
    const env = { PATH: process.env['PATH'], HOME: process.env['HOME'], TMPDIR: process.env['TMPDIR'] }
    const child = spawn(process.execPath, ['--import', TSX, '--import', CLOCK, 'src/main.ts'], {
      cwd: ROOT,
      env: {
        ...env,
        DATA_DIR: dataDir,
        PORT: String(port),
        LOG_LEVEL: 'warn',
        SELF_CHECK_MINUTES: '0',
        FAULTS_CLOCK_AHEAD_MS: String(ahead(this.starts)),
        ...more,
      },
      stdio: ['ignore', 'ignore', log],
    })
    closeSync(log)
    this.#child = child
    this.starts++
    child.once('exit', (code, signal) => {
      if (this.#stopping) return
      if (signal !== 'SIGKILL') {
        this.exits++
        this.#failedStarts = code === 0 ? 0 : this.#failedStarts + 1
      }
      if (!this.gaveUp) setTimeout(() => this.#stopping || this.#spawn(), this.respawnMs)
    })
  }

  /** The ClickHouse that runs now; waits for one where it is being started. */
  async clickhousePid(): Promise<number> {
    for (const deadline = Date.now() + 30_000; Date.now() < deadline; await sleep(50)) {
      const found = processes().find(({ parent, command }) => parent === this.pid && this.#isClickHouse(command))
      if (found) return found.pid
    }
    throw new Error('the service has no ClickHouse')
  }

  /** Sends a signal to the service or its ClickHouse. */
  async signal(whom: 'service' | 'clickhouse', signal: NodeJS.Signals): Promise<number> {
    const pid = whom === 'service' ? this.pid : await this.clickhousePid()
    if (pid === undefined) throw new Error('the service is not running')
    send(pid, signal)
    return pid
  }

  /** Lets a stopped process go on, whose child ever it is by now. */
  resume(pid: number): void {
    send(pid, 'SIGCONT')
  }

  /** Waits until it says that it can read and write. */
  async ready(withinMs: number): Promise<void> {
    const deadline = Date.now() + withinMs
    while (Date.now() < deadline && !this.gaveUp) {
      if (await this.isReady()) {
        this.#failedStarts = 0
        return
      }
      await sleep(50)
    }
    throw new Error(`the service is not ready within ${withinMs / 1_000} s`)
  }

  isReady(): Promise<boolean> {
    return fetch(`${this.url}/health/ready`, { signal: AbortSignal.timeout(2_000) }).then(
      (response) => response.ok,
      () => false,
    )
  }

  /** Ends it for good, whatever state it is in. */
  async stop(): Promise<void> {
    this.#stopping = true
    const child = this.#child
    if (child && child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGTERM')
      await Promise.race([ended, sleep(15_000, undefined, { ref: false })])
      child.kill('SIGKILL')
      await ended
    }
    this.#endClickHouse()
  }

  /** For an exit handler: nothing of it may outlive the suite. */
  kill(): void {
    this.#stopping = true
    this.#child?.kill('SIGKILL')
    this.#endClickHouse()
  }

  /** A ClickHouse ends with its parent by itself, unless it is stopped and cannot notice. */
  #endClickHouse(): void {
    for (const { pid, command } of processes()) if (this.#isClickHouse(command)) send(pid, 'SIGKILL')
  }

  #isClickHouse(command: string): boolean {
    return command.includes('embedded/server') && command.includes(this.#options.dataDir)
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

function processes(): Array<{ pid: number; parent: number; command: string }> {
  const text = execFileSync('ps', ['-A', '-ww', '-o', 'pid=,ppid=,args='], { encoding: 'utf8', maxBuffer: 16 * 1_048_576 })
  return text.split('\n').flatMap((line) => {
    const [, pid, parent, command] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? []
    return command === undefined ? [] : [{ pid: Number(pid), parent: Number(parent), command }]
  })
}

/** A port of this machine that nobody listens on just now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
