/** Which ClickHouse a service works with, and its schema. */
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { ClickHouseLogLevel, createClient, type ClickHouseClient } from '@clickhouse/client'
import { startEmbedded } from '../clickhouse/embedded/index.ts'
import { refuseIncompleteRestore } from '../clickhouse/incomplete-restore.ts'
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
      ...(config.CLICKHOUSE_CLUSTER
        ? { cluster: { name: config.CLICKHOUSE_CLUSTER, urls: config.CLICKHOUSE_CLUSTER_URLS } }
        : {}),
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

/** Where backups are kept. Files of the embedded ClickHouse are the service's own, those of a server are out of its reach. */
export function backupPlace(config: Config) {
  const directory = join(resolve(config.DATA_DIR), 'backups')
  const isOwn = config.CLICKHOUSE_URL === undefined && config.BACKUP_DISK === ''
  return {
    disk: config.BACKUP_DISK,
    ...(isOwn ? { removeUnfinished: (name: string) => removeUnfinishedBackup(join(directory, name)) } : {}),
  }
}

/** ClickHouse writes `.backup` last. */
async function removeUnfinishedBackup(path: string): Promise<void> {
  const files: string[] = await readdir(path).catch(() => [])
  if (files.includes('.lock') && !files.includes('.backup')) await rm(path, { recursive: true, force: true })
}

/**
 * Brings the database up to this build; safe to run from several services at once.
 * @throws MigrationError where that cannot be done, and where a restore into the database has not ended
 */
export async function migrateDatabase(clickhouse: Connection, database: string, log: Log) {
  const { cluster } = clickhouse
  const [client, ...servers] = [clickhouse.url, ...(cluster?.urls ?? [])].map((url) =>
    createClient({ url, ...clickhouse.admin, request_timeout: 600_000, log: { level: ClickHouseLogLevel.OFF } }),
  ) as [ClickHouseClient, ...ClickHouseClient[]]
  try {
    const definer = clickhouse.admin.username
    const { assertWritten } = clickhouse
    await refuseIncompleteRestore(client, database)
    const migrated = await migrate({
      client,
      database,
      log,
      assertWritten,
      ...(cluster ? { cluster: { cluster, servers, definer } } : {}),
    })
    // One that has begun meanwhile found the database empty.
    await refuseIncompleteRestore(client, database)
    return migrated
  } finally {
    await Promise.all([client, ...servers].map((one) => one.close()))
  }
}
