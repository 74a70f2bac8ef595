/**
 * Brings a backup back, and believes nothing of it: what has been restored is compared with the list that the backup has of
 * itself (backup.ts), every file is read and compared with its checksum, and the rollups are compared with the log. While
 * this goes on, a mark keeps every service from the database (src/clickhouse/incomplete-restore.ts). Where anything is wrong,
 * all of it is removed again.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { incompleteRestore, MARK } from '../clickhouse/incomplete-restore.ts'
import { migrate } from '../clickhouse/migrate.ts'
import type { Store } from '../clickhouse/store.ts'
import { ENDLESS_TERM, type WriteLock } from '../clickhouse/writer-lease.ts'
import type { Log } from '../log.ts'
import { MAX_INSTANT, MIN_INSTANT } from '../time/instant.ts'
import { Rebuilds } from './backfill.ts'
import { begin, BackupError, CONTENTS, partsOf, placeOf, reasonOf, settled, type Backup } from './backup.ts'
import { dropTable } from './backup-clones.ts'
import { Seals } from './compaction.ts'
import { reconcile } from './reconcile.ts'
import { Retention } from './retention.ts'

export interface Restored extends Backup {
  /** Events in the log. */
  events: number
  /** Days and spans of rollups that differed from the log when the backup was made, and were written again. */
  repaired: number
}

export interface RestoreOptions {
  readonly database: string
  readonly name: string
  /** As in `backUp`. */
  readonly disk: string
  readonly log: Log
  /** Called with each table as soon as everything of it is there. */
  readonly onTable?: (table: string) => void
}

/** For so long it is tried to remove what was restored: the embedded ClickHouse may be starting again. */
const UNDO_MS = 30_000
const UNDO_RETRY_MS = 500

/** Nobody else is there: services refuse the database. */
const alone: WriteLock = (work) => work({ condition: () => '1', extend: () => Promise.resolve(ENDLESS_TERM) })

/**
 * Brings a backup into a database that has no table, or only what a restore that was cut off has left, which is removed.
 * @param connect opens a store; the database need not exist yet, so `system` is asked first
 * @throws BackupError where the database has tables, where the backup is not what `backUp` has made, and where ClickHouse
 * cannot restore it. The database has no table then, or, where even that failed, the mark that services refuse
 */
export async function restore(connect: (database: string) => Store, options: RestoreOptions): Promise<Restored> {
  const { database, name } = options
  placeOf(name, options.disk)
  const system = connect('system')
  try {
    if (system.isClustered) throw new BackupError('a cluster is restored by its own RESTORE … ON CLUSTER')
    const interrupted = await incompleteRestore(system.admin, database)
    const there = await tablesOf(system, database)
    if (interrupted === undefined && there.length > 0) {
      throw new BackupError(
        `the database ${database} is not empty (${there.length} tables): a backup is restored into an empty one`,
      )
    }
    await system.admin.command({ query: `CREATE DATABASE IF NOT EXISTS ${database}` })
  } catch (error) {
    throw reasonOf(error)
  } finally {
    await system.close()
  }
  const store = connect(database)
  try {
    await store.admin.command({
      query: `CREATE TABLE IF NOT EXISTS ${MARK} (nothing UInt8) ENGINE = MergeTree ORDER BY nothing COMMENT '${name}'`,
    })
    try {
      await dropAllTables(store)
      // The mark of a restore that was cut off may name another backup.
      await store.admin.command({ query: `ALTER TABLE ${MARK} MODIFY COMMENT '${name}'` })
      const restored = await restoreAndVerify(store, options)
      await dropTable(store, CONTENTS)
      await dropTable(store, MARK)
      return restored
    } catch (error) {
      const reason = reasonOf(error)
      await undo(store).catch((cause: unknown) => {
        throw new BackupError(
          `${reason.message}. What was restored could not be removed (${reasonOf(cause).message}): no service starts on the database ${database} until a restore succeeds`,
          { cause: error },
        )
      })
      throw new BackupError(`${reason.message}. What was restored has been removed: the database ${database} is empty`, {
        cause: error,
      })
    }
  } finally {
    await store.close()
  }
}

const tablesOf = (store: Store, database: string) =>
  store.adminRows<{ name: string; engine: string }>(
    // Views first: they are dropped before what they write to.
    `SELECT name, engine FROM system.tables WHERE database = {database:String} ORDER BY engine = 'MaterializedView' DESC, name`,
    { database },
  )

async function dropAllTables(store: Store): Promise<void> {
  for (const { name } of await tablesOf(store, store.database)) if (name !== MARK) await dropTable(store, name)
}

/** The mark goes last. */
async function undo(store: Store): Promise<void> {
  for (const deadline = performance.now() + UNDO_MS; ; await sleep(UNDO_RETRY_MS)) {
    try {
      await dropAllTables(store)
      return void (await dropTable(store, MARK))
    } catch (error) {
      if (performance.now() > deadline) throw error
    }
  }
}

