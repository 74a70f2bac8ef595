/** The composition root: everything that makes up the service, put together once, phase by phase. */
import { resolve } from 'node:path'
import { AnswerCache } from './analytics/result-cache.ts'
import { UserRanks } from './analytics/user-ranks.ts'
import { loadLocalKey } from './auth/local-key.ts'
import { createVerifier } from './auth/verifier.ts'
import { Store, type StoreOptions } from './clickhouse/store.ts'
import { OwnLease, SharedLease, type WriteLock } from './clickhouse/writer-lease.ts'
import type { Config } from './config.ts'
import { lockDataDir } from './data-dir.ts'
import { createApp } from './http/app.ts'
import { Names } from './ids/dictionary.ts'
import { Tenants } from './ids/tenants.ts'
import { Writer } from './ingest/batch-writer.ts'
import { Answers } from './ingest/idempotency.ts'
import { Journal } from './ingest/journal.ts'
import { Budget } from './limits/byte-budget.ts'
import { ExportSlots, MAX_EXPORTS } from './limits/export-slots.ts'
import { PLACES, QuerySlots } from './limits/query-slots.ts'
import { RequestRate } from './limits/request-rate.ts'
import type { Log } from './log.ts'
import { Rebuilds } from './maintenance/backfill.ts'
import { backUp, Backups } from './maintenance/backup.ts'
import { dropOrphanedClones } from './maintenance/backup-clones.ts'
import { BrokenParts } from './maintenance/broken-parts.ts'
import { Seals } from './maintenance/compaction.ts'
import { Removals } from './maintenance/erasure.ts'
import { Retention } from './maintenance/retention.ts'
import { SelfCheck } from './maintenance/self-check.ts'
import { Metrics } from './observe/metrics.ts'
import { startTracing } from './observe/tracing.ts'
import { backupPlace, type ClickHouse, migrateDatabase } from './service/clickhouse.ts'
import { Resources } from './service/resources.ts'

export { backupPlace, type ClickHouse, migrateDatabase, openClickHouse } from './service/clickhouse.ts'

/** Instances that share a server agree within this time. */
export const SHARED_MAX_AGE_MS = 2_000

export interface ServiceOptions {
  config: Config
  clickhouse: ClickHouse
  database: string
  log: Log
  /** Epoch milliseconds; tests fix it. */
  clock?: () => number
  /** Overrides for tests: broken stores and caches that a correct suite must detect. */
  makeStore?: (options: StoreOptions) => Store
  makeCache?: (megabytes: number, maxAgeMs: number) => AnswerCache
}

/**
 * Migrates the database and builds the service on it; DATA_DIR is this service's alone until it is closed. What was opened is
 * closed again where a phase fails.
 * @throws DataDirInUseError where another one has DATA_DIR, MigrationError, ApiError 503 where ClickHouse is out of reach
 */
export async function createService(options: ServiceOptions) {
  const resources = new Resources()
  try {
    const connection = await connect(options, resources)
    await migrateDatabase(options.clickhouse, options.database, options.log)
    const parts = await build(options, connection, resources)
    await startBackgroundWork(options, parts, resources)
    const { app, drain } = await buildHttp(options, parts)
    const { store, writer, seals, rebuilds, retention, names, tenants, selfCheck, broken, localKey } = parts
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
      broken,
      localKey,
      /** From here on /health/ready says no, and everything else goes on. */
      drain,
      /** Stores what is queued and lets go of everything. Call it when no request is under way any more. */
      close: () => resources.close(),
    }
  } catch (error) {
    await resources.close()
    throw error
  }
}

type Connection = Awaited<ReturnType<typeof connect>>
type Parts = Awaited<ReturnType<typeof build>>

const isShared = ({ CLICKHOUSE_URL }: Config): boolean => CLICKHOUSE_URL !== undefined

/** The data directory, the store and what observes it. Nothing is asked of ClickHouse yet. */
async function connect(
  { config, clickhouse, database, log, makeStore = (to) => new Store(to) }: ServiceOptions,
  resources: Resources,
) {
  const dataDir = resolve(config.DATA_DIR)
  resources.add(await lockDataDir(dataDir))
  const metrics = new Metrics()
  resources.add(clickhouse.onExit?.(() => metrics.embeddedEnded()) ?? (() => {}))
  const tracing = await startTracing(config, log)
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
  resources.add(() => store.close())
  resources.add(() => tracing?.close())
  return {
    dataDir,
    metrics,
    tracing,
    store,
    onBrokenPart(parts: BrokenParts) {
      broken = parts
    },
  }
}

