/** `npm start`: the service on one port, until SIGINT or SIGTERM. */
import { setTimeout as sleep } from 'node:timers/promises'
import { serve, type ServerType } from '@hono/node-server'
import { EmbeddedError } from './clickhouse/embedded.ts'
import { MigrationError } from './clickhouse/migrate.ts'
import { ConfigError, readConfig } from './config.ts'
import { signLocalToken } from './http/local-key.ts'
import { createLog } from './log.ts'
import { createService, openClickHouse } from './service.ts'

/** Requests under way may take this long after a signal. */
const DRAIN_MS = 10_000

async function main(): Promise<void> {
  const config = readConfig()
  const log = createLog(config.LOG_LEVEL)
  const clickhouse = await openClickHouse(config, log)
  const service = await createService({ config, clickhouse, database: config.CLICKHOUSE_DATABASE, log }).catch(
    async (error: unknown) => {
      await clickhouse.stop()
      throw error
    },
  )
  const server = await listen(service.app.fetch, config.HOST, config.PORT).catch(async (error: unknown) => {
    await service.close()
    await clickhouse.stop()
    throw error
  })
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : config.PORT
  process.stdout.write(`AGNT Analytics is ready at http://${config.HOST.includes(':') ? `[${config.HOST}]` : config.HOST}:${port}\n`)
  if (service.localKey) {
    const token = await signLocalToken(service.localKey, { org: 'demo', scope: 'analytics:read analytics:write' }, config)
    process.stdout.write(`\nA token for the organization "demo", valid for 30 days:\n\n  export TOKEN=${token}\n\n`)
  }

  let stopping = false
  const stop = async (signal: string) => {
    if (stopping) return
    stopping = true
    log('info', 'stopping', { signal })
    const closed = new Promise((resolve) => server.close(resolve))
    if ('closeIdleConnections' in server) server.closeIdleConnections()
    await Promise.race([closed, sleep(DRAIN_MS)])
    await service.close()
    await clickhouse.stop()
    process.exit(0)
  }
  process.on('SIGINT', () => void stop('SIGINT'))
  process.on('SIGTERM', () => void stop('SIGTERM'))
}

function listen(fetch: (request: Request) => Response | Promise<Response>, hostname: string, port: number) {
  return new Promise<ServerType>((resolve, reject) => {
    const server = serve(
      {
        fetch,
        hostname,
        port,
        // Slow and oversized requests: 16 kB of headers in 10 s, the whole request in 60 s.
        serverOptions: { headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 65_000, maxHeaderSize: 16_384 },
      },
      () => resolve(server),
    )
    server.once('error', reject)
  })
}

main().catch((error: unknown) => {
  const expected = error instanceof ConfigError || error instanceof EmbeddedError || error instanceof MigrationError
  const inUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
  const message = inUse ? 'the port is taken: set PORT to another one' : expected ? (error as Error).message : (error as Error).stack
  process.stderr.write(`agnt-analytics cannot start: ${message}\n`)
  process.exit(1)
})
