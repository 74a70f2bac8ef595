/** The composition root: everything that makes up the service, put together once. */
import { mkdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import { ClickHouseLogLevel, createClient, type ClickHouseClient } from '@clickhouse/client'
import { createApp } from './app.ts'
import { startEmbedded, type EmbeddedServer } from './clickhouse/embedded.ts'
import { migrate } from './clickhouse/migrate.ts'
import { Store, type StoreOptions } from './clickhouse/store.ts'
import { ConfigError, type Config } from './config.ts'
import { lockDataDir } from './data-dir.ts'
import { AnswerCache } from './http/answer-cache.ts'
import { createVerifier } from './http/auth.ts'
import { loadLocalKey } from './http/local-key.ts'
import { PLACES, TenantLimits } from './http/limits.ts'
import { operations, SelfCheck } from './http/operations.ts'
import { Answers } from './ingest/answers.ts'
import { Journal } from './ingest/journal.ts'
import { instanceName, OWN_LANE, SharedLane } from './ingest/lane.ts'
import { Budget } from './ingest/post-events.ts'
import { Seals } from './ingest/seals.ts'
import { Writer } from './ingest/writer.ts'
import type { Log } from './log.ts'
import { Names } from './names.ts'

/** Instances that share a server agree within this time. */
export const SHARED_MAX_AGE_MS = 2_000

type Connection = Pick<StoreOptions, 'url' | 'reader' | 'writer' | 'admin' | 'cluster'>

/** A ClickHouse to work with; `stop` ends the embedded one and leaves a real server alone. */
export interface ClickHouse extends Connection {
  /** Starts it again, where it is the service's own. */
  readonly restart?: () => void
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
  const server: EmbeddedServer = await startEmbedded({ dataDir, log })
  return { url: server.url, admin: server.admin, reader: server.reader, writer: server.writer, restart: () => server.restart(), stop: () => server.stop() }
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

/** Brings the database up to this build; safe to run from several services at once. */
export async function migrateDatabase(clickhouse: Connection, database: string, log: Log) {
  const { cluster } = clickhouse
  const [client, ...servers] = [clickhouse.url, ...(cluster?.urls ?? [])].map((url) =>
    createClient({ url, ...clickhouse.admin, request_timeout: 600_000, log: { level: ClickHouseLogLevel.OFF } }),
  ) as [ClickHouseClient, ...ClickHouseClient[]]
  try {
    const definer = clickhouse.admin.username
    return await migrate({ client, database, log, ...(cluster ? { cluster: { cluster, servers, definer } } : {}) })
  } finally {
    await Promise.all([client, ...servers].map((one) => one.close()))
  }
}

/** Between two restarts for a broken part: what one does not mend, many do not. */
const RESTART_MS = 60_000

/**
 * Migrates the database and builds the service on it; DATA_DIR is this service's alone until it is closed.
 * @throws DataDirInUseError where another one has it
 */
export async function createService(options: ServiceOptions) {
  const { config, clickhouse, database, log, clock = Date.now } = options
  const { makeStore = (to) => new Store(to), makeCache = (...limits) => new AnswerCache(...limits) } = options
  const dataDir = resolve(config.DATA_DIR)
  await migrateDatabase(clickhouse, database, log)
  let restartedAt = -Infinity
  const store = makeStore({
    ...clickhouse,
    database,
    onBrokenPart() {
      if (!clickhouse.restart || performance.now() - restartedAt < RESTART_MS) return
      restartedAt = performance.now()
      log('error', 'ClickHouse has a part that cannot be read: it is started again, to return to those it was merged from')
      clickhouse.restart()
    },
    queryTimeoutSeconds: config.QUERY_TIMEOUT_SECONDS,
    queryMemoryMb: config.QUERY_MEMORY_MB,
  })
  const localKey = config.localKey ? await loadLocalKey(dataDir) : undefined
  const names = new Names(store)
  // Another instance on the same server may store events that this one does not see.
  const cache = makeCache(config.CACHE_MB, config.CLICKHOUSE_URL === undefined ? Infinity : SHARED_MAX_AGE_MS)
  const seals = new Seals(store, clock)
  const unlock = await lockDataDir(dataDir)
  const writer = new Writer({
    store,
    names,
    seals,
    log,
    journal: await Journal.open(dataDir),
    lane: config.CLICKHOUSE_URL === undefined ? OWN_LANE : new SharedLane(store, await instanceName(dataDir)),
    filterMegabytes: config.ID_FILTER_MB,
    onStored: (tenant, timestamps) => cache.stored(tenant, timestamps),
  })
  await writer.start().catch(async (error: unknown) => {
    await unlock()
    throw error
  })
  const verifier = createVerifier(config, {
    ...(localKey ? { localKey } : {}),
    onKeyFetchError: (error) => log('warn', 'the key set could not be fetched', { error: String(error) }),
  })
  const shared = { store, names, seals, writer, verifier, clock, log }
  const selfCheck = new SelfCheck(shared, config.SELF_CHECK_MINUTES)
  const { MAX_CONCURRENT_QUERIES: perTenant } = config
  const places = config.CLICKHOUSE_URL === undefined ? PLACES.embedded : PLACES.server
  const app = createApp({
    ...shared,
    cache,
    limits: new TenantLimits(config.RATE_LIMIT_PER_SECOND, perTenant, Math.max(places, perTenant)),
    operations: operations({ ...shared, onRepaired: (tenant, moments) => cache.stored(tenant, moments) }, selfCheck),
    corsOrigins: config.CORS_ORIGINS,
    ingestion: {
      writer,
      clock,
      answers: new Answers(store, names),
      futureToleranceMs: config.FUTURE_TOLERANCE_SECONDS * 1000,
      memory: new Budget(config.INGEST_QUEUE_MB * 1_048_576),
    },
  })
  return {
    app,
    store,
    writer,
    seals,
    names,
    localKey,
    async close() {
      selfCheck.stop()
      await writer.close()
      await store.close()
      await unlock()
    },
  }
}
