/**
 * Backups by ClickHouse's own BACKUP, of all tables at one moment: under the writer lease each table is cloned (hard links,
 * a fraction of a second whatever its size), beside it the clones are copied, so events are stored meanwhile.
 *
 * A table `backup_contents` goes with them. It lists the tables with their definitions and the checksums of their parts, so
 * that a restore can tell whether it has everything, and nothing else (restore.ts).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isConnectionFailure } from '../clickhouse/errors.ts'
import type { Store } from '../clickhouse/store.ts'
import type { WriteLock } from '../clickhouse/writer-lease.ts'
import { ApiError } from '../domain/errors.ts'
import { dropOrphanedClones, dropTable, isClone, newClonePrefix } from './backup-clones.ts'

/** Cannot be made or restored; `message` is meant for whoever asked. */
export class BackupError extends Error {
  override name = 'BackupError'
}

export interface Backup {
  name: string
  /** What it takes where it is kept. */
  bytes: number
  files: number
}

/** A file name: what the server keeps it under, below its `allowed_path` or on a disk. */
export const BACKUP_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/

/** One row a table or view of the backup. */
export const CONTENTS = 'backup_contents'
const CONTENTS_COLUMNS = `
    name       String,
    engine     String,
    definition String,
    rows       UInt64,
    parts      Array(String) COMMENT 'system.parts.hash_of_all_files, sorted: over the checksums of all files of a part'`

const POLL_MS = 100
/** Between two tries to drop the clones: for an hour, and what is there then, at the next start or erasure. */
const DROP_MS = 2_000
const MAX_DROPS = 1_800

/**
 * Makes a backup of the whole database and returns when it is complete.
 * @param to.disk of ClickHouse's configuration; '' keeps it as files below `<backups><allowed_path>`
 * @param to.removeUnfinished removes what a backup of that name that was cut off has left where backups are kept, and leaves
 * a complete one alone; not given where that is out of the service's reach
 * @throws BackupError where ClickHouse cannot make it, or has one of that name
 * @throws ApiError 503 where the disk became full meanwhile: it may be cut off then
 */
export async function backUp(
  store: Store,
  exclusive: WriteLock,
  to: { database: string; name: string; disk: string; removeUnfinished?: ((name: string) => Promise<void>) | undefined },
): Promise<Backup> {
  const { database, name, disk, removeUnfinished } = to
  if (store.isClustered) {
    throw new BackupError('a cluster is backed up by its own BACKUP … ON CLUSTER while no instance of the service runs')
  }
  const place = placeOf(name, disk)
  const prefix = newClonePrefix()
  const tables: string[] = []
  try {
    // The BACKUP begins under the lease, so that whoever has the lease can tell clones of a running backup from others.
    const id = await exclusive(async (guard) => {
      await dropOrphanedClones(store)
      const [running] = await store.adminRows(
        `SELECT 1 FROM system.backups WHERE status = 'CREATING_BACKUP' AND name = {place:String}`,
        { place },
      )
      if (!running) await removeUnfinished?.(name)
      const all = (await tablesOf(store)).filter((table) => !isClone(table.name))
      for (const { name: table, engine } of all) {
        if (!engine.endsWith('MergeTree')) continue
        tables.push(table)
        await store.admin.command({ query: `CREATE TABLE ${prefix}${table} AS ${table}` })
        // Without merges, the parts of the clone are those that `backup_contents` says.
        await store.admin.command({ query: `SYSTEM STOP MERGES ${prefix}${table}` })
        await store.admin.command({ query: `ALTER TABLE ${prefix}${table} ATTACH PARTITION ALL FROM ${table}` })
      }
      tables.push(CONTENTS)
      await listContents(store, prefix)
      const [lease] = await store.adminRows<{ held: number }>(`SELECT ${guard.condition()} AS held`)
      if (lease?.held !== 1) throw new BackupError('the writer lease ended while the tables were cloned: try again')
      const views = all.filter(({ engine }) => engine === 'MaterializedView')
      const parts = [
        ...tables.map((table) => `TABLE ${database}.${prefix}${table} AS ${database}.${table}`),
        ...views.map((view) => `TABLE ${database}.${view.name}`),
      ]
      return begin(store, `BACKUP ${parts.join(', ')} TO ${place} SETTINGS id = '${prefix}' ASYNC`)
    })
    return await settled(store, name, id)
  } catch (error) {
    if (error instanceof ApiError || isConnectionFailure(error)) throw error
    throw reasonOf(error)
  } finally {
    await dropAll(
      store,
      tables.map((table) => `${prefix}${table}`),
    )
  }
}

/** The tables of the database. */
const tablesOf = (store: Store) =>
  store.adminRows<{ name: string; engine: string }>(
    `SELECT name, engine FROM system.tables WHERE database = currentDatabase() ORDER BY name`,
  )

