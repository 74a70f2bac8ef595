/** Backups: of one moment though events go on coming in, and after a restore every answer is what it was. */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest'
import { restore } from '../../src/maintenance/restore.ts'
import { startEmbedded } from '../../src/clickhouse/embedded/index.ts'
import { dropOrphanedClones } from '../../src/maintenance/backup-clones.ts'
import { DiskFullError } from '../../src/clickhouse/embedded/disk-watch.ts'
import { Store } from '../../src/clickhouse/store.ts'
import { compare, PATHS } from '../compare.ts'
import { someEvents } from '../ingest/events.ts'
import { Reference, type Asked } from '../reference.ts'
import { startService, type TestService } from '../support.ts'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 })

const NOW = '2026-03-01T12:00:00.000Z'
const OPERATOR = { scope: 'analytics:operate' }
const RANGE = { startDate: '2025-12-07T03:07:41.123Z', endDate: '2026-03-01T11:59:59.999Z' }
const QUESTIONS: Record<(typeof PATHS)[number], Asked> = {
  overview: { period: 'month' },
  metrics: { period: 'week', ...RANGE, timezone: 'Asia/Kathmandu' },
  rolling: { window: 90 },
  events: { ...RANGE, limit: 20 },
  assistants: RANGE,
  'users/top': { ...RANGE, limit: 100 },
  snapshots: { ...RANGE, period: 'day' },
}

const events = someEvents({ count: 3_000, from: '2025-12-01', to: NOW, seed: 5 })
const later = someEvents({ count: 2_000, from: '2025-12-01', to: NOW, seed: 6, name: 'later' })

let service: TestService
let names: string
beforeEach(async () => {
  service = await startService({ now: NOW })
  names = `test-${randomBytes(6).toString('hex')}`
})
afterEach(() => service.close())

const refused = () => Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' })

const backup = async (name: string) => service.request('POST', `/operations/backup?name=${name}`, OPERATOR)

const connect = (to: string) =>
  new Store({ ...inject('clickhouse'), database: to, queryTimeoutSeconds: 60, queryMemoryMb: 1_000 })

async function restored(name: string) {
  const { database, dataDir } = service
  await service.admin.command({ query: `DROP DATABASE ${database} SYNC` })
  await service.stop()
  const options = { database, name, disk: '', log: () => {} }
  await restore(connect, options)
  await expect(restore(connect, options)).rejects.toThrow(/is not empty/)
  await expect(restore(connect, { ...options, database: `${database}_x`, name: 'nothing' })).rejects.toThrow(/nothing/)
  service = await startService({ now: NOW, from: { database, dataDir } })
}

const ask = async (reference: Reference) => {
  for (const path of PATHS) await compare(service, reference, path, QUESTIONS[path])
}

const reconciled = async () =>
  (await service.request('POST', '/operations/reconcile', OPERATOR)).body.data as { days: number; drift: unknown[] }

