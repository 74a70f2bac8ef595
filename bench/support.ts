/** What every part of the benchmark uses: connections, child processes, percentiles, a line on the terminal. */
import { fork, type ChildProcess } from 'node:child_process'
import { createClient, ClickHouseLogLevel, type ClickHouseClient } from '@clickhouse/client'
import type { Credentials } from '../src/clickhouse/store.ts'

/** A database on the measured ClickHouse, with the three users the service has there. */
export interface Connection {
  readonly url: string
  readonly database: string
  readonly admin: Credentials
  readonly reader: Credentials
  readonly writer: Credentials
}

/** Writes a line of progress; results go to stdout, this to stderr. */
export const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** Seconds since `started`, a value of performance.now(). */
export const seconds = (started: number): number => (performance.now() - started) / 1000

/** The client as src/clickhouse/store.ts sets it up, which is what makes a floor comparable. */
export function connect({ url, database }: Connection, user: Credentials, connections = 64): ClickHouseClient {
  return createClient({
    url,
    database,
    ...user,
    use_multipart_params_auto: true,
    keep_alive: { enabled: true, idle_socket_ttl: 2_000 },
    max_open_connections: connections,
    request_timeout: 3_600_000,
    log: { level: ClickHouseLogLevel.OFF },
  })
}

/** Milliseconds. */
export interface Percentiles {
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly samples: number
}

export function percentiles(samples: readonly number[]): Percentiles {
  const sorted = [...samples].sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), samples: sorted.length }
}

const TSX = import.meta.resolve('tsx')
/** For `--import`: a child with an IPC channel ends when its parent does, however the parent went. */
export const END_WITH_PARENT = 'data:text/javascript,process.on("disconnect",()=>process.exit(1))'

/** Starts a TypeScript file as a process of its own. */
export function start(file: URL, env: NodeJS.ProcessEnv = process.env, flags: readonly string[] = []): ChildProcess {
  return fork(file, {
    execArgv: [...flags, '--import', TSX, '--import', END_WITH_PARENT],
    env,
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  })
}

/** Ends a child that this process started: asks first, insists after 15 s. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 15_000)
  await gone
  clearTimeout(timer)
}
