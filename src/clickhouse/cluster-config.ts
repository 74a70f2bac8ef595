/**
 * The SQL files of `clickhouse/`, written for one server, as a cluster wants them. Of each table `t` there is
 *
 *     t_local   on every server: the rows of its shard
 *     t         on every server: Distributed over t_local, what the service reads and writes
 *
 * and views go from local table to local table, so that a shard keeps the sums of its own events and a question adds up
 * one row more for each shard.
 *
 * Events lie by user, `cityHash64(tenant, user_no)`: the sets of users of two shards have nobody in common, what one user
 * did is read from one shard, and a tenant of any size spreads over all of them. By tenant alone a question would ask one
 * shard instead of all, but a tenant could not outgrow it, and the largest has 70 % of the events (DESIGN §5). Names and
 * kept answers lie by tenant; the lane, the seals and the migrations are a few rows, all of them on the first shard.
 */
import type { ClickHouseSettings } from '@clickhouse/client'

/** A ClickHouse cluster: `name` in the servers' remote_servers. */
export interface Cluster {
  readonly name: string
  /**
   * One for each server, where there are no replicas and no Keeper: what changes tables is sent to each of them. Empty:
   * tables are replicated, and such statements are ON CLUSTER.
   */
  readonly urls: readonly string[]
}

/** The database within the cluster, and the user whose rights its views have. */
export interface ClusteredDatabase {
  readonly cluster: Cluster
  readonly database: string
  readonly definer: string
}

/** A statement to run, `everywhere` or once; ON CLUSTER is once. */
export interface Statement {
  readonly sql: string
  readonly everywhere: boolean
}

/** A statement that has no form for a cluster; `message` quotes its beginning. */
export class ClusterSqlError extends Error {
  override name = 'ClusterSqlError'
}

export const localTable = (table: string): string => `${table}_local`

/** Of everything that is sent to a cluster. */
export function clusterSettings({ urls }: Cluster): ClickHouseSettings {
  return { ...DISTRIBUTED, ...(urls.length === 0 ? REPLICATED : {}) }
}

const DISTRIBUTED: ClickHouseSettings = {
  // A shard that does not answer is an error and never a smaller number.
  skip_unavailable_shards: 0,
  // Acknowledged is written, on every shard. The timeout is that of an insert.
  distributed_foreground_insert: 1,
  distributed_background_insert_timeout: '10',
  // Questions about some users go to their shards alone, those about names to the tenant's.
  optimize_skip_unused_shards: 1,
  distributed_product_mode: 'global',
  // INSERT … SELECT from one Distributed table into another runs on each shard by itself.
  parallel_distributed_insert_select: '2',
}

/**
 * An id that a replica does not show yet would be stored twice, so: what is acknowledged is on a majority of a shard's
 * replicas, and a replica that lacks some of it refuses to answer instead of leaving it out. Costs a round trip to Keeper
 * for each question and each insert; of two replicas, both have to be up to store events.
 */
const REPLICATED: ClickHouseSettings = {
  insert_quorum: 'auto',
  insert_quorum_parallel: 0,
  insert_quorum_timeout: 8000,
  select_sequential_consistency: '1',
  // The same replica as long as it is there: it has what was just written.
  load_balancing: 'in_order',
}

/** A retry of a journalled group may come late: tokens are kept for a week, as many as on a single server. */
const TOKEN_SECONDS = 604_800

/**
 * A statement of the SQL files as the cluster wants it. The files are written in one style, and this relies on it: keywords
 * in capitals, ENGINE at the beginning of a line.
 * @throws ClusterSqlError for a statement other than CREATE, ALTER and DROP of tables and materialized views, and INSERT
 */
