/** The SQL files in their form for a cluster: what is made of each statement, and that ClickHouse can read it. */
import { createClient, type ClickHouseClient } from '@clickhouse/client'
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { clustered, ClusterSqlError, clusterSettings } from '../../src/clickhouse/cluster-config.ts'
import { splitStatements } from '../../src/clickhouse/migrate.ts'

const DIRECTORY = fileURLToPath(new URL('../../clickhouse', import.meta.url))
const PLAIN = { cluster: { name: 'fleet', urls: ['http://a:8123', 'http://b:8123'] }, database: 'analytics', definer: 'owner' }
const REPLICATED = { ...PLAIN, cluster: { name: 'fleet', urls: [] } }

const EVENTS = `-- Why; not a statement.
CREATE TABLE IF NOT EXISTS events
(
    tenant  UUID,  -- ENGINE = in a comment
    user_no UInt32,
    PROJECTION by_user (SELECT * ORDER BY tenant, user_no)
)
ENGINE = MergeTree
ORDER BY tenant
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 1024`

const texts = (statement: string, database = PLAIN) => clustered(statement, database).map(({ sql }) => sql)

describe('a table', () => {
  test('of a cluster without Keeper is made on every server, with one over all of them', () => {
    const made = clustered(EVENTS, PLAIN)
    expect(made.every(({ everywhere }) => everywhere)).toBe(true)
    expect(made.map(({ sql }) => sql)).toEqual([
      EVENTS.replace('-- Why; not a statement.\n', '').replace('EXISTS events', 'EXISTS events_local'),
      `CREATE TABLE IF NOT EXISTS events AS events_local ENGINE = Distributed('fleet', 'analytics', 'events_local', cityHash64(tenant, user_no))`,
    ])
  })

  test('of a cluster with Keeper is replicated, and knows its tokens in Keeper', () => {
    expect(texts(EVENTS, REPLICATED)).toEqual([
      `CREATE TABLE IF NOT EXISTS events_local ON CLUSTER fleet
(
    tenant  UUID,  -- ENGINE = in a comment
    user_no UInt32,
    PROJECTION by_user (SELECT * ORDER BY tenant, user_no)
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/analytics/events', '{replica}')
ORDER BY tenant
SETTINGS replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 604800, index_granularity = 1024`,
      `CREATE TABLE IF NOT EXISTS events ON CLUSTER fleet AS events_local ENGINE = Distributed('fleet', 'analytics', 'events_local', cityHash64(tenant, user_no))`,
    ])
  })

  test('keeps the arguments of its engine', () => {
    const [local] = texts(
      `CREATE TABLE answers (tenant UUID, at DateTime)\nENGINE = ReplacingMergeTree(at)\nORDER BY tenant`,
      REPLICATED,
    )
    expect(local).toContain(
      `\nENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/analytics/answers', '{replica}', at)\n`,
    )
  })

  test('of which nobody has said where its rows lie is refused', () => {
    const statement = 'CREATE TABLE other (tenant UUID)\nENGINE = MergeTree\nORDER BY tenant'
    expect(() => clustered(statement, PLAIN)).toThrow(ClusterSqlError)
    expect(() => clustered(statement, PLAIN)).toThrow('where do rows of other lie?')
  })
})

test('a view goes from local table to local table, and keeps the name of its source', () => {
  expect(
    texts(
      `CREATE MATERIALIZED VIEW IF NOT EXISTS activity_mv TO activity
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS
SELECT tenant, events.user_no FROM (SELECT tenant, events.user_no FROM events) GROUP BY tenant`,
      REPLICATED,
    ),
  ).toEqual([
    `CREATE MATERIALIZED VIEW IF NOT EXISTS activity_mv ON CLUSTER fleet TO activity_local
DEFINER = \`owner\` SQL SECURITY DEFINER
AS
SELECT tenant, events.user_no FROM (SELECT tenant, events.user_no FROM events_local AS events) GROUP BY tenant`,
  ])
})