async function restoreAndVerify(store: Store, { database, name, disk, log, onTable }: RestoreOptions): Promise<Restored> {
  const from = `RESTORE DATABASE ${database} FROM ${placeOf(name, disk)}`
  await settled(store, name, await begin(store, `${from} SETTINGS structure_only = 1 ASYNC`))
  const tables = (await tablesOf(store, database)).filter(
    ({ name: table, engine }) => table !== MARK && engine.endsWith('MergeTree'),
  )
  // Merged parts could not be compared with the list.
  for (const table of tables) await store.admin.command({ query: `SYSTEM STOP MERGES ${table.name}` })
  const backup = await settled(store, name, await begin(store, `${from} ASYNC`))
  await verifyContents(store)
  for (const table of tables) {
    await verifyFiles(store, table.name)
    onTable?.(table.name)
  }
  for (const table of tables) await store.admin.command({ query: `SYSTEM START MERGES ${table.name}` })
  // The backup may be of an earlier version.
  await migrate({ client: store.admin, database, log, assertWritten: () => store.assertWritten() })
  const repaired = await compareRollups(store, log)
  const [events] = await store.adminRows<{ n: number }>('SELECT toFloat64(count()) AS n FROM events')
  return { ...backup, events: events?.n ?? 0, repaired }
}

/** Tables, views, their definitions, rows and parts, by what the backup says of itself. */
async function verifyContents(store: Store): Promise<void> {
  const [listed] = await store.adminRows<{ n: number }>(
    `SELECT toUInt32(count()) AS n FROM system.tables WHERE database = currentDatabase() AND name = '${CONTENTS}'`,
  )
  if (listed?.n !== 1)
    throw new BackupError(`it has no table ${CONTENTS}, so it was not made by npm run backup and cannot be verified`)
  await verifyFiles(store, CONTENTS)
  const rows = await store.adminRows<{ name: string; wrong: string }>(
    // Definitions are compared as this server writes them: one of another version may put them differently.
    `WITH here AS (
       SELECT name, engine, create_table_query AS definition, rows, parts
       FROM (SELECT name, engine, create_table_query FROM system.tables
         WHERE database = currentDatabase() AND name NOT IN ('${MARK}', '${CONTENTS}')) AS tables
       LEFT JOIN (${partsOf('')}) AS parts USING name)
     SELECT name, multiIf(
         here.engine = '', 'it is missing',
         listed.engine = '', 'it is not in the list of the backup',
         formatQuerySingleLineOrNull(here.definition) IS DISTINCT FROM formatQuerySingleLineOrNull(listed.definition), 'its definition is another one',
         here.rows != listed.rows, concat('it has ', toString(here.rows), ' rows instead of ', toString(listed.rows)),
         here.parts != listed.parts, 'its files are other ones',
         '') AS wrong
     FROM here FULL JOIN ${CONTENTS} AS listed USING name WHERE wrong != '' ORDER BY name`,
  )
  if (rows.length === 0) return
  throw new BackupError(`the backup is damaged: ${rows.map(({ name, wrong }) => `${name}: ${wrong}`).join('; ')}`)
}

/** Reads every file of a table and compares it with its checksum. */
async function verifyFiles(store: Store, table: string): Promise<void> {
  const parts = await store.adminRows<{ part_path: string; is_passed: number; message: string }>(
    `CHECK TABLE ${table} SETTINGS check_query_single_value_result = 0, max_execution_time = 0`,
  )
  const broken = parts.find(({ is_passed }) => is_passed === 0)
  if (broken) throw new BackupError(`the backup is damaged: ${table}, part ${broken.part_path}: ${broken.message.slice(0, 300)}`)
}

/**
 * Repairs what differs. Everything is as it was when the backup was made, so the difference was there before: the log
 * decides, as in `npm run reconcile`.
 */
async function compareRollups(store: Store, log: Log): Promise<number> {
  const rebuilds = new Rebuilds(store, log)
  await rebuilds.load()
  // The service will make these from the log, and does not read them before.
  if (rebuilds.pending.size > 0) return 0
  const seals = new Seals(store, Date.now)
  await seals.load()
  const retention = new Retention(store, log, Date.now, 0, () => {})
  await retention.load()
  const range = { from: MIN_INSTANT, to: MAX_INSTANT, horizon: retention.horizon }
  const { drift, repaired } = await reconcile(store, seals, alone, { ...range, repair: true })
  if (repaired < drift.length)
    throw new BackupError(`${drift.length - repaired} differences between the log and the rollups could not be repaired`)
  if (repaired === 0) return 0
  const { drift: left } = await reconcile(store, seals, alone, { ...range, repair: false })
  if (left.length > 0) throw new BackupError(`${left.length} differences between the log and the rollups are left after a repair`)
  return repaired
}