export function clustered(statement: string, { cluster, database, definer }: ClusteredDatabase): Statement[] {
  const sql = statement.replace(/^(?:\s|--[^\n]*\n)+/, '')
  const replicated = cluster.urls.length === 0
  const on = replicated ? ` ON CLUSTER ${cluster.name}` : ''

  const table = /^CREATE TABLE (IF NOT EXISTS )?(\w+)/.exec(sql)
  if (table) {
    const [head, unless = '', name = ''] = table
    const local = localTable(name)
    const body = sql.slice(head.length)
    const engine = /^ *ENGINE = (\w*)MergeTree(?:\((.*)\))?$/m
    if (!engine.test(body)) throw new ClusterSqlError(`no MergeTree at the beginning of a line: ${sql.slice(0, 60)}`)
    const path = `'/clickhouse/tables/{shard}/${database}/${name}', '{replica}'`
    const localBody = !replicated
      ? body
      : body
          .replace(
            engine,
            (_, kind: string, args?: string) => `ENGINE = Replicated${kind}MergeTree(${path}${args ? `, ${args}` : ''})`,
          )
          .replace(
            /\bnon_replicated_deduplication_window = (\d+)/,
            `replicated_deduplication_window = $1, replicated_deduplication_window_seconds = ${TOKEN_SECONDS}`,
          )
    return [
      everywhere(`CREATE TABLE ${unless}${local}${on}${localBody}`),
      everywhere(
        `CREATE TABLE ${unless}${name}${on} AS ${local} ENGINE = Distributed('${cluster.name}', '${database}', '${local}', ${shardingKey(name, body)})`,
      ),
    ]
  }

  const view = /^CREATE MATERIALIZED VIEW (IF NOT EXISTS )?(\w+) TO (\w+)/.exec(sql)
  if (view) {
    const [head, unless = '', name = '', target = ''] = view
    return [
      everywhere(
        `CREATE MATERIALIZED VIEW ${unless}${name}${on} TO ${localTable(target)}` +
          sql.slice(head.length).replace('DEFINER = CURRENT_USER', `DEFINER = \`${definer}\``).replace(SOURCE, LOCAL_SOURCE),
      ),
    ]
  }

  const altered = /^ALTER TABLE (\w+)\s+/.exec(sql)
  if (altered) {
    const [head, name = ''] = altered
    const change = sql.slice(head.length)
    // A view is no table of its own here: it has no local twin.
    if (change.startsWith('MODIFY QUERY')) return [everywhere(`ALTER TABLE ${name}${on} ${change.replace(SOURCE, LOCAL_SOURCE)}`)]
    const local = everywhere(`ALTER TABLE ${localTable(name)}${on} ${change}`)
    return /^(ADD|DROP|MODIFY|RENAME|COMMENT) COLUMN/.test(change)
      ? [local, everywhere(`ALTER TABLE ${name}${on} ${change}`)]
      : [local]
  }

  const dropped = /^DROP (TABLE|VIEW) (IF EXISTS )?(\w+)/.exec(sql)
  if (dropped) {
    const [head, kind, unless = '', name = ''] = dropped
    const names = kind === 'TABLE' ? [name, localTable(name)] : [name]
    return names.map((one) => everywhere(`DROP ${kind} ${unless}${one}${on}${sql.slice(head.length)}`))
  }

  if (sql.startsWith('INSERT INTO ')) return [{ sql, everywhere: false }]
  throw new ClusterSqlError(`no form for a cluster: ${sql.slice(0, 60)}`)
}

const everywhere = (sql: string): Statement => ({ sql, everywhere: true })

const SOURCE = /\bFROM (\w+)/g
/** The alias keeps what the view calls its source. */
const LOCAL_SOURCE = 'FROM $1_local AS $1'

const BY_USER = 'cityHash64(tenant, user_no)'
const BY_TENANT = 'cityHash64(tenant)'
const FIRST_SHARD = '0'
/**
 * Views put a fleet's row on each shard that has events of it, so no expression says where one lies; with any other key
 * here, questions would leave shards out (optimize_skip_unused_shards, and seen).
 */
const ANYWHERE = 'rand()'

const SHARDING_KEYS: Readonly<Record<string, string>> = {
  names: BY_TENANT,
  tenants: BY_TENANT,
  name_repairs: FIRST_SHARD,
  events: BY_USER,
  activity: ANYWHERE,
  user_activity: BY_USER,
  user_ranks: BY_TENANT,
  removals: BY_USER,
  horizons: FIRST_SHARD,
  rebuilds: FIRST_SHARD,
  seals: FIRST_SHARD,
  answers: BY_TENANT,
  writer_lease: FIRST_SHARD,
  migrations: FIRST_SHARD,
}

function shardingKey(table: string, columns: string): string {
  const key = SHARDING_KEYS[table] ?? (/^\s+user_no\s/m.test(columns) ? BY_USER : undefined)
  if (key === undefined)
    throw new ClusterSqlError(`where do rows of ${table} lie? Say it in SHARDING_KEYS (src/clickhouse/cluster-config.ts)`)
  return key
}
