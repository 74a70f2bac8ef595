import { createClient } from '@clickhouse/client'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { EmbeddedError, startEmbedded, type EmbeddedServer, type User } from '../../../src/clickhouse/embedded/index.ts'
import { DiskFullError } from '../../../src/clickhouse/embedded/disk-watch.ts'
import { DataDirInUseError } from '../../../src/data-dir.ts'

const SLOW = 60_000
vi.setConfig({ testTimeout: SLOW, hookTimeout: SLOW })

const log = () => {}
const directories: string[] = []
const newDirectory = async () => {
  const directory = await mkdtemp(join(tmpdir(), 'analytics-embedded-'))
  directories.push(directory)
  return directory
}
afterAll(() => Promise.all(directories.map((directory) => rm(directory, { recursive: true, force: true }))))

/** One query as `user`; the answer's text, or the rejection's. */
async function ask(server: EmbeddedServer, user: User, query: string, settings = ''): Promise<string> {
  const response = await fetch(`${server.url}/?${settings}`, {
    method: 'POST',
    headers: { 'X-ClickHouse-User': user.username, 'X-ClickHouse-Key': user.password },
    body: query,
  })
  return (await response.text()).trim()
}

const answers = (url: string) =>
  fetch(`${url}/ping`).then(
    (response) => response.ok,
    () => false,
  )

async function makeTable(server: EmbeddedServer): Promise<void> {
  const answer = [
    await ask(server, server.admin, 'CREATE DATABASE analytics'),
    await ask(server, server.admin, 'CREATE TABLE analytics.numbers (n UInt8) ENGINE = MergeTree ORDER BY n'),
    await ask(server, server.writer, 'INSERT INTO analytics.numbers VALUES (1), (2)'),
  ]
  expect(answer).toEqual(['', '', ''])
}

const sum = (server: EmbeddedServer) => ask(server, server.reader, 'SELECT sum(n) FROM analytics.numbers')

