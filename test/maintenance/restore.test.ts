/** A restore brings back everything, or nothing: whatever is wrong with the backup, no wrong figure is ever served. */
import { createClient, type ClickHouseClient } from '@clickhouse/client'
import { execFile, spawn } from 'node:child_process'
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { startEmbedded, type EmbeddedServer } from '../../src/clickhouse/embedded/index.ts'
import { Store } from '../../src/clickhouse/store.ts'
import { restore } from '../../src/maintenance/restore.ts'
import { someEvents } from '../ingest/events.ts'
import { startService, type TestService } from '../support.ts'

vi.setConfig({ testTimeout: 240_000, hookTimeout: 60_000 })

const NOW = '2026-03-01T12:00:00.000Z'
const RANGE = { startDate: '2025-12-01', endDate: '2026-03-01' }
const OPERATOR = { scope: 'analytics:operate' }
const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const answers = async (service: TestService) => [
  await service.whole('metrics', { period: 'week', ...RANGE, timezone: 'Asia/Kathmandu' }),
  await service.whole('users/top', { ...RANGE, limit: 100 }),
  await service.whole('events', { ...RANGE, limit: 50 }),
  await service.whole('events', { ...RANGE, limit: 50, user: 'user 3' }),
  await service.whole('assistants', RANGE),
]

const flip = (path: string) => {
  const bytes = readFileSync(path)
  const at = Math.floor(bytes.length / 2)
  bytes[at] = (bytes[at] as number) ^ 0x10
  writeFileSync(path, bytes)
}
const cut = (path: string) => truncateSync(path, Math.floor(readFileSync(path).length / 2))

const kindOf = (file: string) => [file.split('/').slice(0, 3).join('/'), /\w+\.proj/.exec(file)?.[0], basename(file)].join(' ')

describe('a damaged backup', () => {
  let directory: string
  let server: EmbeddedServer
  let client: ClickHouseClient
  let from: { database: string; dataDir: string }
  let files: string[]
  let before: unknown

  const start = (go: { database: string; dataDir: string } | undefined) =>
    startService({ now: NOW, clickhouse: { ...server, stop: () => Promise.resolve() }, ...(go ? { from: go } : {}) })
  const restored = (name: string) =>
    restore((database) => new Store({ ...server, database, queryTimeoutSeconds: 60, queryMemoryMb: 1_000 }), {
      database: from.database,
      name,
      disk: '',
      log: () => {},
    })
  const tables = async () => {
    const result = await client.query({
      query: `SELECT name FROM system.tables WHERE database = '${from.database}'`,
      format: 'JSONEachRow',
    })
    return (await result.json<{ name: string }>()).map(({ name }) => name)
  }

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'analytics-restore-'))
    server = await startEmbedded({ dataDir: directory, log: () => {} })
    client = createClient({ url: server.url, ...server.admin, database: 'system' })
    const service = await start(undefined)
    from = { database: service.database, dataDir: service.dataDir }
    await service.store(someEvents({ count: 3_000, from: '2025-12-01', to: NOW, seed: 5 }))
    before = await answers(service)
    expect((await service.request('POST', '/operations/backup?name=whole', OPERATOR)).status).toBe(200)
    await service.stop()
    const all = await readdir(join(directory, 'backups/whole'), { recursive: true, withFileTypes: true })
    files = all
      .filter((file) => file.isFile())
      .map((file) => join(file.parentPath, file.name).slice(join(directory, 'backups/whole/').length))
  })
  afterAll(async () => {
    await client.close()
    await server.stop()
    await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    if (from) await rm(from.dataDir, { recursive: true, force: true })
  })

  /** One file of each kind: of the backup itself, of definitions, and of tables with all figures and names in them. */
  const KINDS =
    /^\.backup$|metadata\/.*\/(events|activity_mv)\.sql$|\/events\/.*(bin|mrk\d?|cidx|checksums.txt|count.txt|substreams.txt)$|\/(activity|names|backup_contents)\/[^/]+\/data.bin$/
  const kinds = () => {
    return [...new Map(files.filter((file) => KINDS.test(file)).map((file) => [kindOf(file), file])).values()]
  }

  test('is refused with a reason, whichever byte is another one, and leaves an empty database', async () => {
    await client.command({ query: `DROP DATABASE ${from.database} SYNC` })
    const damages: Array<[string, string, (path: string) => void]> = kinds().flatMap((file, at) => [
      ['a byte is another one', file, flip] as [string, string, (path: string) => void],
      ...(at % 3 === 0 ? ([['is cut in half', file, cut]] as Array<[string, string, (path: string) => void]>) : []),
    ])
    expect(damages.length).toBeGreaterThan(20)
    const accepted: string[] = []
    const refused: string[] = []
    for (const [at, [what, file, damage]] of damages.entries()) {
      const name = `damaged-${at}`
      await cp(join(directory, 'backups/whole'), join(directory, 'backups', name), { recursive: true })
      damage(join(directory, 'backups', name, file))
      const outcome = await restored(name).then(
        () => 'accepted',
        (error: Error) => error.message,
      )
      if (outcome === 'accepted') {
        accepted.push(basename(file))
        const service = await start(from)
        expect([file, await answers(service)]).toEqual([file, before])
        await service.stop()
      } else {
        refused.push(basename(file))
        expect([file, what, outcome]).toEqual([file, what, expect.stringMatching(/What was restored has been removed/)])
        expect(await tables()).toEqual([])
      }
      await client.command({ query: `DROP DATABASE ${from.database} SYNC` })
      await rm(join(directory, 'backups', name), { recursive: true })
    }
    // The names of streams in it do not matter to a part that has all of them in one file (26.7).
    expect(accepted.filter((file) => file !== 'columns_substreams.txt')).toEqual([])
    expect(new Set(refused)).toContain('data.bin')
  })

  test('is refused where a file is missing, and where it has no list of its contents', async () => {
    for (const [at, wanted] of [
      /\/events\/.*data\.c?mrk/,
      /\/activity\/.*data\.bin/,
      /metadata\/.*\/user_activity_mv\.sql/,
      /metadata\/.*backup_contents\.sql/,
    ].entries()) {
      const file = files.find((path) => wanted.test(path)) as string
      const name = `missing-${at}`
      await cp(join(directory, 'backups/whole'), join(directory, 'backups', name), { recursive: true })
      await rm(join(directory, 'backups', name, file))
      await expect(restored(name)).rejects.toThrow(/What was restored has been removed/)
      expect(await tables()).toEqual([])
    }
    await client.command({ query: `CREATE TABLE ${from.database}.t (a UInt8) ENGINE = MergeTree ORDER BY a` })
    await client.command({ query: `BACKUP DATABASE ${from.database} TO File('foreign')` })
    await client.command({ query: `DROP TABLE ${from.database}.t SYNC` })
    await expect(restored('foreign')).rejects.toThrow(/no table backup_contents/)
    expect(await tables()).toEqual([])
  })

  test('a sound one is restored after all that, and answers as before', async () => {
    expect(await restored('whole')).toMatchObject({ events: 3_000, repaired: 0 })
    const service = await start(from)
    try {
      expect(await answers(service)).toEqual(before)
      expect((await service.request('POST', '/operations/reconcile', OPERATOR)).body.data.drift).toEqual([])
      expect(await tables()).not.toContain('backup_contents')
      const merging = await service.rows<{ n: number }>(
        `SELECT count() AS n FROM system.parts WHERE database = currentDatabase() AND table = 'activity' AND active`,
      )
      await service.admin.command({ query: 'OPTIMIZE TABLE activity FINAL' })
      expect(merging[0]?.n).toBeGreaterThan(0)
    } finally {
      await service.stop()
    }
  })

  test('rollups that differed from the log when the backup was made are repaired', async () => {
    let service = await start(from)
    await service.deleteRows('activity', `start < '2026-01-15 00:00:00'`)
    expect((await service.request('POST', '/operations/backup?name=drifted', OPERATOR)).status).toBe(200)
    await service.stop()
    await client.command({ query: `DROP DATABASE ${from.database} SYNC` })
    expect((await restored('drifted')).repaired).toBeGreaterThan(0)
    service = await start(from)
    expect(await answers(service)).toEqual(before)
    await service.stop()
  })
})

