import { createClient, type ClickHouseClient } from '@clickhouse/client'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { startEmbedded, type EmbeddedServer } from '../../src/clickhouse/embedded/index.ts'
import { migrate, MigrationError, splitStatements } from '../../src/clickhouse/migrate.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

describe('splitStatements', () => {
  const cases: [name: string, sql: string, statements: string[]][] = [
    ['nothing', '', []],
    ['blanks and semicolons alone', ' \n;;\n ; ', []],
    ['comments alone', '-- a;\n/* b; */;\n-- c', []],
    ['two statements, the last without a semicolon', 'SELECT 1;\nSELECT 2\n', ['SELECT 1', 'SELECT 2']],
    ['two on one line', 'SELECT 1; SELECT 2;', ['SELECT 1', 'SELECT 2']],
    ['a comment before and inside', "-- why;\nSELECT 1, -- it's\n 2;", ["-- why;\nSELECT 1, -- it's\n 2"]],
    ['a block comment with a quote', "SELECT /* don't; */ 1; SELECT 2", ["SELECT /* don't; */ 1", 'SELECT 2']],
    ['a nested block comment', 'SELECT /* a /* b; */ c; */ 1; SELECT 2', ['SELECT /* a /* b; */ c; */ 1', 'SELECT 2']],
    ['a semicolon in single quotes', "SELECT 'a;b'; SELECT 2", ["SELECT 'a;b'", 'SELECT 2']],
    ['a doubled single quote', "SELECT 'it''s;'; SELECT 2", ["SELECT 'it''s;'", 'SELECT 2']],
    ['a backslash before the quote', String.raw`SELECT '\';'; SELECT 2`, [String.raw`SELECT '\';'`, 'SELECT 2']],
    ['a backslash before a backslash', String.raw`SELECT '\\'; SELECT 2`, [String.raw`SELECT '\\'`, 'SELECT 2']],
    ['backquotes', 'SELECT `a;``b;`; SELECT 2', ['SELECT `a;``b;`', 'SELECT 2']],
    ['double quotes', 'SELECT "a;""b;"; SELECT 2', ['SELECT "a;""b;"', 'SELECT 2']],
    ['comment signs in quotes', "SELECT '-- /*'; SELECT 2", ["SELECT '-- /*'", 'SELECT 2']],
    ['a statement that is a quoted thing', "'a'; 'b'", ["'a'", "'b'"]],
    ['what never ends', "SELECT 1; SELECT 'a; b", ['SELECT 1', "SELECT 'a; b"]],
    ['a block comment that never ends', 'SELECT 1; SELECT 2 /* a; b', ['SELECT 1', 'SELECT 2 /* a; b']],
    ['a backslash at the end', "SELECT 'a\\", ["SELECT 'a\\"]],
  ]
  test.each(cases)('%s', (_name, sql, statements) => {
    expect(splitStatements(sql)).toEqual(statements)
  })
})

const full = () => {
  throw new Error('the disk is full')
}

/** A file that leaves one row each time it runs, and makes its table on the way. */
const counting = (step: number) => `
  -- step ${step}; counts its own runs
  CREATE TABLE IF NOT EXISTS steps (step UInt8) ENGINE = MergeTree ORDER BY step;
  INSERT INTO steps VALUES (${step});`