describe('the life of the server', () => {
  let server: EmbeddedServer
  afterEach(() => server.stop())

  test('a start answers, a stop ends the process, the next start finds the data', async () => {
    const dataDir = await newDirectory()
    server = await startEmbedded({ dataDir, log })
    expect(await answers(server.url)).toBe(true)
    await makeTable(server)
    const { pid, url } = server
    await Promise.all([server.stop(), server.stop()])
    await server.stop()
    expect(() => process.kill(pid, 0)).toThrow('ESRCH')
    expect(await answers(url)).toBe(false)

    server = await startEmbedded({ dataDir, log })
    expect(await sum(server)).toBe('3')
  })

  test('a clock that is set forward meanwhile does not end a start', async () => {
    const { now } = Date
    let looks = 0
    const clock = vi.spyOn(Date, 'now').mockImplementation(() => now() + 600_000 * looks++)
    try {
      server = await startEmbedded({ dataDir: await newDirectory(), log })
    } finally {
      clock.mockRestore()
    }
    expect(await answers(server.url)).toBe(true)
  })

  test('a server that is killed comes back on the same port with its data', async () => {
    const levels: string[] = []
    server = await startEmbedded({ dataDir: await newDirectory(), log: (level) => levels.push(level) })
    await makeTable(server)
    const { pid, url } = server
    for (const crashes of [1, 2]) {
      const exited = new Promise<void>((done) => server.onExit(done))
      process.kill(server.pid, 'SIGKILL')
      await exited
      await vi.waitFor(async () => expect(await answers(url)).toBe(true), { timeout: SLOW, interval: 50 })
      expect(await sum(server)).toBe('3')
      expect(levels.filter((level) => level === 'error')).toHaveLength(crashes)
    }
    expect(server.url).toBe(url)
    expect(server.pid).not.toBe(pid)
  })

  test('a full disk: nothing counts as written until there is space and the server was started again', async () => {
    let free = Infinity
    const logged: string[] = []
    server = await startEmbedded({ dataDir: await newDirectory(), log: (_, line) => logged.push(line), free: () => free })
    await makeTable(server)
    server.assertWritten()
    const { pid } = server
    free = 0
    expect(() => server.assertWritten()).toThrow(DiskFullError)
    await sleep(300)
    expect([server.pid, await sum(server)]).toEqual([pid, '3'])
    free = Infinity
    expect(() => server.assertWritten()).toThrow(DiskFullError)
    await vi.waitFor(() => server.assertWritten(), { timeout: SLOW, interval: 20 })
    expect(server.pid).not.toBe(pid)
    expect(await sum(server)).toBe('3')
    expect(logged.filter((line) => /the disk (is|was) full/.test(line))).toHaveLength(2)
  })

  test('what a full disk leaves empty does not keep the server from starting', async () => {
    const dataDir = await newDirectory()
    const logged: string[] = []
    server = await startEmbedded({ dataDir, log })
    await makeTable(server)
    await ask(server, server.admin, 'CREATE TABLE analytics.other (n UInt8) ENGINE = MergeTree ORDER BY n')
    await ask(server, server.admin, 'ALTER TABLE analytics.numbers DELETE WHERE n = 9', 'mutations_sync=1')
    const paths = async (query: string) => (await ask(server, server.admin, query)).split('\n').filter(Boolean)
    const [table] = await paths(`SELECT data_paths[1] FROM system.tables WHERE database = 'analytics' AND name = 'numbers'`)
    const [definition] = await paths(`SELECT metadata_path FROM system.tables WHERE database = 'analytics' AND name = 'other'`)
    const absolute = (path = '') => (path.startsWith('/') ? path : join(dataDir, 'clickhouse', path))
    await server.stop()
    const change = join(absolute(table), 'mutation_9.txt')
    const database = join(dataDir, 'clickhouse', 'metadata', 'begun.sql')
    await writeFile(change, '')
    await writeFile(database, '')
    await truncate(absolute(definition))

    server = await startEmbedded({ dataDir, log: (_, line) => logged.push(line) })
    expect(await sum(server)).toBe('3')
    expect(await ask(server, server.admin, `SELECT name FROM system.tables WHERE database = 'analytics'`)).toBe('numbers')
    const removed = logged.flatMap((line) => /^removed (.+): it is empty/.exec(line)?.[1] ?? [])
    expect(removed.toSorted()).toEqual([change, database, absolute(definition)].toSorted())
    const left = (await readdir(absolute(table))).filter((name) => name.startsWith('mutation_'))
    expect(left).not.toContain('mutation_9.txt')
    expect(left.length).toBeGreaterThan(0)
  })

  test('a large part that is broken is set aside, and the rest is there', async () => {
    const dataDir = await newDirectory()
    server = await startEmbedded({ dataDir, log })
    await makeTable(server)
    await ask(server, server.admin, 'SYSTEM STOP MERGES')
    await ask(server, server.writer, 'INSERT INTO analytics.numbers VALUES (4)')
    const path = await ask(
      server,
      server.admin,
      `SELECT path FROM system.parts WHERE table = 'numbers' AND active ORDER BY name DESC LIMIT 1`,
    )
    await server.stop()
    await truncate(join(path, 'checksums.txt'))
    // A file of 2 GiB that takes no space.
    await truncate(join(path, 'data.bin'), 2 ** 31)

    server = await startEmbedded({ dataDir, log })
    expect(await sum(server)).toBe('3')
    expect(await ask(server, server.admin, `SELECT table, reason FROM system.detached_parts`)).toBe('numbers\tbroken-on-start')
  })

  test('a server that is stopped while it starts again stays down', async () => {
    server = await startEmbedded({ dataDir: await newDirectory(), log })
    const { pid } = server
    const exited = new Promise<void>((done) => server.onExit(done))
    process.kill(pid, 'SIGKILL')
    await exited
    await vi.waitFor(() => expect(server.pid).not.toBe(pid), { interval: 10 })
    await server.stop()
    expect(() => process.kill(server.pid, 0)).toThrow('ESRCH')
  })

  test('SIGKILL of the parent takes the server along and frees the data directory', async () => {
    const dataDir = await newDirectory()
    const parent = fork(fileURLToPath(new URL('./parent.ts', import.meta.url)), [dataDir], {
      execArgv: ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href],
    })
    const [url] = (await once(parent, 'message')) as [string]
    expect(await answers(url)).toBe(true)
    parent.kill('SIGKILL')
    // At once, to see that the start waits for a lock that is about to go.
    server = await startEmbedded({ dataDir, log })
    expect(await answers(url)).toBe(false)
  })

  test('a second service on the same directory is refused, and the first does not notice', async () => {
    const dataDir = await newDirectory()
    server = await startEmbedded({ dataDir, log })
    await makeTable(server)
    const { pid } = server
    const second = startEmbedded({ dataDir, log })
    await expect(second).rejects.toThrow(DataDirInUseError)
    await expect(second).rejects.toThrow(`${dataDir} is in use`)
    expect(server.pid).toBe(pid)
    expect(await sum(server)).toBe('3')
  })

  test('a start that fails says what ClickHouse says', async () => {
    const dataDir = await newDirectory()
    server = await startEmbedded({ dataDir, log })
    await server.stop()
    await mkdir(join(dataDir, 'clickhouse/metadata'), { recursive: true })
    await writeFile(join(dataDir, 'clickhouse/metadata/broken.sql'), 'nonsense')
    const start = startEmbedded({ dataDir, log })
    await expect(start).rejects.toThrow(EmbeddedError)
    await expect(start).rejects.toThrow('Syntax error')
  })

  test('only the owner can read the files, and no password is among them', async () => {
    const dataDir = await newDirectory()
    server = await startEmbedded({ dataDir, log })
    for (const directory of ['run', 'clickhouse']) {
      expect((await stat(join(dataDir, directory))).mode & 0o777).toBe(0o700)
    }
    const files = await readdir(join(dataDir, 'run'), { recursive: true, withFileTypes: true })
    const texts = await Promise.all(
      files.filter((file) => file.isFile()).map((file) => readFile(join(file.parentPath, file.name), 'utf8')),
    )
    expect(texts.length).toBeGreaterThanOrEqual(3)
    for (const user of [server.admin, server.reader, server.writer]) {
      expect(user.password).toMatch(/^[\w-]{32}$/)
      expect(texts.join('\n')).not.toContain(user.password)
    }
  })
})

