/** A service on one port, from its start until SIGINT or SIGTERM: what `npm start` and `npm run demo` have in common. */
import { constants } from 'node:os'
import { signLocalToken } from './auth/local-key.ts'
import { EmbeddedError } from './clickhouse/embedded/index.ts'
import { MigrationError } from './clickhouse/migrate.ts'
import { ConfigError, readConfig } from './config.ts'
import { DataDirInUseError } from './data-dir.ts'
import { drain, listen } from './http/server.ts'
import { createLog } from './log.ts'
import { createService, openClickHouse } from './service.ts'

/** Signals that come this close together are one. */
const SAME_SIGNAL_MS = 500

export type Service = Awaited<ReturnType<typeof createService>>

export interface RunOptions {
  env?: NodeJS.ProcessEnv
  /** Works on the service once it has its port, before it is said to be ready; where it throws, the service ends. */
  beforeReady?: (service: Service) => Promise<void>
}

/**
 * Starts the service and prints its address, and a token where the service signs its own. The process ends where the
 * service cannot start, with the reason on stderr and exit code 1, and with 0 after a signal.
 */
export async function run({ env = process.env, beforeReady }: RunOptions = {}): Promise<Service> {
  try {
    return await start(env, beforeReady)
  } catch (error) {
    process.stderr.write(`agnt-analytics cannot start: ${reasonOf(error)}\n`)
    process.exit(1)
  }
}

async function start(env: NodeJS.ProcessEnv, beforeReady: RunOptions['beforeReady']): Promise<Service> {
  const config = readConfig(env)
  const log = createLog(config.LOG_LEVEL)
  const clickhouse = await openClickHouse(config, log)
  const service = await createService({ config, clickhouse, database: config.CLICKHOUSE_DATABASE, log }).catch(
    async (error: unknown) => {
      await clickhouse.stop()
      throw error
    },
  )
  const server = await listen(service.app.fetch, {
    host: config.HOST,
    port: config.PORT,
    quietMs: 60_000 + 2_000 * config.QUERY_TIMEOUT_SECONDS,
  }).catch(async (error: unknown) => {
    await service.close()
    await clickhouse.stop()
    throw error
  })

  let stopping: Promise<void> | undefined
  const stop = () => (stopping ??= end())
  // In this order: nobody sends requests any more, those under way are answered, what they wrote is stored, and ClickHouse
  // ends when nothing asks it any more.
  const end = async () => {
    service.drain()
    const delayMs = config.DRAIN_DELAY_SECONDS * 1_000
    const all = await drain(server, { delayMs, patienceMs: config.DRAIN_SECONDS * 1_000 })
    if (!all) log('warn', 'requests were cut off that took too long', { drainSeconds: config.DRAIN_SECONDS })
    await service.close()
    await clickhouse.stop()
  }
  let signalledAt = -Infinity
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      // Ctrl-C comes twice: from the terminal, and some 60 ms later handed on by tsx.
      if (performance.now() - signalledAt < SAME_SIGNAL_MS) return
      signalledAt = performance.now()
      // What is journalled is stored at the next start, and nothing else was acknowledged.
      if (stopping) process.exit(128 + constants.signals[signal])
      log('info', 'stopping', { signal })
      void stop().then(() => process.exit(0))
    })
  }

  try {
    await beforeReady?.(service)
  } catch (error) {
    // While a signal stops the service, what fails is its own work; the process ends when the stop is through.
    if (stopping) await new Promise(() => {})
    await stop()
    throw error
  }
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : config.PORT
  const url = `http://${config.HOST.includes(':') ? `[${config.HOST}]` : config.HOST}:${port}`
  process.stdout.write(`AGNT Analytics is ready at ${url}\n`)
  if (service.localKey) {
    const token = await signLocalToken(service.localKey, { org: 'demo', scope: 'analytics:read analytics:write' }, config)
    process.stdout.write(`\nA token for the organization "demo", valid for 30 days:\n\n  export TOKEN=${token}\n\n`)
    // In the fragment, which no browser sends anywhere; the dashboard takes it out of the address at once.
    process.stdout.write(`The dashboard, signed in with it:\n\n  ${url}/#token=${token}\n\n`)
  }
  return service
}

function reasonOf(error: unknown): string {
  if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return 'the port is taken: set PORT to another one'
  const expected =
    error instanceof ConfigError ||
    error instanceof EmbeddedError ||
    error instanceof MigrationError ||
    error instanceof DataDirInUseError
  return expected ? error.message : String((error as Error).stack)
}
