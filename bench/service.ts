/** The service under test, as a process of its own; and what it asks of ClickHouse, overheard from one inside this process. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { createClient, SettingsMap, TupleParam, type ClickHouseClient, type ClickHouseSettings } from '@clickhouse/client'
import { readConfig } from '../src/config.ts'
import { signLocalToken } from '../src/auth/local-key.ts'
import { createService } from '../src/service.ts'
import { connect, end, start, type Connection } from './support.ts'

/** 32 bytes, new in every run. */
const SECRET = randomBytes(32).toString('base64url')

/** Everything at its default, except what stands here. */
export interface Settings {
  readonly dataDir: string
  /** 0: no answer is kept. Requests that are under way at the same time are still shared, see load.ts. */
  readonly cacheMb: number
}

export interface RunningService {
  readonly url: string
  readonly pid: number
  /** The value of an Authorization header for a tenant. */
  authorization(tenant: string): Promise<string>
  /** Resident memory in MB. */
  memory(): Promise<number>
  stop(): Promise<void>
}

const environment = (connection: Connection, { dataDir, cacheMb }: Settings) => ({
  HOST: '127.0.0.1',
  PORT: '0',
  DATA_DIR: dataDir,
  CLICKHOUSE_URL: connection.url,
  CLICKHOUSE_DATABASE: connection.database,
  CLICKHOUSE_USER: connection.admin.username,
  CLICKHOUSE_PASSWORD: connection.admin.password,
  CLICKHOUSE_READER_USER: connection.reader.username,
  CLICKHOUSE_READER_PASSWORD: connection.reader.password,
  CLICKHOUSE_WRITER_USER: connection.writer.username,
  CLICKHOUSE_WRITER_PASSWORD: connection.writer.password,
  JWT_SECRET: SECRET,
  CACHE_MB: String(cacheMb),
  LOG_LEVEL: 'silent',
  // A load generator is a caller like no other.
  RATE_LIMIT_PER_SECOND: '1000000',
})

const START_MS = 120_000
/** Those of `npm start`. */
const START_FLAGS = ['--max-old-space-size=1024']

