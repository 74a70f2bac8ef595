/**
 * A mark in a database that is being restored. While it is there, the database may hold a part of the backup, or rows that
 * nothing has verified yet, so no service may answer from it. It is a table without rows, since a table is made and dropped
 * as a whole, and its comment is the name of the backup.
 */
import type { ClickHouseClient } from '@clickhouse/client'
import { MigrationError } from './migrate.ts'

/** Made before the first table of a backup, dropped after everything is verified. */
export const MARK = 'incomplete_restore'

/** @returns the name of the backup that is being restored, or was when it was cut off; undefined where none is */
export async function incompleteRestore(client: ClickHouseClient, database: string): Promise<string | undefined> {
  const result = await client.query({
    query: `SELECT comment AS backup FROM system.tables WHERE database = {database:String} AND name = '${MARK}'`,
    query_params: { database },
    format: 'JSONEachRow',
  })
  return (await result.json<{ backup: string }>())[0]?.backup
}

/** @throws MigrationError where the database is not whole; the message tells an operator what to do */
export async function refuseIncompleteRestore(client: ClickHouseClient, database: string): Promise<void> {
  const name = await incompleteRestore(client, database)
  if (name === undefined) return
  throw new MigrationError(
    `the database ${database} is not whole: the restore of the backup ${name} into it has not ended. If no restore is running, ` +
      `run it again: npm run restore -- ${name} (or another backup). It removes what is there and begins from the start`,
  )
}
