/** The service as a process of its own, as `npm start` runs it, with the settings that it has by default. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { END_WITH_PARENT } from '../../bench/support.ts'
import { readConfig } from '../../src/config.ts'
import { loadLocalKey, signLocalToken } from '../../src/auth/local-key.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const START_MS = 60_000

export interface RunningService {
  readonly host: string
  readonly port: number
  /** Lines it has written to stderr: under overload a line for each refusal would be a load of its own. */
  readonly logged: string[]
  tokenFor(org: string): Promise<string>
  /** Of the service without its ClickHouse, bytes. */
  rss(): number
  stop(): Promise<void>
}

export async function startService(): Promise<RunningService> {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-overload-'))
  const child = spawn(process.execPath, ['--import', 'tsx', '--import', END_WITH_PARENT, 'src/main.ts'], {
    cwd: ROOT,
    // Nothing of the settings of whoever runs this.
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], DATA_DIR: dataDir, PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  const logged: string[] = []
  child.stderr?.setEncoding('utf8').on('data', (text: string) => logged.push(...text.trimEnd().split('\n')))
  try {
    const port = await portOf(child, logged)
    const config = readConfig({})
    const key = await loadLocalKey(dataDir)
    return {
      host: '127.0.0.1',
      port,
      logged,
      tokenFor: (org) => signLocalToken(key, { org, scope: 'analytics:read analytics:write' }, config),
      rss: () => 1_024 * Number(execFileSync('ps', ['-o', 'rss=', '-p', String(child.pid)], { encoding: 'utf8' })),
      stop: () => stop(child, dataDir),
    }
  } catch (error) {
    await stop(child, dataDir)
    throw error
  }
}

function portOf(child: ChildProcess, logged: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = ''
    const timer = setTimeout(() => reject(new Error(`not ready within ${START_MS / 1_000} s`)), START_MS)
    child.once('exit', () => reject(new Error(`the service ended: ${logged.join('\n')}`)))
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      const port = /ready at http:\/\/\S+:(\d+)/.exec(text)?.[1]
      if (!port) return
      clearTimeout(timer)
      resolve(Number(port))
    })
  })
}

async function stop(child: ChildProcess, dataDir: string): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const gone = once(child, 'exit')
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 15_000)
    await gone
    clearTimeout(timer)
  }
  await rm(dataDir, { recursive: true, force: true, maxRetries: 5 })
}
