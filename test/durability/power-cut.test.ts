/**
 * A power cut of a service with the embedded ClickHouse: everything that was not synced is dropped, and what was
 * acknowledged has to be there.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, rm, stat, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test, vi } from 'vitest'
import { startEmbedded } from '../../src/clickhouse/embedded/index.ts'
import { compare, type Path } from '../compare.ts'
import { Reference, type Asked, type SentEvent } from '../reference.ts'
import { someEvents } from '../ingest/events.ts'
import { startService, type TestService } from '../support.ts'
import { parse, trace } from './unsynced.ts'

vi.setConfig({ testTimeout: 450_000 })

const HAS_STRACE = spawnSync('strace', ['-V']).status === 0
const IS_ASKED_FOR = process.env['POWER_CUT_TEST'] === '1'
if (!IS_ASKED_FOR) console.warn('power cuts are not tested: that takes minutes; npm run test:power does it')
else if (!HAS_STRACE) console.warn('power cuts are not tested: strace is not installed')

const directories: string[] = []
afterAll(() => Promise.all(directories.map((directory) => rm(directory, { recursive: true, force: true }))))
async function newDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'analytics-power-'))
  directories.push(directory)
  return directory
}

const DAY_MS = 86_400_000
const now = Date.now()
const RANGE = { from: new Date(now - 20 * DAY_MS).toISOString(), to: new Date(now - 1_000).toISOString() }
const WHOLE_RANGE: Asked = { startDate: RANGE.from, endDate: RANGE.to }
const QUESTIONS: ReadonlyArray<[Path, Asked]> = [
  ['overview', { period: 'week' }],
  ['metrics', { ...WHOLE_RANGE, period: 'day' }],
  ['metrics', { ...WHOLE_RANGE, period: 'day', assistant: ['assistant 1'] }],
  ['rolling', { window: 7 }],
  ['events', { ...WHOLE_RANGE, limit: 1_000 }],
  // Read from projections of the log.
  ['events', { ...WHOLE_RANGE, limit: 1_000, user: ['user 3 of 0'] }],
  ['events', { ...WHOLE_RANGE, limit: 1_000, user: ['user 5 of 2'] }],
  ['assistants', WHOLE_RANGE],
  ['users/top', { ...WHOLE_RANGE, limit: 1_000 }],
  ['snapshots', { ...WHOLE_RANGE, period: 'day' }],
]

interface Running {
  readonly child: ChildProcess
  readonly clickhouse: number
  post(events: readonly SentEvent[]): Promise<number>
}

/** `npm start` on a directory. */
async function start(dataDir: string, syncWrites: string): Promise<Running> {
  const env = { ...process.env, PORT: '0', DATA_DIR: dataDir, SYNC_WRITES: syncWrites, SELF_CHECK_MINUTES: '0' }
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/main.ts'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  const ready = new Promise<void>((done) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text
        if (/TOKEN=\S+/.test(output)) done()
      })
    }
  })
  await Promise.race([ready, once(child, 'exit').then(() => Promise.reject(new Error(output)))])
  const found = (pattern: RegExp) => pattern.exec(output)?.[1] ?? ''
  const [url, token] = [found(/ready at (\S+)/), found(/TOKEN=(\S+)/)]
  return {
    child,
    clickhouse: Number(found(/process (\d+), data in/)),
    async post(events) {
      const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' }
      const response = await fetch(`${url}/analytics/events`, { method: 'POST', headers, body: JSON.stringify(events) })
      const body = (await response.json()) as { data?: { accepted: number } }
      expect(body.data?.accepted).toBe(events.length)
      return response.status
    },
  }
}

/** Stores events while system calls are followed, and pulls the plug. */
async function storeAndCut(syncWrites: string) {
  const dataDir = await newDirectory()
  const service = await start(dataDir, syncWrites)
  const stored = someEvents({ count: 500, ...RANGE, seed: 1, name: 'before' })
  await service.post(stored)
  const stop = await trace([service.child.pid as number, service.clickhouse], join(await newDirectory(), 'strace'), dataDir)
  for (let batch = 0; batch < 12; batch++) {
    const events = someEvents({ count: 50 + 40 * batch, ...RANGE, seed: 2 + batch, name: `batch ${batch}` }).map((event) =>
      // New names, too, and some more of them in each batch.
      ({
        ...event,
        user: `${event.user} of ${batch % 3}`,
        assistant: batch % 4 === 0 ? `${event.assistant} of ${batch}` : event.assistant,
      }),
    )
    await service.post(events)
    stored.push(...events)
  }
  const ended = once(service.child, 'exit')
  process.kill(service.clickhouse, 'SIGKILL')
  service.child.kill('SIGKILL')
  await ended
  const traced = await stop()
  return { dataDir, stored, ...traced }
}