test('a restore that is killed leaves a database that no service starts on, and the next one begins from the start', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'analytics-restore-'))
  const env = { PATH: process.env['PATH'], DATA_DIR: directory, PORT: '0', LOG_LEVEL: 'error' }
  const run = (file: string, ...args: string[]) =>
    new Promise<{ code: number; out: string }>((done) => {
      execFile(
        process.execPath,
        ['--import', 'tsx', file, ...args],
        { cwd: ROOT, env, timeout: 120_000 },
        (error, stdout, stderr) => done({ code: error ? Number(error.code) : 0, out: stdout + stderr }),
      )
    })
  try {
    const server = await startEmbedded({ dataDir: directory, log: () => {} })
    const service = await startService({
      now: NOW,
      clickhouse: { ...server, stop: () => Promise.resolve() },
      from: { database: 'analytics', dataDir: join(directory, 'service') },
    })
    await service.store(someEvents({ count: 3_000, from: '2025-12-01', to: NOW, seed: 5 }))
    expect((await service.request('POST', '/operations/backup?name=whole', OPERATOR)).status).toBe(200)
    await service.stop()
    await server.stop()
    await rm(join(directory, 'clickhouse'), { recursive: true })
    // An insert that was under way in the database before.
    await mkdir(join(directory, 'journal'), { recursive: true })
    writeFileSync(join(directory, 'journal', '000000000000001-x.json'), '{"inserts":[]}\n')

    const mark = join(directory, 'clickhouse/metadata/analytics/incomplete_restore.sql')
    const tableThere = (name: string) => existsSync(join(directory, `clickhouse/metadata/analytics/${name}.sql`))
    let interrupted = 0
    for (const until of [
      () => existsSync(mark),
      () => tableThere('events'),
      () => tableThere('backup_contents') && tableThere('user_activity_mv'),
    ]) {
      const child = spawn(process.execPath, ['--import', 'tsx', 'src/commands/restore.ts', 'whole'], {
        cwd: ROOT,
        env,
        stdio: 'ignore',
      })
      const ended = new Promise((done) => child.once('exit', done))
      while (!until() && child.exitCode === null) await sleep(2)
      child.kill('SIGKILL')
      await ended
      if (!existsSync(mark)) continue
      interrupted++
      const { code, out } = await run('src/main.ts')
      expect([code, out]).toEqual([
        1,
        expect.stringMatching(/analytics is not whole: the restore of the backup whole .* npm run restore -- whole/),
      ])
      expect((await run('src/commands/reconcile.ts', '--repair')).out).toMatch(/is not whole/)
    }
    expect(interrupted).toBeGreaterThan(0)
    expect(await run('src/commands/restore.ts', 'nothing')).toMatchObject({ code: 1 })
    expect(await run('src/commands/restore.ts', 'whole')).toEqual({
      code: 0,
      out: expect.stringMatching(
        /^1 inserts that were under way .*\nrestored whole: \d+ files, [\d.]+ MB, 3000 events, verified\n$/,
      ),
    })
    expect(await run('src/commands/reconcile.ts')).toMatchObject({ code: 0 })
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 })
  }
})
