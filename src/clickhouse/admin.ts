/** Upkeep of tables on every server, and which servers are there. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ClickHouseClient } from '@clickhouse/client'
import { unavailable } from '../domain/errors.ts'
import { localTable, type Cluster } from './cluster-config.ts'

/** A shard that is there answers in milliseconds. Well within the 2 seconds in which /health/ready answers, whatever hangs. */
const MISSING_AFTER_MS = 1_000

/** What a disk keeps free beside twice the size of a table that is merged into one part. */
const SPARE_BYTES = 2 ** 30

export interface TableAdminOptions {
  readonly admin: ClickHouseClient
  /** The way to each server of a cluster without Keeper; else `admin` alone. */
  readonly servers: readonly ClickHouseClient[]
  readonly database: string
  readonly cluster: Cluster | undefined
}

export class TableAdmin {
  readonly #options: TableAdminOptions

  constructor(options: TableAdminOptions) {
    this.#options = options
  }

  get servers(): readonly ClickHouseClient[] {
    return this.#options.servers
  }

  /** What makes a statement that is sent to one server reach all of them, where Keeper is there to see to that. */
  get #onCluster(): string {
    return this.#options.cluster?.urls.length === 0 ? ` ON CLUSTER ${this.#options.cluster.name}` : ''
  }

  /**
   * Changes rows of a table on every shard, by `DELETE WHERE …` or `UPDATE … WHERE …`; returns when all of them are changed.
   * @throws ApiError 503 where a disk has no space for it
   */
  async change(table: string, change: string, params: Record<string, unknown>): Promise<void> {
    const on = this.#onCluster
    if (on) {
      // A statement for a server that is down stays in Keeper's queue, and would delete later what has been written anew
      // by then. So first one that does no harm, which fails where a server is missing.
      await this.#options.admin.command({
        query: `CREATE DATABASE IF NOT EXISTS ${this.#options.database}${on}`,
        clickhouse_settings: { distributed_ddl_task_timeout: '5', distributed_ddl_output_mode: 'throw' },
      })
    }
    const local = this.#options.cluster ? localTable(table) : table
    for (const server of this.servers) {
      // ClickHouse waits in silence for space to write the largest part anew, and a tenth more (26.7).
      if (await holdsOfParts(server, local, 'max(1.1 * parts.bytes_on_disk > disks.unreserved_space)')) {
        throw unavailable('The analytics store has no space left.', 5, new Error(`no space to change rows of ${table}`))
      }
      await server.command({
        query: `ALTER TABLE ${local}${on} ${change}`,
        query_params: params,
        // The time in a condition is the one at which the statement began (writer-lease.ts).
        clickhouse_settings: { mutations_sync: '1', mutations_execute_nondeterministic_on_initiator: 1, wait_end_of_query: 1 },
      })
    }
  }

  /**
   * Merges all parts of a table into one, on every server where they take up to so many bytes together and the disk has room
   * to spare: a merge on a full disk can leave a part that cannot be read (26.7). Returns when that is done; questions and
   * inserts go on meanwhile.
   */
  async mergeParts(table: string, maxBytes: number): Promise<void> {
    const local = this.#options.cluster ? localTable(table) : table
    for (const server of this.servers) {
      const due = `count() > 1 AND sum(parts.bytes_on_disk) <= {maxBytes:UInt64}
        AND 2 * sum(parts.bytes_on_disk) + {spare:UInt64} < min(disks.unreserved_space)`
      if (!(await holdsOfParts(server, local, due, { maxBytes, spare: SPARE_BYTES }))) continue
      await server.command({
        query: `OPTIMIZE TABLE ${local}${this.#onCluster} FINAL`,
        clickhouse_settings: { wait_end_of_query: 1 },
      })
    }
  }
}

/** Whether a condition holds of all parts of a server's table together, each beside the disk it lies on. */
async function holdsOfParts(
  server: ClickHouseClient,
  local: string,
  condition: string,
  params: Record<string, unknown> = {},
): Promise<boolean> {
  const result = await server.query({
    query: `SELECT ${condition} AS holds
      FROM system.parts AS parts JOIN system.disks AS disks ON disks.name = parts.disk_name
      WHERE parts.active AND parts.database = currentDatabase() AND parts.table = {local:String}`,
    query_params: { local, ...params },
    format: 'JSONEachRow',
  })
  const [row] = await result.json<{ holds: number }>()
  return row?.holds === 1
}

/**
 * Shards that do not answer within a second, such as `2 (clickhouse-2-1, clickhouse-2-2)`. Where one takes connections
 * and nothing more, they cannot be told apart: then `one of …`. Empty where all answer, and where there is no cluster.
 * @throws where the server that is asked is out of reach itself
 */
export async function missingShards(cluster: Cluster, reader: ClickHouseClient, admin: ClickHouseClient): Promise<string[]> {
  const result = await admin.query({
    query: `SELECT shard_num AS shard, groupUniqArray(host_name) AS hosts FROM system.clusters WHERE cluster = {name:String}
      GROUP BY shard ORDER BY shard`,
    format: 'JSONEachRow',
    query_params: { name: cluster.name },
  })
  const hosts = await result.json<{ shard: number; hosts: string[] }>()
  const shards = hosts.map(({ shard, hosts: names }) => ({ shard, text: `${shard} (${names.toSorted().join(', ')})` }))
  const asked = reader
    .query({
      query: 'SELECT DISTINCT _shard_num AS shard FROM shards',
      format: 'JSONEachRow',
      clickhouse_settings: { skip_unavailable_shards: 1 },
      abort_signal: AbortSignal.timeout(MISSING_AFTER_MS),
    })
    .then((answer) => answer.json<{ shard: number }>())
    .catch(() => null)
  // The signal alone was seen to end an answer that had begun a second late.
  const answering = await Promise.race([asked, sleep(MISSING_AFTER_MS, null, { ref: false })])
  if (!answering) return [`one of ${shards.map(({ text }) => text).join(', ')}`]
  return shards.filter(({ shard }) => !answering.some((row) => row.shard === shard)).map(({ text }) => text)
}