/** Starts `src/main.ts` and waits until it is ready and has read the ids of the stored events. */
export async function startService(connection: Connection, settings: Settings): Promise<RunningService> {
  const env = environment(connection, settings)
  await mkdir(settings.dataDir, { recursive: true })
  const { PATH, HOME, TMPDIR } = process.env
  const child = start(new URL('../src/main.ts', import.meta.url), { PATH, HOME, TMPDIR, ...env }, START_FLAGS)
  const url = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the service is not ready after ${START_MS / 1000} s`)), START_MS)
    const settle = (done: () => void) => {
      clearTimeout(timer)
      done()
    }
    if (child.stdout) {
      createInterface(child.stdout).on('line', (line) => {
        const ready = /ready at (http:\S+)/.exec(line)?.[1]
        if (ready) settle(() => resolve(ready))
      })
    }
    child.once('exit', (code) => settle(() => reject(new Error(`the service ended with code ${code}`))))
  }).catch(async (error: unknown) => {
    await end(child)
    throw error
  })
  await idle(connection)
  const config = readConfig(env)
  const pid = child.pid ?? 0
  return {
    url,
    pid,
    authorization: (org) => bearer(config, org),
    async memory() {
      const { stdout } = await promisify(execFile)('ps', ['-o', 'rss=', '-p', String(pid)])
      return Number(stdout) / 1024
    },
    stop: () => end(child),
  }
}

async function bearer(config: ReturnType<typeof readConfig>, org: string): Promise<string> {
  const grant = { org, scope: 'analytics:read analytics:write' }
  return `Bearer ${await signLocalToken(new TextEncoder().encode(SECRET), grant, config)}`
}

/** Waits, two minutes at most, until no query runs: a new service reads the ids of all events first. */
async function idle(connection: Connection): Promise<void> {
  const admin = connect(connection, connection.admin, 1)
  // The embedded server's own query, which sleeps for ever, belongs to none of the three users.
  const query = `
    SELECT count() AS running FROM system.processes
    WHERE user IN {users:Array(String)} AND NOT positionCaseInsensitive(query, 'system.processes')`
  const users = [connection.admin, connection.reader, connection.writer].map(({ username }) => username)
  try {
    const deadline = performance.now() + 120_000
    for (let quiet = 0; quiet < 3 && performance.now() < deadline;) {
      await sleep(200)
      const [row] = await (
        await admin.query({ query, query_params: { users }, format: 'JSONEachRow' })
      ).json<{ running: string }>()
      quiet = Number(row?.running) === 0 ? quiet + 1 : 0
    }
  } finally {
    await admin.close()
  }
}

/** One query as the service sends it, fit to be sent to another process. */
export interface Query {
  readonly query: string
  readonly format: 'JSONEachRow'
  readonly query_params: Record<string, unknown>
  readonly clickhouse_settings: ClickHouseSettings
}

/** All queries of one request: those of one step run at the same time, the steps follow each other. */
export type Steps = ReadonlyArray<readonly Query[]>

export interface Eavesdropper {
  /** The answer to a GET, as JSON. */
  ask(path: string): Promise<unknown>
  /** What the service sends to ClickHouse for each of the paths. */
  hear(paths: readonly string[]): Promise<ReadonlyMap<string, Steps>>
  close(): Promise<void>
}

/**
 * The service's own code in this process, where it can be written down what it sends through @clickhouse/client: the
 * text, the parameters and the settings. This way the floor "the same SQL" cannot drift from what the service runs.
 */
export async function eavesdrop(connection: Connection, settings: Settings, tenant: string): Promise<Eavesdropper> {
  const config = readConfig(environment(connection, settings))
  await mkdir(settings.dataDir, { recursive: true })
  const recorder = tapClients()
  const service = await createService({
    config,
    clickhouse: { ...connection, stop: () => Promise.resolve() },
    database: connection.database,
    log: () => {},
  })
  await idle(connection)
  const headers = { Authorization: await bearer(config, tenant) }
  const text = async (path: string) => {
    const response = await service.app.request(path, { headers })
    const body = await response.text()
    if (response.status !== 200) throw new Error(`${path} answers ${response.status}: ${body.slice(0, 500)}`)
    return body
  }
  return {
    ask: async (path) => JSON.parse(await text(path)) as unknown,
    async hear(paths) {
      const heard = new Map<string, Steps>()
      // The second time counts: then the names it needs are known, and lists of active users are made, as where a question
      // was asked before.
      for (const path of paths) await text(path)
      await idle(connection)
      for (const path of paths) {
        recorder.clear()
        await text(path)
        const steps = recorder.steps()
        if (steps.length === 0) throw new Error(`${path} asked nothing of ClickHouse`)
        heard.set(path, steps)
      }
      return heard
    },
    async close() {
      recorder.stop()
      await service.close()
    },
  }
}

type Send = (this: ClickHouseClient, params: Parameters<ClickHouseClient['query']>[0]) => Promise<unknown>

/** Stands between every client of this process and its `query` method. */
function tapClients() {
  const sample = createClient()
  let prototype = sample as { query: Send }
  while (!Object.hasOwn(prototype, 'query')) prototype = Object.getPrototypeOf(prototype) as { query: Send }
  void sample.close()
  const original = prototype.query
  let steps: Query[][] = []
  let running = 0
  prototype.query = async function tapped(params) {
    // Only what is asked for a tenant: an instance also looks what others do, every two seconds.
    if (!params.clickhouse_settings?.additional_table_filters) return original.call(this, params)
    if (running === 0) steps.push([])
    steps.at(-1)?.push({
      query: params.query,
      format: params.format as 'JSONEachRow',
      query_params: params.query_params ?? {},
      clickhouse_settings: params.clickhouse_settings,
    })
    running++
    try {
      return await original.call(this, params)
    } finally {
      running--
    }
  }
  return {
    clear: () => void (steps = []),
    steps: (): Steps => steps.map((step) => [...step]),
    stop: () => void (prototype.query = original),
  }
}

/** Sends a request's queries straight through a client and reads their rows: what remains when the service is taken away. */
export async function replay(client: ClickHouseClient, steps: Steps): Promise<void> {
  for (const step of steps) {
    await Promise.all(step.map(async (query) => (await client.query(query)).json()))
  }
}

/** Tuples and maps have classes of their own in the client, which do not survive the way to another process. */
export const packed = (value: unknown): unknown => {
  if (value instanceof TupleParam) return { $tuple: value.values }
  if (value instanceof SettingsMap) return String(value)
  if (Array.isArray(value)) return value.map(packed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, packed(inner)]))
}

export const unpacked = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(unpacked)
  if (typeof value !== 'object' || value === null) return value
  if ('$tuple' in value) return new TupleParam(value.$tuple as readonly unknown[])
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, unpacked(inner)]))
}