async function listContents(store: Store, prefix: string): Promise<void> {
  const contents = `${prefix}${CONTENTS}`
  await store.admin.command({ query: `CREATE TABLE ${contents} (${CONTENTS_COLUMNS}) ENGINE = MergeTree ORDER BY name` })
  await store.admin.command({ query: `SYSTEM STOP MERGES ${contents}` })
  await store.admin.command({
    query: `INSERT INTO ${contents}
      SELECT name, engine, create_table_query, rows, parts
      FROM (SELECT name, engine, create_table_query FROM system.tables
        WHERE database = currentDatabase() AND name NOT LIKE 'backup\\_%' AND (endsWith(engine, 'MergeTree') OR engine = 'MaterializedView')) AS tables
      LEFT JOIN (${partsOf(prefix)}) AS parts USING name`,
    clickhouse_settings: { wait_end_of_query: 1 },
  })
}

/** SQL of the rows and parts of all tables whose names begin with `prefix`, by the rest of their names. */
export const partsOf = (prefix: string): string => `
  SELECT substring(table, ${prefix.length + 1}) AS name, sum(rows) AS rows, arraySort(groupArray(hash_of_all_files)) AS parts
  FROM system.parts WHERE database = currentDatabase() AND active AND startsWith(table, '${prefix}') GROUP BY name`

/** Drops tables. What cannot be dropped now, as on a full disk, is tried again without being waited for. */
async function dropAll(store: Store, tables: readonly string[], tries = MAX_DROPS): Promise<void> {
  const outcomes = await Promise.allSettled(tables.map((table) => dropTable(store, table)))
  const left = tables.filter((_, at) => outcomes[at]?.status === 'rejected')
  if (left.length > 0 && tries > 0) void sleep(DROP_MS, undefined, { ref: false }).then(() => dropAll(store, left, tries - 1))
}

/** SQL of the place where a backup is kept, as `system.backups` names it. */
export const placeOf = (name: string, disk: string): string => {
  if (!BACKUP_NAME.test(name))
    throw new BackupError(`${name} cannot be the name of a backup: letters, digits, and . _ - between them`)
  return disk === '' ? `File('${name}')` : `Disk('${disk}', '${name}')`
}

/** What ClickHouse says is wrong, without its stack. */
export function reasonOf(error: unknown): BackupError {
  if (error instanceof BackupError) return error
  const message = (String((error as Error).message).split(', Stack trace')[0] as string).trim().replace(/[. ]+$/, '')
  // Of ClickHouse: also where the one that wrote it is gone.
  if (!/is being written already/.test(message)) return new BackupError(message, { cause: error })
  return new BackupError(
    `${message}. If no backup is running, an earlier one of this name was cut off: remove what it left where backups are kept, or choose another name`,
    { cause: error },
  )
}

/** Starts a BACKUP or RESTORE … ASYNC, which may take longer than any request. @returns its id in `system.backups` */
export async function begin(store: Store, statement: string): Promise<string> {
  const [begun] = await store.adminRows<{ id: string }>(statement)
  return begun?.id ?? ''
}

/**
 * Waits for the end of a BACKUP or RESTORE.
 * @throws BackupError where it failed
 */
export async function settled(store: Store, name: string, id: string): Promise<Backup> {
  for (;;) {
    const [row] = await store
      .adminRows<{ status: string; error: string; bytes: number; files: number }>(
        `SELECT status, error, toFloat64(total_size) AS bytes, toFloat64(num_files) AS files FROM system.backups WHERE id = {id:String}`,
        { id },
      )
      .catch((error: unknown) => {
        throw reasonOf(error)
      })
    if (!row) throw new BackupError('ClickHouse was restarted meanwhile')
    if (row.status === 'BACKUP_CREATED' || row.status === 'RESTORED') {
      store.assertWritten()
      return { name, bytes: row.bytes, files: row.files }
    }
    if (!/^(CREATING_BACKUP|RESTORING)$/.test(row.status)) throw reasonOf(new Error(row.error || row.status))
    await sleep(POLL_MS)
  }
}

/** Backups that this service is asked for over HTTP: one at a time, and asking again waits for the same one. */
export class Backups {
  readonly #make: (name: string) => Promise<Backup>
  #running: { name: string; made: Promise<Backup> } | undefined

  constructor(make: (name: string) => Promise<Backup>) {
    this.#make = make
  }

  /**
   * @returns null where it takes longer than a request may: ask again
   * @throws BackupError as `backUp` does, and where another one is under way
   */
  async make(name: string): Promise<Backup | null> {
    if (this.#running && this.#running.name !== name) throw new BackupError(`the backup ${this.#running.name} is under way`)
    this.#running ??= { name, made: this.#make(name) }
    const { made } = this.#running
    // Whoever asks last is told how it ended.
    made.catch(() => {})
    const done = await Promise.race([made.finally(() => (this.#running = undefined)), sleep(PATIENCE_MS, null, { ref: false })])
    return done
  }
}

/** Shorter than what proxies wait for. */
const PATIENCE_MS = 20_000