/** Everything that keeps state, put together; nothing runs yet. */
async function build(
  options: ServiceOptions,
  { dataDir, metrics, tracing, store, onBrokenPart }: Connection,
  resources: Resources,
) {
  const { config, clickhouse, database, log, clock = Date.now, makeCache = (...limits) => new AnswerCache(...limits) } = options
  const localKey = config.localKey ? await loadLocalKey(dataDir) : undefined
  const names = new Names(store)
  const tenants = new Tenants(store)
  // Rows that were cut off on a full disk may have been read until now.
  resources.add(clickhouse.onExit?.(() => names.forgetAll()) ?? (() => {}))
  // Another instance on the same server may store events that this one does not see.
  const cache = makeCache(config.CACHE_MB, isShared(config) ? SHARED_MAX_AGE_MS : Infinity)
  const rebuilds = new Rebuilds(store, log)
  const seals = new Seals(store, clock, () => rebuilds.pending.size > 0)
  const retention = new Retention(store, log, clock, config.RETENTION_DAYS, () => cache.forgetAll())
  const removals = new Removals(store, names, (tenant) => cache.forget(tenant))
  const writer = new Writer({
    store,
    names,
    tenants,
    seals,
    removals,
    retention,
    log,
    journal: await Journal.open(dataDir, { sync: config.SYNC_WRITES === 'on', log }),
    lease: isShared(config) ? new SharedLease(store) : new OwnLease(store),
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
  const exclusive: WriteLock = (work) => writer.exclusive(work)
  const verifier = createVerifier(config, {
    ...(localKey ? { localKey } : {}),
    onKeyFetchError(error) {
      metrics.keyFetchFailed()
      log('warn', 'the key set could not be fetched', { error: String(error) })
    },
  })
  const ranks = new UserRanks(store, exclusive, log)
  const backups = new Backups((name) => backUp(store, exclusive, { database, name, ...backupPlace(config) }))
  const shared = { store, names, tenants, seals, rebuilds, removals, retention, writer, exclusive, verifier, clock, log }
  const horizon = () => retention.horizon
  const settleMs = config.QUERY_TIMEOUT_SECONDS * 1000 + (isShared(config) ? 2 * SHARED_MAX_AGE_MS : 0)
  const broken = new BrokenParts({ store, rebuilds, seals, exclusive, log, horizon, settleMs, restart: clickhouse.restart })
  onBrokenPart(broken)
  return { ...shared, broken, metrics, tracing, localKey, cache, ranks, backups, selfCheck: new SelfCheck(shared) }
}

/** Starts the writer and everything else that runs by itself. */
async function startBackgroundWork({ config, clickhouse, log }: ServiceOptions, parts: Parts, resources: Resources) {
  const { store, names, rebuilds, retention, removals, ranks, seals, broken, selfCheck, writer, exclusive } = parts
  await rebuilds.load()
  // What waits for `exclusive` ends when the writer is closed, which is before this.
  resources.add(() => resources.settled())
  resources.add(() => writer.close())
  await writer.start()

  // ClickHouse may have set aside parts that it could not load, now and whenever it is started again.
  resources.add(() => broken.stop())
  await broken.look()
  resources.add(clickhouse.onExit?.(() => void rebuilds.distrustDuring(() => broken.lookUntilDone())) ?? (() => {}))

  resources.add(() => rebuilds.stop())
  resources.run(rebuilds.run(seals, exclusive, () => retention.horizon))

  resources.add(() => retention.stop())
  await retention
    .start(exclusive)
    .catch((error: unknown) => log('error', 'RETENTION_DAYS has no effect until the next start', { error: String(error) }))

  resources.run(
    removals.resume(exclusive).then(
      (count) => count > 0 && log('warn', 'completed removals of an earlier run', { users: count }),
      (error: unknown) => log('error', 'a removal of an earlier run is not complete yet', { error: String(error) }),
    ),
  )
  resources.run(
    exclusive(() => dropOrphanedClones(store)).then(
      (count) => count > 0 && log('warn', 'dropped what a backup that was cut off has left', { tables: count }),
      (error: unknown) => log('error', 'what a backup that was cut off has left cannot be dropped yet', { error: String(error) }),
    ),
  )
  // An instance that only answers does not take the writer lease, under which the others learn it.
  if (isShared(config))
    resources.every(SHARED_MAX_AGE_MS, () =>
      Promise.all([names.learn(), removals.learn(), retention.load(), rebuilds.load()]).catch(() => {}),
    )

  // Not waited for here: what is under way waits for the writer.
  resources.add(() => resources.run(ranks.stop()))
  resources.add(() => selfCheck.stop())
  selfCheck.start(config.SELF_CHECK_MINUTES)
}

/** The limits and the routes. */
async function buildHttp({ config, log }: ServiceOptions, parts: Parts) {
  const { store, writer, cache, metrics, tracing, selfCheck, clock } = parts
  const { MAX_CONCURRENT_QUERIES: perTenant } = config
  const places = isShared(config) ? PLACES.server : PLACES.embedded
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
    ...parts,
    limits,
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
  const drain = () => {
    isDraining = true
  }
  return { app, drain }
}