describe('a backup', () => {
  test('brings everything back as it was: answers, rollups, sealed spans, removed users, kept answers', async () => {
    await service.store(events)
    const keyed = { headers: { 'Idempotency-Key': 'the-key' } }
    const first = await service.post(later.slice(0, 10), keyed)
    expect(first.body.data.accepted).toBe(10)
    await service.request('DELETE', `/analytics/users/${encodeURIComponent('user 7')}`, { scope: 'analytics:admin' })
    const before = await Promise.all(PATHS.map((path) => service.whole(path, QUESTIONS[path] as Record<string, string>)))
    const { sealedUntil } = service.seals

    const { status, body } = await backup(names)
    expect([status, body.data]).toEqual([
      200,
      { name: names, status: 'complete', bytes: expect.any(Number), files: expect.any(Number) },
    ])
    expect((await backup(names)).status).toBe(409)
    expect(
      await service.rows(`SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'backup%'`),
    ).toEqual([])

    await service.store(later.slice(10))
    await restored(names)
    const after = await Promise.all(PATHS.map((path) => service.whole(path, QUESTIONS[path] as Record<string, string>)))
    expect(after).toEqual(before)
    expect(service.seals.sealedUntil).toEqual(sealedUntil)
    expect((await reconciled()).drift).toEqual([])
    expect((await service.post(later.slice(0, 10), keyed)).body).toEqual(first.body)

    // And it goes on: what was stored after the backup is sent again, what was before is not counted twice.
    expect((await service.submit(later))[0]).toMatchObject({ accepted: later.length - 10, duplicates: 10 })
    expect((await service.submit(events))[0]).toMatchObject({ accepted: 0, duplicates: events.length })
    expect((await reconciled()).drift).toEqual([])
  })

  test('is of one moment, though events pour in', async () => {
    await service.store(events)
    const traffic = { sent: 0, ends: false }
    const sending = (async () => {
      for (; traffic.sent < later.length && !traffic.ends; traffic.sent += 20) {
        await service.store(later.slice(traffic.sent, traffic.sent + 20))
      }
    })()
    await vi.waitFor(() => expect(traffic.sent).toBeGreaterThan(60))
    const before = traffic.sent
    expect((await backup(names)).status).toBe(200)
    traffic.ends = true
    await sending
    await restored(names)
    const [{ n } = { n: 0 }] = await service.rows<{ n: number }>('SELECT count() AS n FROM events')
    const kept = n - events.length
    expect([kept >= before, kept <= traffic.sent, kept % 20]).toEqual([true, true, 0])
    await ask(new Reference([...events, ...later.slice(0, kept)], NOW))
    expect((await reconciled()).drift).toEqual([])
  })

  test('is not called complete where the disk became full while it was made', async () => {
    let full = false
    await service.close()
    service = await startService({
      now: NOW,
      makeStore(options) {
        const store = new Store({
          ...options,
          assertWritten() {
            if (!full) return
            full = false
            throw new DiskFullError('as on a full disk')
          },
        })
        const { adminRows } = store
        store.adminRows = async <Row>(...asked: Parameters<typeof adminRows>) => {
          const rows = await adminRows.apply(store, asked)
          if (asked[0].startsWith('SELECT status')) full = true
          return rows as Row[]
        }
        return store
      },
    })
    await service.store(events)
    expect(await backup(names)).toMatchObject({ status: 503, body: { error: { code: 'unavailable' } } })
    expect(
      await service.rows(`SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'backup%'`),
    ).toEqual([])
  })

  test.each([
    ['looks at the tables', 'adminRows'],
    ['clones a table', 'command'],
  ])('is a 503 where ClickHouse goes away while it %s', async (_, step) => {
    let away = false
    await service.close()
    service = await startService({
      now: NOW,
      makeStore(options) {
        const store = new Store(options)
        const { adminRows } = store
        const command = store.admin.command.bind(store.admin)
        store.adminRows = (<Row>(...asked: Parameters<typeof adminRows>) =>
          away && step === 'adminRows'
            ? Promise.reject(refused())
            : (adminRows.apply(store, asked) as Promise<Row[]>)) as typeof adminRows
        store.admin.command = (params) => (away && step === 'command' ? Promise.reject(refused()) : command(params))
        return store
      },
    })
    await service.store(events.slice(0, 10))
    away = true
    const reply = await backup(names)
    away = false
    expect(reply).toMatchObject({ status: 503, body: { error: { code: 'unavailable' } } })
    expect(reply.headers.get('Retry-After')).toBe('1')
    expect((await backup(names)).status).toBe(200)
  })

  test.each([
    ['name=../x', OPERATOR, 400],
    ['name=x&name=y', OPERATOR, 400],
    ['name=x', {}, 403],
    ['name=x', { scope: 'analytics:admin' }, 403],
  ])('is refused: %s as %o', async (query, caller, status) => {
    expect((await service.request('POST', `/operations/backup?${query}`, caller)).status).toBe(status)
  })
})

const clones = () =>
  service.rows<{ name: string }>(
    `SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'backup%' ORDER BY name`,
  )

/** As a backup leaves them whose process is killed. */
async function leaveClones() {
  for (const table of ['names', 'events'])
    await service.admin.command({ query: `CREATE TABLE backup_0123abcd_${table} CLONE AS ${table}` })
  expect(await clones()).toHaveLength(2)
}

describe('clones of a backup that was cut off, which hold names of people', () => {
  test('are gone after the next start', async () => {
    await service.store(events.slice(0, 100))
    await leaveClones()
    await service.stop()
    service = await startService({ now: NOW, from: service })
    await vi.waitFor(async () => expect(await clones()).toEqual([]), { timeout: 10_000 })
    await vi.waitFor(() => expect(service.complaints.filter((line) => line.includes('backup that was cut off'))).toHaveLength(1))
  })

  test('are gone when a person has been erased', async () => {
    await service.store(events.slice(0, 100))
    await leaveClones()
    const user = encodeURIComponent(events[0]!.user)
    expect((await service.request('DELETE', `/analytics/users/${user}`, { scope: 'analytics:admin' })).status).toBe(200)
    expect(await clones()).toEqual([])
  })

  test('are gone after the next backup, while those of a backup under way stay', async () => {
    let drops: Promise<number> | undefined
    await service.close()
    service = await startService({
      now: NOW,
      makeStore(options) {
        const store = new Store(options)
        const { adminRows } = store
        store.adminRows = async <Row>(sql: string, params?: Record<string, unknown>) => {
          // At this pace it takes a second or two.
          const rows = await adminRows.call(store, sql.replace(/ ASYNC$/, ', max_backup_bandwidth = 300000 ASYNC'), params)
          const [row] = rows as Array<{ status?: string }>
          if (sql.startsWith('SELECT status') && row?.status === 'CREATING_BACKUP') drops ??= dropOrphanedClones(store)
          return rows as Row[]
        }
        return store
      },
    })
    await service.store(events)
    await leaveClones()
    expect((await backup(names)).status).toBe(200)
    expect(await drops).toBe(0)
    expect(await clones()).toEqual([])
  })
})

