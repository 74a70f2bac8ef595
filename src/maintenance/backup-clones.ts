/**
 * A backup is copied from clones of the tables (backup.ts). Clones hold everything that the tables held, names of people
 * among it, so those of a backup that was cut off are dropped: at the next start of an instance, with each erasure, and by
 * the next backup.
 */
import { randomBytes } from 'node:crypto'
import type { Store } from '../clickhouse/store.ts'

const CLONE = /^(backup_[0-9a-f]{8}_)(.+)$/

/** How the names of one backup's clones begin, which is its id in `system.backups` too. */
export const newClonePrefix = (): string => `backup_${randomBytes(4).toString('hex')}_`

export const isClone = (table: string): boolean => CLONE.test(table)

export const dropTable = (store: Store, table: string): Promise<unknown> =>
  store.admin.command({ query: `DROP TABLE IF EXISTS ${table} SYNC` })

/**
 * Drops clones that no backup is made from any more. Runs under the writer lease, as the making of clones does: those of a
 * backup that is under way are known to ClickHouse by then.
 * @returns how many tables were dropped
 * @throws where one cannot be dropped, as on a full disk
 */
export async function dropOrphanedClones(store: Store): Promise<number> {
  // A cluster is not backed up by the service.
  if (store.isClustered) return 0
  const tables = await store.adminRows<{ name: string }>(
    `SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, 'backup_')`,
  )
  const clones = tables.filter(({ name }) => isClone(name))
  if (clones.length === 0) return 0
  const running = await store.adminRows<{ id: string }>(`SELECT id FROM system.backups WHERE status = 'CREATING_BACKUP'`)
  const prefixes = new Set(running.map(({ id }) => id))
  const orphans = clones.filter(({ name }) => !prefixes.has(CLONE.exec(name)?.[1] ?? ''))
  for (const { name } of orphans) await dropTable(store, name)
  return orphans.length
}