describe('a change', () => {
  test.each<[string, string[]]>([
    [
      'ALTER TABLE events ADD COLUMN IF NOT EXISTS channel String',
      [
        'ALTER TABLE events_local ON CLUSTER fleet ADD COLUMN IF NOT EXISTS channel String',
        'ALTER TABLE events ON CLUSTER fleet ADD COLUMN IF NOT EXISTS channel String',
      ],
    ],
    [
      'ALTER TABLE events ADD INDEX i (tenant) TYPE minmax',
      ['ALTER TABLE events_local ON CLUSTER fleet ADD INDEX i (tenant) TYPE minmax'],
    ],
    [
      'ALTER TABLE events MODIFY SETTING index_granularity = 512',
      ['ALTER TABLE events_local ON CLUSTER fleet MODIFY SETTING index_granularity = 512'],
    ],
    [
      'ALTER TABLE activity_mv MODIFY QUERY SELECT tenant FROM events',
      ['ALTER TABLE activity_mv ON CLUSTER fleet MODIFY QUERY SELECT tenant FROM events_local AS events'],
    ],
    [
      'DROP TABLE IF EXISTS events SYNC',
      ['DROP TABLE IF EXISTS events ON CLUSTER fleet SYNC', 'DROP TABLE IF EXISTS events_local ON CLUSTER fleet SYNC'],
    ],
    ['DROP VIEW activity_mv', ['DROP VIEW activity_mv ON CLUSTER fleet']],
  ])('%s', (statement, expected) => {
    expect(texts(statement, REPLICATED)).toEqual(expected)
    expect(texts(statement)).toEqual(expected.map((text) => text.replace(' ON CLUSTER fleet', '')))
  })

  test('INSERT … SELECT is sent once: the tables over all shards are in it', () => {
    const sql = 'INSERT INTO activity SELECT * FROM activity'
    expect(clustered(sql, REPLICATED)).toEqual([{ sql, everywhere: false }])
  })

  test('anything else is refused, with its beginning', () => {
    expect(() => clustered('RENAME TABLE a TO b', PLAIN)).toThrow('no form for a cluster: RENAME TABLE a TO b')
  })
})

test('reads and inserts leave no shard out, and with Keeper no replica behind', () => {
  expect(clusterSettings(PLAIN.cluster)).toMatchObject({ skip_unavailable_shards: 0, distributed_foreground_insert: 1 })
  expect(clusterSettings(PLAIN.cluster)).not.toHaveProperty('insert_quorum')
  expect(clusterSettings(REPLICATED.cluster)).toMatchObject({
    insert_quorum: 'auto',
    insert_quorum_parallel: 0,
    select_sequential_consistency: '1',
  })
})

describe('the files', () => {
  let client: ClickHouseClient
  beforeAll(() => {
    const { url, admin } = inject('clickhouse')
    client = createClient({ url, ...admin })
  })
  afterAll(() => client.close())

  /** As ClickHouse writes the statement, where it can read it. */
  async function formatted(statement: string): Promise<string> {
    const result = await client.query({
      query: 'SELECT formatQuery({statement:String}) AS text',
      query_params: { statement },
      format: 'JSONEachRow',
    })
    const [row] = await result.json<{ text: string }>()
    return row?.text ?? ''
  }

  test.each([
    ['without Keeper', PLAIN],
    ['with Keeper', REPLICATED],
  ] as const)('all of them have a form for a cluster %s', async (_, database) => {
    const names = (await readdir(DIRECTORY)).filter((name) => name.endsWith('.sql')).sort()
    expect(names.length).toBeGreaterThan(5)
    for (const name of names) {
      const statements = splitStatements(await readFile(`${DIRECTORY}/${name}`, 'utf8'))
      for (const { sql, everywhere } of statements.flatMap((statement) => clustered(statement, database))) {
        const text = await formatted(sql)
        expect(everywhere, name).toBe(true)
        expect(text.includes('ON CLUSTER fleet'), `${name}: ${text}`).toBe(database === REPLICATED)
        const [, engine] = /ENGINE = (\w+)/.exec(text) ?? []
        if (engine && engine !== 'Distributed') {
          expect(engine.startsWith('Replicated'), `${name}: ${text}`).toBe(database === REPLICATED)
          expect(text.includes('non_replicated_deduplication_window'), name).toBe(/\bnon_replicated/.test(sql))
        }
        if (database === REPLICATED) expect(text, name).not.toContain('non_replicated')
        // A view that read or wrote a Distributed table would send rows through the network, and count events of other shards.
        if (text.startsWith('CREATE MATERIALIZED VIEW')) {
          const tables = [...text.matchAll(/\b(?:TO|FROM) (\w+)/g)].map(([, table]) => table as string)
          expect(tables.length, name).toBeGreaterThanOrEqual(2)
          for (const table of tables) expect(table, name).toMatch(/_local$/)
        }
      }
    }
  })
})
