/**
 * Backups by ClickHouse's own BACKUP, of all tables at one moment: in the writer's lane each table is cloned (hard links,
 * a fraction of a second whatever its size), beside it the clones are copied, so events are stored meanwhile.
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from '../clickhouse/store.ts'
import type { WriteLock } from '../clickhouse/writer-lease.ts'

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

const CLONE = 'backup_'
/** What a backup that was cut off has left is removed after this. */
const CLONES_LIVE_SECONDS = 86_400
const POLL_MS = 100
/** Between two tries to drop what a backup was made of: for an hour, and what is there then, by a backup of another day. */
const DROP_MS = 2_000
const MAX_DROPS = 1_800

interface Table {
  name: string
  engine: string
  age: number
}

/** The tables of the database, those with rows first. */
const tablesOf = (store: Store) =>
  store.adminRows<Table>(
    `SELECT name, engine, toUInt32(dateDiff('second', metadata_modification_time, now())) AS age
     FROM system.tables WHERE database = currentDatabase() ORDER BY name`,
  )

/**
 * Makes a backup of the whole database and returns when it is complete.
 * @param disk of ClickHouse's configuration; '' keeps it as files below `<backups><allowed_path>`
 * @throws BackupError where ClickHouse cannot make it, or has one of that name
 * @throws ApiError 503 where the disk became full meanwhile: it may be cut off then
 */
export async function backUp(
  store: Store,
  exclusive: WriteLock,
  { database, name, disk }: { database: string; name: string; disk: string },
): Promise<Backup> {
  if (store.isClustered) {
    throw new BackupError('a cluster is backed up by its own BACKUP … ON CLUSTER while no instance of the service runs')
  }
  const prefix = `${CLONE}${randomBytes(4).toString('hex')}_`
  const old = (await tablesOf(store)).filter((table) => table.name.startsWith(CLONE) && table.age > CLONES_LIVE_SECONDS)
  for (const table of old) await drop(store, table.name)
  const tables: string[] = []
  try {
    const views = await exclusive(async () => {
      const all = (await tablesOf(store)).filter((table) => !table.name.startsWith(CLONE))
      for (const { name: table, engine } of all) {
        if (!engine.endsWith('MergeTree')) continue
        tables.push(table)
        await store.admin.command({ query: `CREATE TABLE ${prefix}${table} CLONE AS ${table}` })
      }
      return all.filter(({ engine }) => engine === 'MaterializedView').map((table) => table.name)
    })
    const parts = [
      ...tables.map((table) => `TABLE ${database}.${prefix}${table} AS ${database}.${table}`),
      ...views.map((view) => `TABLE ${database}.${view}`),
    ]
    return await settled(store, name, `BACKUP ${parts.join(', ')} TO ${placeOf(name, disk)} ASYNC`)
  } finally {
    await dropAll(store, tables.map((table) => `${prefix}${table}`))
  }
}

/** Drops tables. What cannot be dropped now, as on a full disk, is tried again without being waited for. */
async function dropAll(store: Store, tables: readonly string[], tries = MAX_DROPS): Promise<void> {
  const outcomes = await Promise.allSettled(tables.map((table) => drop(store, table)))
  const left = tables.filter((_, at) => outcomes[at]?.status === 'rejected')
  if (left.length > 0 && tries > 0) void sleep(DROP_MS, undefined, { ref: false }).then(() => dropAll(store, left, tries - 1))
}

/**
 * Brings a backup into a database that has no table.
 * @param store of that database, which need not exist
 * @throws BackupError where it has one, and where ClickHouse cannot restore; tables that are there by then stay
 */
export async function restore(
  store: Store,
  { database, name, disk }: { database: string; name: string; disk: string },
): Promise<Backup> {
  const [there] = await store.adminRows<{ tables: number }>(
    `SELECT toUInt32(count()) AS tables FROM system.tables WHERE database = {database:String}`,
    { database },
  )
  if (there && there.tables > 0) {
    throw new BackupError(`the database ${database} is not empty (${there.tables} tables): a backup is restored into an empty one`)
  }
  await store.admin.command({ query: `CREATE DATABASE IF NOT EXISTS ${database}` })
  return settled(store, name, `RESTORE DATABASE ${database} FROM ${placeOf(name, disk)} ASYNC`)
}

const placeOf = (name: string, disk: string) => {
  if (!BACKUP_NAME.test(name)) throw new BackupError(`${name} cannot be the name of a backup: letters, digits, and . _ - between them`)
  return disk === '' ? `File('${name}')` : `Disk('${disk}', '${name}')`
}

/** What ClickHouse says is wrong, without its stack. */
const reasonOf = (error: unknown) => new BackupError(String((error as Error).message).split(', Stack trace')[0], { cause: error })

/** Starts it and waits for its end: it may take longer than any request. */
async function settled(store: Store, name: string, statement: string): Promise<Backup> {
  const [begun] = await store.adminRows<{ id: string }>(statement).catch((error: unknown) => {
    throw reasonOf(error)
  })
  for (;;) {
    const [row] = await store.adminRows<{ status: string; error: string; bytes: number; files: number }>(
      `SELECT status, error, toFloat64(total_size) AS bytes, toFloat64(num_files) AS files FROM system.backups WHERE id = {id:String}`,
      { id: begun?.id },
    ).catch((error: unknown) => {
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

const drop = (store: Store, table: string) => store.admin.command({ query: `DROP TABLE IF EXISTS ${table} SYNC` })

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
