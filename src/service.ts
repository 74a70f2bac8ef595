/** The composition root: everything that makes up the service, put together once. */
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { ClickHouseLogLevel, createClient, type ClickHouseClient } from '@clickhouse/client'
import { UserRanks } from './analytics/user-ranks.ts'
import { createApp } from './http/app.ts'
import { backUp, Backups } from './maintenance/backup.ts'
import { dropOrphanedClones } from './maintenance/backup-clones.ts'
import { startEmbedded } from './clickhouse/embedded/index.ts'
import { refuseIncompleteRestore } from './clickhouse/incomplete-restore.ts'
import { migrate } from './clickhouse/migrate.ts'
import { Store, type StoreOptions } from './clickhouse/store.ts'
import { ConfigError, type Config } from './config.ts'
import { lockDataDir } from './data-dir.ts'
import { AnswerCache } from './analytics/result-cache.ts'
import { createVerifier } from './auth/verifier.ts'
import { loadLocalKey } from './auth/local-key.ts'
import { ExportSlots, MAX_EXPORTS } from './limits/export-slots.ts'
import { PLACES, QuerySlots } from './limits/query-slots.ts'
import { RequestRate } from './limits/request-rate.ts'
import { SelfCheck } from './maintenance/self-check.ts'
import { Answers } from './ingest/idempotency.ts'
import { Journal } from './ingest/journal.ts'
import { OwnLease, SharedLease } from './clickhouse/writer-lease.ts'
import type { WriteLock } from './clickhouse/writer-lease.ts'
import { Budget } from './limits/byte-budget.ts'
import { Rebuilds } from './maintenance/backfill.ts'
import { BrokenParts } from './maintenance/broken-parts.ts'
import { Removals } from './maintenance/erasure.ts'
import { Retention } from './maintenance/retention.ts'
import { Seals } from './maintenance/compaction.ts'
import { Writer } from './ingest/batch-writer.ts'
import type { Log } from './log.ts'
import { Names } from './ids/dictionary.ts'
import { Tenants } from './ids/tenants.ts'
import { Metrics } from './observe/metrics.ts'
import { startTracing } from './observe/tracing.ts'

/** Instances that share a server agree within this time. */
export const SHARED_MAX_AGE_MS = 2_000

type Connection = Pick<StoreOptions, 'url' | 'reader' | 'writer' | 'admin' | 'cluster' | 'assertWritten'>

/** A ClickHouse to work with; `stop` ends the embedded one and leaves a real server alone. */
export interface ClickHouse extends Connection {
  /** Starts it again, where it is the service's own. */
  readonly restart?: () => void
  /** Calls back each time it ended and is being started again, where it is the service's own. */
  readonly onExit?: (callback: () => void) => void
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
  return startEmbedded({ dataDir, log })
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

export interface ServiceOptions {
  config: Config
  clickhouse: ClickHouse
  database: string
  log: Log
  /** Epoch milliseconds; tests fix it. */
  clock?: () => number
  /** What takes the place of the store and the cache; tests put broken ones in, to see that they would notice. */
  makeStore?: (options: StoreOptions) => Store
  makeCache?: (megabytes: number, maxAgeMs: number) => AnswerCache
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
    const migrated = await migrate({ client, database, log, assertWritten, ...(cluster ? { cluster: { cluster, servers, definer } } : {}) })
    // One that has begun meanwhile found the database empty.
    await refuseIncompleteRestore(client, database)
    return migrated
  } finally {
    await Promise.all([client, ...servers].map((one) => one.close()))
  }
}

/**
 * Migrates the database and builds the service on it; DATA_DIR is this service's alone until it is closed.
 * @throws DataDirInUseError where another one has it
 */