test('a backup that was cut off can be made again under its name, and ClickHouse going away meanwhile is a 503', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-backup-'))
  const server = await startEmbedded({ dataDir, log: () => {} })
  let slow = true
  const own = await startService({
    now: NOW,
    clickhouse: { ...server, stop: () => Promise.resolve() },
    from: { database: `analytics_test_${randomBytes(4).toString('hex')}`, dataDir },
    makeStore(options) {
      const store = new Store(options)
      const { adminRows } = store
      store.adminRows = async <Row>(sql: string, params?: Record<string, unknown>) => {
        const rows = await adminRows.call(
          store,
          slow ? sql.replace(/ ASYNC$/, ', max_backup_bandwidth = 100000 ASYNC') : sql,
          params,
        )
        if (slow && sql.startsWith('BACKUP')) {
          while (!existsSync(join(dataDir, 'backups/again/data'))) await sleep(10)
          server.restart()
        }
        return rows as Row[]
      }
      return store
    },
  })
  const make = () => own.request('POST', '/operations/backup?name=again', OPERATOR)
  try {
    await own.store(events)
    expect((await make()).status).toBe(503)
    expect(existsSync(join(dataDir, 'backups/again/.lock'))).toBe(true)
    slow = false
    await vi.waitFor(async () => expect((await make()).status).toBe(200), { timeout: 30_000, interval: 500 })
    expect((await make()).status).toBe(409)
    const left = () => own.rows(`SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'backup%'`)
    await vi.waitFor(async () => expect(await left()).toEqual([]), { timeout: 10_000 })
  } finally {
    await own.stop()
    await server.stop()
    await rm(dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  }
})

test('the commands, with real processes: of a running service, of one that is stopped, and into an empty directory', async () => {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const directory = await mkdtemp(join(tmpdir(), 'analytics-backup-'))
  const [from, to] = [join(directory, 'from'), join(directory, 'to')]
  const port = await freePort()
  const env = (dataDir: string) => ({ PATH: process.env['PATH'], DATA_DIR: dataDir, PORT: String(port), LOG_LEVEL: 'error' })
  const run = (command: string, dataDir: string, ...args: string[]) =>
    new Promise<{ code: number; out: string }>((done) => {
      const tsx = ['--import', 'tsx', `src/commands/${command}.ts`, ...args]
      execFile(process.execPath, tsx, { cwd: root, env: env(dataDir) }, (error, stdout, stderr) =>
        done({ code: error ? Number(error.code) : 0, out: stdout + stderr }),
      )
    })
  let child: ChildProcess | undefined
  async function running(dataDir: string) {
    child = spawn(process.execPath, ['--import', 'tsx', 'src/main.ts'], {
      cwd: root,
      env: env(dataDir),
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let out = ''
    child.stdout?.on('data', (chunk: Buffer) => (out += chunk.toString()))
    await vi.waitFor(() => expect(out).toMatch(/#token=/), { timeout: 60_000 })
    return /TOKEN=(\S+)/.exec(out)?.[1] as string
  }
  const stop = async () => {
    const ended = new Promise((done) => child?.once('exit', done))
    child?.kill('SIGTERM')
    await ended
    child = undefined
  }
  const url = `http://127.0.0.1:${port}/analytics`
  const answer = async (token: string) => {
    const response = await fetch(`${url}/metrics?period=month&startDate=2025-12-01&endDate=2026-03-02`, {
      headers: { Authorization: `Bearer ${token}` },
    })
    return response.json()
  }
  try {
    let token = await running(from)
    const stored = await fetch(`${url}/events`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(events),
    })
    expect(await stored.json()).toMatchObject({ data: { accepted: events.length } })
    const before = await answer(token)
    expect(await run('backup', from, 'live')).toEqual({
      code: 0,
      out: expect.stringMatching(/^backup live: \d+ files, [\d.]+ MB\n$/),
    })
    await stop()
    expect(await run('backup', from, 'still')).toMatchObject({ code: 0 })
    expect(await run('backup', from, 'still')).toEqual({ code: 1, out: expect.stringMatching(/already exists/) })
    expect(await run('restore', from, 'live')).toEqual({ code: 1, out: expect.stringMatching(/is not empty/) })
    await cp(join(from, 'backups'), join(to, 'backups'), { recursive: true })
    expect(await run('restore', to, 'live')).toMatchObject({ code: 0 })
    expect(await run('reconcile', to)).toEqual({ code: 0, out: expect.stringMatching(/days of tenants compared, 0 differences/) })
    token = await running(to)
    expect(await answer(token)).toEqual(before)
  } finally {
    if (child) await stop()
    await rm(directory, { recursive: true, force: true, maxRetries: 5 })
  }
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((ready) => server.once('listening', ready))
  const { port } = server.address() as AddressInfo
  await new Promise((closed) => server.close(closed))
  return port
}
