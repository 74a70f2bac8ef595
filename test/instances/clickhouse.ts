/** The one ClickHouse that all instances share, and a way to ask it that no fault is put into. */
import { setTimeout as sleep } from 'node:timers/promises'
import { startEmbedded, type EmbeddedServer } from '../../src/clickhouse/embedded/index.ts'

/** Asks for rows, as the admin, in one database. */
export type Sql = <T>(query: string) => Promise<T[]>

const SQL_TIMEOUT_MS = 120_000

export interface ClickHouse {
  readonly url: string
  /** The settings with which a service reaches `database` at `url`. */
  settings(url: string, database: string): Record<string, string>
  sql(database: string): Sql
  /** Deletes it, with all that is in it. */
  drop(database: string): Promise<void>
  /** Kills the server; it is started again at once, on the same port. */
  kill(): void
  /** Waits until it answers. */
  ready(): Promise<void>
  stop(): Promise<void>
}

/** Starts it as a child of this process, with which it ends. */
export async function startClickHouse(dataDir: string, log: (text: string) => void): Promise<ClickHouse> {
  const server = await startEmbedded({ dataDir, log: (level, message) => level === 'error' && log(`${level}: ${message}`) })
  const ask = (query: string, database?: string) => request(server, query, database)
  return {
    url: server.url,
    settings: (url, database) => ({
      CLICKHOUSE_URL: url,
      CLICKHOUSE_DATABASE: database,
      CLICKHOUSE_USER: server.admin.username,
      CLICKHOUSE_PASSWORD: server.admin.password,
      CLICKHOUSE_READER_USER: server.reader.username,
      CLICKHOUSE_READER_PASSWORD: server.reader.password,
      CLICKHOUSE_WRITER_USER: server.writer.username,
      CLICKHOUSE_WRITER_PASSWORD: server.writer.password,
    }),
    sql:
      (database) =>
      async <T>(query: string) => {
        const text = await ask(`${query} FORMAT JSONEachRow`, database)
        return text
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line) as T)
      },
    drop: async (database) => void (await ask(`DROP DATABASE IF EXISTS ${database} SYNC`)),
    kill: () => process.kill(server.pid, 'SIGKILL'),
    async ready() {
      for (const deadline = Date.now() + 60_000; ; await sleep(50)) {
        try {
          await ask('SELECT 1')
          return
        } catch (error) {
          if (Date.now() > deadline) throw error
        }
      }
    },
    stop: () => server.stop(),
  }
}

async function request({ url, admin }: EmbeddedServer, query: string, database = 'default'): Promise<string> {
  const parameters = new URLSearchParams({ database, output_format_json_quote_64bit_integers: '0', max_execution_time: '100' })
  const response = await fetch(`${url}/?${parameters}`, {
    method: 'POST',
    headers: { 'X-ClickHouse-User': admin.username, 'X-ClickHouse-Key': admin.password },
    body: query,
    signal: AbortSignal.timeout(SQL_TIMEOUT_MS),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`ClickHouse: ${response.status} ${text.slice(0, 300)}`)
  return text
}