export async function createService(options: ServiceOptions) {
  const { config, clickhouse, database, log, clock = Date.now } = options
  const { makeStore = (to) => new Store(to), makeCache = (...limits) => new AnswerCache(...limits) } = options
  const dataDir = resolve(config.DATA_DIR)
  await migrateDatabase(clickhouse, database, log)
  const metrics = new Metrics()
  const tracing = await startTracing(config, log)
  clickhouse.onExit?.(() => metrics.embeddedEnded())
  let broken: BrokenParts | undefined
  const store = makeStore({
    ...clickhouse,
    database,
    onBrokenPart: (error) => broken?.noticed(error),
    onQuery(query) {
      metrics.query(query)
      tracing?.query(query)
    },
    queryTimeoutSeconds: config.QUERY_TIMEOUT_SECONDS,
    queryMemoryMb: config.QUERY_MEMORY_MB,
    maxStreams: MAX_EXPORTS,
  })
  const localKey = config.localKey ? await loadLocalKey(dataDir) : undefined
  const names = new Names(store)
  const tenants = new Tenants(store)
  // Rows that were cut off on a full disk may have been read until now.
  clickhouse.onExit?.(() => names.forgetAll())
  // Another instance on the same server may store events that this one does not see.
  const cache = makeCache(config.CACHE_MB, config.CLICKHOUSE_URL === undefined ? Infinity : SHARED_MAX_AGE_MS)
  const rebuilds = new Rebuilds(store, log)
  const seals = new Seals(store, clock, () => rebuilds.pending.size > 0)
  const retention = new Retention(store, log, clock, config.RETENTION_DAYS, () => cache.forgetAll())
  const removals = new Removals(store, names, (tenant) => cache.forget(tenant))
  const unlock = await lockDataDir(dataDir)
  const writer = new Writer({
    store,
    names,
    tenants,
    seals,
    removals,
    retention,
    log,
    journal: await Journal.open(dataDir),
    lease: config.CLICKHOUSE_URL === undefined ? new OwnLease(store) : new SharedLease(store),
    filterMegabytes: config.ID_FILTER_MB,
    onStored: (tenant, timestamps) => cache.stored(tenant, timestamps),
    observer: {
      origin: () => tracing?.origin(),
      async group(group, work) {
        const started = performance.now()
        const receipts = await (tracing ? tracing.group(group, work) : work())
        metrics.group(group, receipts, performance.now() - started)
      },
    },
  })
  await rebuilds.load().then(() => writer.start()).catch(async (error: unknown) => {
    await unlock()
    throw error
  })
  const verifier = createVerifier(config, {
    ...(localKey ? { localKey } : {}),
    onKeyFetchError(error) {
      metrics.keyFetchFailed()
      log('warn', 'the key set could not be fetched', { error: String(error) })
    },
  })
  const shared = { store, names, tenants, seals, rebuilds, removals, retention, writer, verifier, clock, log }
  const exclusive: WriteLock = (work) => writer.exclusive(work)
  const horizon = () => retention.horizon
  const settleMs = config.QUERY_TIMEOUT_SECONDS * 1000 + (config.CLICKHOUSE_URL === undefined ? 0 : 2 * SHARED_MAX_AGE_MS)
  const parts = new BrokenParts({ store, rebuilds, seals, exclusive, log, horizon, settleMs, restart: clickhouse.restart })
  broken = parts
  // ClickHouse may have set aside parts that it could not load, now and whenever it is started again.
  await parts.look()
  clickhouse.onExit?.(() => void rebuilds.distrustDuring(() => parts.lookUntilDone()))
  void rebuilds.run(seals, exclusive, horizon)
  await retention.start(exclusive).catch((error: unknown) => log('error', 'RETENTION_DAYS has no effect until the next start', { error: String(error) }))
  void removals.resume(exclusive).then(
    (count) => count > 0 && log('warn', 'completed removals of an earlier run', { users: count }),
    (error: unknown) => log('error', 'a removal of an earlier run is not complete yet', { error: String(error) }),
  )
  // An instance that only answers does not enter the lane, where the others learn it.
  const learning =
    config.CLICKHOUSE_URL === undefined
      ? undefined
      : setInterval(() => void Promise.all([removals.learn(), retention.load(), rebuilds.load()]).catch(() => {}), SHARED_MAX_AGE_MS).unref()
  void exclusive(() => dropOrphanedClones(store)).then(
    (count) => count > 0 && log('warn', 'dropped what a backup that was cut off has left', { tables: count }),
    (error: unknown) => log('error', 'what a backup that was cut off has left cannot be dropped yet', { error: String(error) }),
  )
  const backups = new Backups((name) => backUp(store, exclusive, { database, name, ...backupPlace(config) }))
  const selfCheck = new SelfCheck({ ...shared, exclusive }, config.SELF_CHECK_MINUTES)
  const { MAX_CONCURRENT_QUERIES: perTenant } = config
  const places = config.CLICKHOUSE_URL === undefined ? PLACES.embedded : PLACES.server
  const limits = {
    rate: new RequestRate(config.RATE_LIMIT_PER_SECOND),
    slots: new QuerySlots(perTenant, Math.max(places, perTenant)),
    exports: new ExportSlots(perTenant),
  }
  const memory = new Budget(config.INGEST_QUEUE_MB * 1_048_576)
  let isDraining = false
  const draining = () => isDraining
  metrics.expose({ cache, limits, writer, memory, selfCheck, draining })
  const app = createApp({
    ...shared,
    ranks: new UserRanks(store, exclusive, log),
    cache,
    limits,
    exclusive,
    backups,
    broken: parts,
    selfCheck,
    draining,
    registry: metrics.registry,
    metricsToken: config.METRICS_TOKEN,
    metricsOpen: config.localKey,
    schemaVersion: await store.schemaVersion(),
    onRepaired: (tenant, moments) => cache.stored(tenant, moments),
    corsOrigins: config.CORS_ORIGINS,
    observer: { log, metrics, tracing, slowMs: config.SLOW_REQUEST_MS },
    ingestion: {
      writer,
      clock,
      answers: new Answers(store),
      futureToleranceMs: config.FUTURE_TOLERANCE_SECONDS * 1000,
      memory,
    },
  })
  return {
    app,
    store,
    writer,
    seals,
    rebuilds,
    retention,
    names,
    tenants,
    selfCheck,
    broken: parts,
    localKey,
    /** From here on /health/ready says no, and everything else goes on. */
    drain() {
      isDraining = true
    },
    /** Stores what is queued and lets go of everything. Call it when no request is under way any more. */
    async close() {
      parts.stop()
      selfCheck.stop()
      rebuilds.stop()
      retention.stop()
      clearInterval(learning)
      await writer.close()
      await tracing?.close()
      await store.close()
      await unlock()
    },
  }
}