describe('migrate', () => {
  let server: EmbeddedServer
  let client: ClickHouseClient
  let dataDir: string
  let directory: string
  let database: string

  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'analytics-migrate-'))
    server = await startEmbedded({ dataDir, log: () => {} })
    client = createClient({ url: server.url, ...server.admin, log: { level: 127 } })
  })
  afterAll(async () => {
    await client.close()
    await server.stop()
    await rm(dataDir, { recursive: true })
  })
  beforeEach(async () => {
    database = `analytics_test_migrate_${randomBytes(4).toString('hex')}`
    directory = await mkdtemp(join(dataDir, 'files-'))
  })

  const file = (name: string, sql: string) => writeFile(join(directory, name), sql)
  const run = (
    options: { takeoverMs?: number; assertWritten?: () => void; log?: (level: string, message: string) => void } = {},
  ) => migrate({ client, database, directory, ...options })
  const rows = async (query: string) => {
    const http_headers = { 'X-ClickHouse-Database': database }
    return (await client.query({ query, format: 'JSONEachRow', http_headers })).json()
  }
  const claim = (row: { version: number; attempt?: number; at?: string; state?: string }) =>
    client.insert({
      table: `${database}.migrations`,
      values: [{ name: 'x.sql', checksum: 'x', attempt: 1, runner: 'a dead one', state: 'started', ...row }],
      format: 'JSONEachRow',
    })
  const states = () => rows('SELECT version, attempt, state FROM migrations ORDER BY version, attempt, state')

  test('makes the database, applies the files in order and once', async () => {
    await file('001_first.sql', counting(1))
    await file('002_second.sql', `${counting(2)} INSERT INTO steps SELECT 20 + count() FROM steps`)
    await file('users.xml', 'not SQL')
    const lines: string[] = []
    expect(await run({ log: (level, line) => lines.push(`${level} ${line}`) })).toEqual({
      applied: ['001_first.sql', '002_second.sql'],
    })
    expect(await run()).toEqual({ applied: [] })
    await file('003_third.sql', counting(3))
    expect(await run()).toEqual({ applied: ['003_third.sql'] })
    expect(await rows('SELECT step FROM steps ORDER BY step')).toEqual([1, 2, 3, 22].map((step) => ({ step })))
    expect(lines).toEqual([
      expect.stringMatching(/^info migration 001_first\.sql applied in \d+ ms$/),
      expect.stringMatching(/^info migration 002_second\.sql applied in \d+ ms$/),
    ])
    expect(await states()).toEqual(
      [1, 2, 3].flatMap((version) => ['started', 'done'].map((state) => ({ version, attempt: 1, state }))),
    )
  })

  test('four at once share the work, and each returns when all of it is done', async () => {
    for (const step of [1, 2, 3, 4, 5]) await file(`00${step}_step.sql`, counting(step))
    const results = await Promise.all(
      [1, 2, 3, 4].map(async () => {
        const { applied } = await run()
        return { applied, done: await rows("SELECT count() AS n FROM migrations WHERE state = 'done'") }
      }),
    )
    expect(results.flatMap((result) => result.applied).sort()).toEqual([1, 2, 3, 4, 5].map((step) => `00${step}_step.sql`))
    for (const result of results) expect(result.done).toEqual([{ n: 5 }])
    expect(await rows('SELECT step FROM steps ORDER BY step')).toEqual([1, 2, 3, 4, 5].map((step) => ({ step })))
  })

  test('a database that a newer build has migrated is refused and left alone', async () => {
    await file('001_first.sql', counting(1))
    await run()
    await claim({ version: 3, state: 'done' })
    await file('002_second.sql', counting(2))
    await expect(run()).rejects.toThrow(MigrationError)
    await expect(run()).rejects.toThrow(`${database} is at migration 3, this build knows 2`)
    expect(await rows('SELECT step FROM steps')).toEqual([{ step: 1 }])
  })

  test('an applied file that has changed is refused before anything else is applied', async () => {
    await file('001_first.sql', counting(1))
    await run()
    await file('001_first.sql', `${counting(1)} -- edited`)
    await file('002_second.sql', counting(2))
    await expect(run()).rejects.toThrow(MigrationError)
    await expect(run()).rejects.toThrow('001_first.sql has changed since it was applied')
    expect(await rows('SELECT step FROM steps')).toEqual([{ step: 1 }])
  })

  test('a claim of a runner that died is taken over, once, after the time given', async () => {
    await file('001_first.sql', counting(1))
    await run()
    await file('002_second.sql', counting(2))
    await claim({ version: 2 })
    const lines: string[] = []
    const began = performance.now()
    const results = await Promise.all(
      [1, 2, 3].map(() => run({ takeoverMs: 700, log: (level, line) => lines.push(`${level} ${line}`) })),
    )
    expect(performance.now() - began).toBeGreaterThan(500)
    expect(results.flatMap((result) => result.applied)).toEqual(['002_second.sql'])
    expect(lines).toContainEqual(expect.stringMatching(/^warn migration 002_second\.sql: a dead one .* taking over$/))
    expect(await rows('SELECT step FROM steps ORDER BY step')).toEqual([{ step: 1 }, { step: 2 }])
  })

  test('an old dead claim costs no waiting', async () => {
    await file('001_first.sql', counting(1))
    await run()
    await file('002_second.sql', counting(2))
    await claim({ version: 2, attempt: 4, at: '2020-01-01 00:00:00.000' })
    expect(await run()).toEqual({ applied: ['002_second.sql'] })
    expect(await rows("SELECT attempt FROM migrations WHERE version = 2 AND state = 'done'")).toEqual([{ attempt: 5 }])
  })

  test('a failed statement is named, its file is not done, and the next run need not wait', async () => {
    await file('001_first.sql', counting(1))
    await file('002_second.sql', `${counting(2)} SELECT nonsense;`)
    await expect(run()).rejects.toThrow(MigrationError)
    expect(await rows("SELECT version FROM migrations WHERE state = 'done'")).toEqual([{ version: 1 }])
    await expect(run()).rejects.toThrow(/^migration 002_second\.sql, statement 3: .*nonsense/)
    await file('002_second.sql', counting(2))
    expect(await run()).toEqual({ applied: ['002_second.sql'] })
  })

  test('on a full disk a file is not done, and nothing of it is sent', async () => {
    await file('001_first.sql', counting(1))
    await run()
    await file('002_second.sql', `${counting(2)} SELECT 1;`)
    await expect(run({ assertWritten: full })).rejects.toThrow(/^migration 002_second\.sql: the disk is full/)
    expect(await rows('SELECT step FROM steps')).toEqual([{ step: 1 }])
    let calls = 0
    // Before and after: the claim, three statements, and that it is done.
    const late = () => {
      if (++calls === 10) full()
    }
    await expect(run({ assertWritten: late })).rejects.toThrow(/^migration 002_second\.sql: the disk is full/)
    expect(calls).toBe(10)
    calls = 0
    const between = () => {
      if (++calls === 4) full()
    }
    await file('003_third.sql', counting(3))
    await expect(run({ assertWritten: between })).rejects.toThrow(/^migration 003_third\.sql, statement 1: the disk is full/)
  })

  test.each([
    ['a gap', ['001_a.sql', '003_b.sql'], '003_b.sql should be 002_name.sql'],
    ['a twin', ['001_a.sql', '001_b.sql'], '001_b.sql should be 002_name.sql'],
    ['a start above 1', ['002_a.sql'], '002_a.sql should be 001_name.sql'],
    ['a name without a number', ['001_a.sql', 'b.sql'], 'b.sql should be 002_name.sql'],
  ])('%s in the numbering is refused', async (_name, names, message) => {
    for (const name of names) await file(name, 'SELECT 1')
    await expect(run()).rejects.toThrow(MigrationError)
    await expect(run()).rejects.toThrow(message)
    await expect(rows('SELECT 1')).rejects.toThrow(`Database ${database} does not exist`)
  })
})
