/** What the commands of operators share: a running service is asked first, and where none answers the database is opened. */
import { resolve } from 'node:path'
import { loadLocalKey, signLocalToken } from '../auth/local-key.ts'
import type { Config } from '../config.ts'
import { createLog } from '../log.ts'
import type { Service } from '../run.ts'
import { createService, openClickHouse } from '../service.ts'

/**
 * POSTs to the running service, with the token given or, where the service signs its own, with one of the scope
 * analytics:operate.
 * @param path with its query
 * @returns the answer's `data`; undefined where nothing listens at the default address
 * @throws Error with what the service says where it refuses, and where the connection breaks or nothing listens at `given.url`
 */
export async function askService<Data>(
  config: Config,
  path: string,
  given: { url?: string | undefined; token?: string | undefined },
): Promise<Data | undefined> {
  const url = given.url ?? `http://127.0.0.1:${config.PORT}`
  const token =
    given.token ??
    (config.localKey
      ? await signLocalToken(
          await loadLocalKey(resolve(config.DATA_DIR)),
          { org: 'operator', scope: 'analytics:operate' },
          config,
        )
      : '')
  const response = await fetch(`${url}${path}`, { method: 'POST', headers: { Authorization: `Bearer ${token}` } }).catch(
    (error: unknown) => {
      // A service that breaks off goes on with its work: beside it, nobody may open the database.
      if (given.url === undefined && isRefused(error)) return undefined
      throw new Error(`the service at ${url} does not answer: ${String((error as Error).cause ?? error)}`)
    },
  )
  if (!response) return undefined
  const body = (await response.json()) as { data?: Data; error?: { message: string } }
  if (!body.data) throw new Error(`the service at ${url} answered ${response.status}: ${body.error?.message}`)
  return body.data
}

/** True where nothing listens on the port. */
function isRefused(error: unknown): boolean {
  const cause = (error as { cause?: unknown }).cause
  const all = cause instanceof AggregateError ? cause.errors : [cause]
  return all.every((one) => (one as NodeJS.ErrnoException | undefined)?.code === 'ECONNREFUSED')
}

/** Opens the database, works on it, and closes it. */
export async function withService<T>(config: Config, work: (service: Service) => Promise<T>): Promise<T> {
  const log = createLog('warn')
  const clickhouse = await openClickHouse(config, log)
  try {
    const service = await createService({ config, clickhouse, database: config.CLICKHOUSE_DATABASE, log })
    try {
      return await work(service)
    } finally {
      await service.close()
    }
  } finally {
    await clickhouse.stop()
  }
}