/** A copy of a directory in which a power cut left files without their content. */
async function afterCut(dataDir: string, unsynced: Iterable<string>, zeros: boolean): Promise<string> {
  const copy = await newDirectory()
  await cp(dataDir, copy, { recursive: true })
  for (const path of unsynced) {
    const file = join(copy, path.slice(dataDir.length))
    const size = (await stat(file).catch(() => undefined))?.size
    if (size === undefined) continue
    await truncate(file, 0)
    if (zeros) await truncate(file, size)
  }
  return copy
}

async function open(dataDir: string): Promise<TestService & { end(): Promise<void> }> {
  const clickhouse = await startEmbedded({ dataDir, log: () => {} })
  const service = await startService({ now: new Date(now).toISOString(), clickhouse, from: { database: 'analytics', dataDir } })
  return Object.assign(service, {
    async end() {
      await service.stop()
      await clickhouse.stop()
    },
  })
}

test.skipIf(!HAS_STRACE || !IS_ASKED_FOR)('what was acknowledged survives a power cut, and every figure is right', async () => {
  const { dataDir, stored, unsynced, calls } = await storeAndCut('on')
  expect(calls.get('fdatasync')).toBeGreaterThan(100)
  expect(calls.get('fsync')).toBeGreaterThanOrEqual(24)
  expect([...unsynced].filter((path) => path.includes('/journal/'))).toEqual([])
  for (const zeros of [false, true]) {
    const service = await open(await afterCut(dataDir, unsynced, zeros))
    try {
      const reference = new Reference(stored, now)
      const org = { org: 'demo' }
      const [row] = await service.rows<{ n: number; ids: number }>(
        'SELECT toUInt32(count()) AS n, toUInt32(uniqExact(id)) AS ids FROM events',
      )
      expect(row, `zeros: ${zeros}`).toEqual({ n: stored.length, ids: stored.length })
      const ofDemo = Object.assign(service, { whole: wholeOf(service, org) })
      for (const [path, asked] of QUESTIONS) await compare(ofDemo, reference, path, asked, `zeros: ${zeros}`)
      const reply = await service.request('POST', '/operations/reconcile', { org: 'operator', scope: 'analytics:operate' })
      expect(reply.body.data).toMatchObject({ status: 'complete', duplicateIds: [], sharedNumbers: [], splitNames: [] })
      expect(reply.body.data).toMatchObject({ drift: [] })
      // Each is known.
      expect(await service.submit(stored, org)).toEqual([{ accepted: 0, duplicates: stored.length, rejected: [] }])
    } finally {
      await service.end()
    }
  }
})

const wholeOf =
  (service: TestService, org: { org: string }) =>
  async (path: string, params = {}) => {
    const reply = await service.get(path, params, org)
    if (reply.status !== 200)
      throw new Error(`GET ${path}: ${reply.status} ${JSON.stringify(reply.body)} ${service.complaints.at(-1)}`)
    return reply.body
  }

test.skipIf(!HAS_STRACE || !IS_ASKED_FOR)(
  'without SYNC_WRITES events are lost, which the model of a power cut shows',
  async () => {
    const { dataDir, stored, unsynced } = await storeAndCut('off')
    const service = await open(await afterCut(dataDir, unsynced, false))
    try {
      const [row] = await service.rows<{ n: number }>('SELECT toUInt32(count()) AS n FROM events')
      expect(row?.n).toBeGreaterThanOrEqual(500)
      expect(row?.n).toBeLessThan(stored.length)
    } finally {
      await service.end()
    }
  },
)

test('a file is unsynced from its first write on until it is synced, whatever its name', () => {
  const lines = [
    '7 openat(AT_FDCWD</>, "/d/tmp/a", O_WRONLY|O_CREAT, 0666) = 3</d/tmp/a>',
    '7 openat(AT_FDCWD</>, "/d/tmp/b", O_WRONLY|O_CREAT, 0666 <unfinished ...>',
    '8 write(3</d/tmp/a>, ""..., 4) = 4',
    '8 fdatasync(3</d/tmp/a> <unfinished ...>',
    '7 rename("/d/tmp/", "/d//part/") = 0',
    '7 write(9</elsewhere>, ""..., 4) = 4',
    '7 write(5</d/c>, ""..., 4) = 4',
    '7 fsync(5</d/c>) = 0',
    '7 write(5</d/c>, ""..., 4) = 4',
  ]
  expect([...parse(lines.join('\n'), '/d').unsynced].sort()).toEqual(['/d/c', '/d/part/b'])
  expect([...parse(lines.slice(0, 4).join('\n'), '/d').unsynced]).toEqual(['/d/tmp/b'])
})