describe('who may do what', () => {
  let server: EmbeddedServer
  const as = (user: User, query: string, settings?: string) => ask(server, user, query, settings)
  const nobody: User = { username: 'default', password: '' }

  beforeAll(async () => {
    server = await startEmbedded({ dataDir: await newDirectory(), log })
    await makeTable(server)
    const { admin } = server
    const answer = [
      await as(admin, 'CREATE TABLE analytics.sums (total UInt64) ENGINE = MergeTree ORDER BY total'),
      await as(
        admin,
        `CREATE MATERIALIZED VIEW analytics.sums_mv TO analytics.sums SQL SECURITY DEFINER
         AS SELECT sum(n) AS total FROM analytics.numbers`,
      ),
    ]
    expect(answer).toEqual(['', ''])
  })
  afterAll(() => server.stop())

  test('@clickhouse/client works against it unchanged', async () => {
    const client = createClient({ url: server.url, ...server.reader, database: 'analytics' })
    const result = await client.query({
      query: 'SELECT n FROM numbers WHERE n > {least:UInt8}',
      query_params: { least: 1 },
      format: 'JSONEachRow',
      clickhouse_settings: { max_execution_time: 5 },
    })
    expect(await result.json()).toEqual([{ n: 2 }])
    await client.close()
  })

  test('a caller without a password reads, changes and stops nothing', async () => {
    for (const settings of ['', 'readonly=0', 'max_execution_time=0']) {
      expect(await as(nobody, 'SELECT * FROM analytics.numbers', settings)).toMatch(/ACCESS_DENIED|READONLY/)
    }
    expect(await as(nobody, "SELECT count() FROM system.tables WHERE database = 'analytics'")).toBe('0')
    expect(await as(nobody, 'SYSTEM STOP LISTEN HTTP')).toContain('READONLY')
    expect(await as(nobody, 'SYSTEM SHUTDOWN')).toMatch(/ACCESS_DENIED|READONLY/)
    expect(await as(nobody, 'KILL QUERY WHERE 1')).toMatch(/ACCESS_DENIED|READONLY/)
    expect(await as(nobody, "SELECT * FROM file('/etc/hosts', LineAsString)")).toMatch(/ACCESS_DENIED|READONLY/)
    expect(await as(nobody, 'SELECT count() FROM numbers(1000000000000)')).toContain('TIMEOUT_EXCEEDED')
    expect(await answers(server.url)).toBe(true)
  })

  test('a password that is missing from the environment is no empty password', async () => {
    const users = await readFile(new URL('../../../clickhouse/users.xml', import.meta.url), 'utf8')
    const elements = users.match(/<password .*/g)
    expect(elements).toHaveLength(3)
    for (const element of elements ?? []) expect(element).toMatch(/ from_env="\w+" optional="true"\/>$/)
  })

  test('a wrong password opens nothing', async () => {
    const { username } = server.reader
    expect(await as({ username, password: '' }, 'SELECT 1')).toContain('AUTHENTICATION_FAILED')
    expect(await as({ username, password: 'x' }, 'SELECT 1')).toContain('AUTHENTICATION_FAILED')
  })

  test('the reader cannot write, drop, or lift its own lock', async () => {
    const { reader } = server
    const denied = [
      'INSERT INTO analytics.numbers VALUES (9)',
      'ALTER TABLE analytics.numbers DELETE WHERE 1',
      'TRUNCATE TABLE analytics.numbers',
      'DROP TABLE analytics.numbers',
      'DROP DATABASE analytics',
      'CREATE TABLE analytics.mine (n UInt8) ENGINE = MergeTree ORDER BY n',
      'SELECT query FROM system.processes',
      "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
    ]
    for (const query of denied) expect(await as(reader, query), query).toMatch(/ACCESS_DENIED|READONLY/)
    expect(await as(reader, 'SELECT 1', 'readonly=0')).toContain('READONLY')
    expect(await sum(server)).toBe('3')
  })

  test('the writer feeds a table and its views, and cannot read either', async () => {
    const { reader, writer } = server
    expect(await as(writer, 'INSERT INTO analytics.numbers VALUES (4)')).toBe('')
    expect(await as(reader, 'SELECT sum(total) FROM analytics.sums')).toBe('4')
    for (const query of [
      'SELECT * FROM analytics.numbers',
      'SELECT count() FROM analytics.numbers',
      'SELECT total FROM analytics.sums',
      'SELECT total FROM analytics.sums_mv',
      'INSERT INTO analytics.numbers SELECT total FROM analytics.sums',
      'DROP TABLE analytics.numbers',
    ]) {
      expect(await as(writer, query), query).toContain('ACCESS_DENIED')
    }
  })

  test('the admin makes test databases, and neither other ones nor tables over files', async () => {
    const { admin, reader, writer } = server
    expect(await as(admin, 'CREATE DATABASE analytics_test_grants')).toBe('')
    expect(await as(admin, 'CREATE TABLE analytics_test_grants.t (n UInt8) ENGINE = MergeTree ORDER BY n')).toBe('')
    expect(await as(writer, 'INSERT INTO analytics_test_grants.t VALUES (7)')).toBe('')
    expect(await as(reader, 'SELECT n FROM analytics_test_grants.t')).toBe('7')
    expect(await as(admin, 'DROP DATABASE analytics_test_grants')).toBe('')
    for (const query of [
      'CREATE DATABASE elsewhere',
      "CREATE TABLE analytics.hosts (line String) ENGINE = File(LineAsString, '/etc/hosts')",
      "SELECT * FROM file('/etc/hosts', LineAsString)",
    ]) {
      expect(await as(admin, query), query).toContain('ACCESS_DENIED')
    }
  })
})
