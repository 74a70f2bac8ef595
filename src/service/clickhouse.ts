/** Which ClickHouse a service works with, and its schema. */
import { mkdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import { ClickHouseLogLevel, createClient, type ClickHouseClient } from '@clickhouse/client'
import { startEmbedded } from '../clickhouse/embedded/index.ts'
import { migrate } from '../clickhouse/migrate.ts'
import type { StoreOptions } from '../clickhouse/store.ts'
import { ConfigError, type Config } from '../config.ts'
import type { Log } from '../log.ts'

export type Connection = Pick<StoreOptions, 'url' | 'reader' | 'writer' | 'admin' | 'cluster' | 'assertWritten'>

/** A ClickHouse to work with; `stop` ends the embedded one and leaves a real server alone. */
export interface ClickHouse extends Connection {
  /** Starts it again, where it is the service's own. */
  readonly restart?: () => void
  /** Calls back each time it ended and is being started again, where it is the service's own; returns what ends that. */
  readonly onExit?: (callback: () => void) => () => void
  stop(): Promise<void>
}

/** The server that CLICKHOUSE_URL names, or the embedded one under DATA_DIR. */
export async function openClickHouse(config: Config, log: Log): Promise<ClickHouse> {
  if (config.CLICKHOUSE_URL !== undefined) {
    const admin = { username: config.CLICKHOUSE_USER, password: config.CLICKHOUSE_PASSWORD }
    const orAdmin = (username: string | undefined, password: string) => (username ? { username, password } : admin)
    return {
      url: config.CLICKHOUSE_URL,
      admin,
      ...(config.CLICKHOUSE_CLUSTER ? { cluster: { name: config.CLICKHOUSE_CLUSTER, urls: config.CLICKHOUSE_CLUSTER_URLS } } : {}),
      reader: orAdmin(config.CLICKHOUSE_READER_USER, config.CLICKHOUSE_READER_PASSWORD),
      writer: orAdmin(config.CLICKHOUSE_WRITER_USER, config.CLICKHOUSE_WRITER_PASSWORD),
      stop: () => Promise.resolve(),
    }
  }
  if (config.CLICKHOUSE_DATABASE !== 'analytics') {
    throw new ConfigError('bad settings: CLICKHOUSE_DATABASE goes with CLICKHOUSE_URL; the embedded one is called analytics')
  }
  const dataDir = resolve(config.DATA_DIR)
  await mkdir(dataDir, { recursive: true })
  return startEmbedded({ dataDir, log, syncWrites: config.SYNC_WRITES === 'on' })
}

/** Brings the database up to this build; safe to run from several services at once. */
export async function migrateDatabase(clickhouse: Connection, database: string, log: Log) {
  const { cluster } = clickhouse
  const [client, ...servers] = [clickhouse.url, ...(cluster?.urls ?? [])].map((url) =>
    createClient({ url, ...clickhouse.admin, request_timeout: 600_000, log: { level: ClickHouseLogLevel.OFF } }),
  ) as [ClickHouseClient, ...ClickHouseClient[]]
  try {
    const definer = clickhouse.admin.username
    const { assertWritten } = clickhouse
    return await migrate({ client, database, log, assertWritten, ...(cluster ? { cluster: { cluster, servers, definer } } : {}) })
  } finally {
    await Promise.all([client, ...servers].map((one) => one.close()))
  }
}
