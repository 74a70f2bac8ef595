/**
 * DELETE /analytics/users/{user}. What every endpoint says before and after is compared whole: each figure stays what it
 * was, and nothing that is stored, kept or listed has the name any more.
 */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { tenantKey } from '../../src/domain/tenant.ts'
import { DiskFullError } from '../../src/clickhouse/embedded/disk-watch.ts'
import { Store, type StoreOptions } from '../../src/clickhouse/store.ts'
import { compare, PATHS } from '../compare.ts'
import { someEvents } from '../ingest/events.ts'
import { Reference, type Asked, type SentEvent } from '../reference.ts'
import { Journal } from '../../src/ingest/journal.ts'
import { startService, type Caller, type TestService } from '../support.ts'

const NOW = '2026-03-01T12:00:00.000Z'
const ADMIN = { scope: 'analytics:admin' }
const ANN = 'ann/ä person'

const RANGE = { startDate: '2025-12-07T03:07:41.123Z', endDate: '2026-03-01T11:59:59.999Z' }
const QUESTIONS: Record<(typeof PATHS)[number], Asked[]> = {
  overview: [{ period: 'month' }],
  metrics: [
    { period: 'week', ...RANGE, timezone: 'Asia/Kathmandu' },
    { period: 'day', ...RANGE, assistant: ['assistant 1'] },
  ],
  rolling: [{ window: 90 }],
  events: [],
  assistants: [RANGE],
  'users/top': [
    { ...RANGE, limit: 100 },
    { ...RANGE, limit: 100, assistant: ['assistant 2', 'assistant 3'] },
  ],
  snapshots: [{ ...RANGE, period: 'day' }],
}

/** Random events; every ninth is Ann's, with a trace and metadata that tell of her. */
const made = (name: string, count = 3_000): SentEvent[] =>
  someEvents({ count, from: '2025-12-01T00:00:00Z', to: NOW, seed: 8, name }).map((event, n) =>
    n % 9 === 0 ? { ...event, user: ANN, traceId: 'trace of ann', metadata: { says: 'I am Ann' } } : event,
  )

const all = made('event')
const ofAnn = all.filter(({ user }) => user === ANN)

let service: TestService
let reference: Reference
beforeEach(async () => {
  service = await startService({ now: NOW })
  reference = new Reference(all, NOW)
  await service.store(all)
})
afterEach(() => service.close())

const remove = (user: string, caller: Caller = {}) =>
  service.request('DELETE', `/analytics/users/${encodeURIComponent(user)}`, { ...ADMIN, ...caller })

async function reconciled(repair = false) {
  const { body } = await service.request('POST', `/operations/reconcile?repair=${repair}`, { scope: 'analytics:operate' })
  return body.data as { drift: unknown[]; repaired: number }
}

/** What the service says, but for lists of users: all of it has to be the same before and after. */
async function sums(caller: Caller = {}) {
  const answers: unknown[] = []
  for (const path of PATHS) {
    if (path === 'users/top') continue
    for (const asked of QUESTIONS[path]) answers.push(await service.whole(path, asked as Record<string, string>, caller))
  }
  answers.push(await service.whole('regressions', { hours: 168, minVolume: 1 }, caller))
  const { pagination } = await service.whole('events', { ...RANGE, limit: 1 }, caller)
  return { answers, total: pagination.total }
}

/** Every text that ClickHouse or the service keeps on disk, where it can be read. */
async function traces() {
  const found: string[] = []
  for (const [table, text] of [
    ['events', 'concat(user, trace_id, metadata, id, assistant, model)'],
    ['names', 'name'],
    ['answers', 'answer'],
    ['removals', 'toString(tuple(*))'],
  ]) {
    const [row] = await service.rows<{ n: number }>(
      `SELECT count() AS n FROM ${table} WHERE positionCaseInsensitive(${text}, 'ann/') > 0 OR positionCaseInsensitive(${text}, 'of ann') > 0 OR positionCaseInsensitive(${text}, 'am ann') > 0`,
    )
    if (row && row.n > 0) found.push(`${table}: ${row.n}`)
  }
  for (const file of await readdir(join(service.dataDir, 'journal'))) {
    if ((await readFile(join(service.dataDir, 'journal', file), 'utf8')).includes('ann/')) found.push(file)
  }
  return found
}

async function expectRemoved() {
  expect(await traces()).toEqual([])
  expect((await reconciled()).drift).toEqual([])
  const others = new Reference(
    all.filter(({ user }) => user !== ANN),
    NOW,
  )
  for (const asked of QUESTIONS['users/top']) await compare(service, others, 'users/top', asked)
}

describe('a user who is removed', () => {
  test('leaves every figure as it was, and no name', async () => {
    const before = await sums()
    expect(await traces()).not.toEqual([])
    const { status, body } = await remove(ANN)
    expect([status, body]).toEqual([
      200,
      {
        success: true,
        data: {
          receiptId: expect.stringMatching(/^[\da-f-]{36}$/),
          events: ofAnn.length,
          firstEventAt: ofAnn.map(({ timestamp }) => timestamp).sort()[0],
          lastEventAt: ofAnn
            .map(({ timestamp }) => timestamp)
            .sort()
            .at(-1),
          removedAt: expect.stringMatching(/Z$/),
        },
      },
    ])
    expect(await sums()).toEqual(before)
    // And what they are is right: the reference still counts one person more.
    for (const path of PATHS) {
      if (path === 'users/top') continue
      for (const asked of QUESTIONS[path]) await compare(service, reference, path, asked)
    }
    await expectRemoved()
    expect(await service.rows(`SELECT tenant, user_no, state, events FROM removals ORDER BY state`)).toEqual([
      { tenant: tenantKey('acme'), user_no: expect.any(Number), state: 'started', events: ofAnn.length },
      { tenant: tenantKey('acme'), user_no: expect.any(Number), state: 'done', events: ofAnn.length },
    ])
  })

  test('is nobody in the log, in pages and files, and found by no filter', async () => {
    const byId = async () => {
      const lines = (await service.get('events', { ...RANGE, format: 'ndjson' })).body as string
      return new Map(
        lines
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line))
          .map((event) => [event.id, event]),
      )
    }
    const before = await byId()
    await remove(ANN)
    const after = await byId()
    const isHers = new Set(ofAnn.map(({ id }) => id))
    expect([...after].map(([id, event]) => [id, event])).toEqual(
      [...before].map(([id, event]) => [id, isHers.has(id) ? { ...event, user: null, traceId: null, metadata: null } : event]),
    )
    const page = await service.data('events', { ...RANGE, limit: 1_000 })
    for (const event of page) expect(event.user === null).toBe(isHers.has(event.id))
    const csv = (await service.get('events', { ...RANGE, format: 'csv' })).body as string
    expect(csv).not.toContain('ann')
    for (const path of PATHS) {
      const asked = { ...(QUESTIONS[path][0] ?? RANGE), user: ANN }
      await compare(service, new Reference([], NOW), path, { ...asked, user: [ANN] })
    }
    for (const format of ['ndjson', 'csv']) {
      expect((await service.get('events', { ...RANGE, user: ANN, format })).body).not.toContain('event ')
    }
  })

  test('is not counted again when the events are sent again, with the old name or in an export', async () => {
    await remove(ANN)
    const [again] = await service.submit(all)
    expect(again).toEqual({ accepted: 0, duplicates: all.length, rejected: [] })
    const changed = await service.submit([{ ...(ofAnn[0] as SentEvent), cost: 0.5 }])
    expect(changed[0]).toMatchObject({ accepted: 0, rejected: [{ index: 0, message: expect.stringMatching(/other content/) }] })
    const lines = (await service.get('events', { ...RANGE, format: 'ndjson' })).body as string
    const { body } = await service.post(lines, { headers: { 'Content-Type': 'application/x-ndjson' } })
    expect(body.data.accepted).toBe(0)
    expect(body.data.rejected[0].message).toMatch(/^user must be/)
    await expectRemoved()
  })

  test('who comes back is somebody else, with a number that nobody had', async () => {
    await remove(ANN)
    const [{ last } = { last: 0 }] = await service.rows<{ last: number }>('SELECT max(user_no) AS last FROM events')
    const back: SentEvent = {
      id: 'back',
      eventType: 'tasksInitiated',
      timestamp: '2026-02-20T10:00:00.000Z',
      assistant: 'assistant 1',
      user: ANN,
    }
    await service.store([back])
    expect(await service.rows(`SELECT user_no FROM events WHERE id = 'back'`)).toEqual([{ user_no: last + 1 }])
    await compare(service, new Reference([back], NOW), 'events', { ...RANGE, user: [ANN] })
    expect((await service.data('rolling', { window: 90 })).activeUsers).toBe(new Set(all.map(({ user }) => user)).size + 1)
    expect((await reconciled()).drift).toEqual([])

    const { body } = await remove(ANN)
    expect(body.data.events).toBe(1)
    expect(await traces()).toEqual([])
  })

  test('with the highest number of all: a new user after a restart does not get it', async () => {
    await service.store([
      { id: 'z', eventType: 'tasksInitiated', timestamp: '2026-02-20T10:00:00.000Z', assistant: 'assistant 1', user: 'last one' },
    ])
    await remove('last one')
    await service.stop()
    service = await startService({ now: NOW, from: service })
    await service.store([
      { id: 'y', eventType: 'tasksInitiated', timestamp: '2026-02-20T11:00:00.000Z', assistant: 'assistant 1', user: 'newer' },
    ])
    const rows = await service.rows<{ id: string; user_no: number }>(
      `SELECT id, user_no FROM events WHERE id IN ('y', 'z') ORDER BY id`,
    )
    expect(rows[0]?.user_no).toBeGreaterThan(rows[1]?.user_no as number)
  })

  test('can be one whose events are in coarse spans, and whose day is repaired afterwards', async () => {
    service.setNow('2026-07-01T00:00:00Z')
    while (await service.writer.exclusive((guard) => service.seals.advance(guard)));
    await remove(ANN)
    expect(await service.rows('SELECT count() AS n FROM user_activity WHERE user_no IN (SELECT user_no FROM removals)')).toEqual([
      { n: 0 },
    ])
    await service.admin.command({
      query: `ALTER TABLE user_activity DELETE WHERE level = 2`,
      clickhouse_settings: { mutations_sync: '1' },
    })
    expect((await reconciled(true)).repaired).toBeGreaterThan(0)
    service.setNow(NOW)
    await expectRemoved()
  })
})

describe('who may', () => {
  test('the scope analytics:admin, of all assistants, in the own company only', async () => {
    await service.store(made('theirs'), { org: 'globex' })
    for (const scope of ['analytics:read analytics:write', 'analytics:operate', '']) {
      const { status, headers } = await remove(ANN, { scope })
      expect([status, headers.get('WWW-Authenticate')]).toEqual([403, expect.stringContaining('scope="analytics:admin"')])
    }
    expect((await remove(ANN, { assistants: ['assistant 1'] })).status).toBe(403)
    expect((await remove(ANN, { org: 'a company without events' })).status).toBe(404)

    const before = await service.whole('users/top', { ...RANGE, limit: 100 }, { org: 'globex' })
    expect((await remove(ANN)).status).toBe(200)
    expect(await service.whole('users/top', { ...RANGE, limit: 100 }, { org: 'globex' })).toEqual(before)
    expect(
      (await service.data('events', { startDate: '2025-12-01', endDate: NOW, user: ANN, limit: 1_000 }, { org: 'globex' }))
        .length,
    ).toBe(ofAnn.length)
    expect((await remove(ANN)).status).toBe(404)
    expect((await remove(ANN, { org: 'globex' })).body.data.events).toBe(ofAnn.length)
  })

  test('what names nobody, or is no name', async () => {
    const refused = { [`${'x'.repeat(257)}`]: 400, '%ff': 400, '%00': 400, nobody: 404, top: 404, 'nobody?user=ann': 400 }
    for (const [path, status] of Object.entries(refused)) {
      const reply = await service.request('DELETE', `/analytics/users/${path}`, ADMIN)
      expect([path, reply.status, reply.body.success]).toEqual([path, status, false])
    }
    expect((await service.request('GET', '/analytics/users/ann', ADMIN)).status).toBe(405)
  })
})

describe('where the name may live on', () => {
  test('kept answers are dropped, those of instances that only answer within seconds', async () => {
    const config = { CACHE_MB: '8', CLICKHOUSE_URL: 'http://shared' }
    const dataDir = await mkdtemp(join(tmpdir(), 'analytics-test-data-'))
    await service.stop()
    service = await startService({ now: NOW, from: service, config })
    const other = await startService({ now: NOW, from: { database: service.database, dataDir }, config })
    try {
      const asked = { ...RANGE, user: ANN }
      const seen = async (at: TestService) => ({
        hers: await at.whole('metrics', { ...asked, period: 'month' }),
        top: JSON.stringify(await at.whole('users/top', { ...RANGE, limit: 100 })).includes(ANN),
        page: JSON.stringify(await at.whole('events', { ...RANGE, limit: 1_000 })).includes(ANN),
      })
      const before = await seen(service)
      expect(await seen(other)).toEqual(before)
      expect(before).toMatchObject({ top: true, page: true })
      expect((await remove(ANN)).status).toBe(200)
      const after = await seen(service)
      expect(after).toMatchObject({
        top: false,
        page: false,
        hers: { data: after.hers.data.map(() => expect.objectContaining({ total: 0 })) },
      })
      other.setNow(Date.parse(NOW) + 2_500)
      expect(await seen(other)).toEqual(after)

      // The other one knew her number. It stores nothing under it, and finds her new one.
      const back: SentEvent = {
        id: 'back',
        eventType: 'tasksInitiated',
        timestamp: '2026-02-20T10:00:00.000Z',
        assistant: 'assistant 1',
        user: ANN,
      }
      await other.store([back])
      for (const at of [other, service]) {
        at.setNow(Date.parse(NOW) + 10_000)
        await vi.waitFor(
          () => compare(at, new Reference([back], Date.parse(NOW) + 10_000), 'events', { ...RANGE, user: [ANN] }),
          { timeout: 5_000 },
        )
      }
      expect((await reconciled()).drift).toEqual([])
      // And the first finds out about a removal by the other, which it has her new number from.
      expect((await other.request('DELETE', `/analytics/users/${encodeURIComponent(ANN)}`, ADMIN)).body.data.events).toBe(1)
      await service.store([{ ...back, id: 'back again' }])
      const numbers = await service.rows<{ n: number }>(`SELECT uniqExact(user_no) AS n FROM events WHERE startsWith(id, 'back')`)
      expect(numbers).toEqual([{ n: 2 }])
    } finally {
      await other.stop()
      await rm(dataDir, { recursive: true })
    }
  }, 60_000)

  test('a group of events that was not stored when the service ended has no name when it is', async () => {
    const [{ tenant, user_no } = { tenant: '', user_no: 0 }] = await service.rows<{ tenant: string; user_no: number }>(
      `SELECT tenant, user_no FROM events WHERE user = '${ANN}' LIMIT 1`,
    )
    await remove(ANN)
    await service.stop()
    const late = [
      tenant,
      '2026-02-10 10:00:00.000',
      'late',
      'tasksInitiated',
      'assistant 1',
      ANN,
      1,
      user_no,
      5,
      0,
      0,
      '',
      'trace of ann',
      '{"says":"I am Ann"}',
      0,
    ]
    const journal = await Journal.open(service.dataDir)
    await journal.write([{ token: 'cut-off', table: 'events', rows: JSON.stringify(late) }])
    service = await startService({ now: NOW, from: service })
    expect(
      await service.rows(`SELECT user, trace_id, metadata, toUInt32(cost_nanos) AS cost FROM events WHERE id = 'late'`),
    ).toEqual([{ user: '', trace_id: '', metadata: '', cost: 5 }])
    await expectRemoved()
  })
})

describe('a removal that is cut off', () => {
  /** A store whose n-th change to a table never comes about. */
  class Breaking extends Store {
    static at = Infinity
    #changes = 0
    #next() {
      if (++this.#changes === Breaking.at) throw new Error('cut off')
    }
    override async updateRows(...given: Parameters<Store['updateRows']>) {
      this.#next()
      await super.updateRows(...given)
      this.#next()
    }
    override async deleteRows(...given: Parameters<Store['deleteRows']>) {
      this.#next()
      await super.deleteRows(...given)
    }
  }
  const breaking = (options: StoreOptions) => new Breaking(options)
  afterEach(() => void (Breaking.at = Infinity))

  test.each([1, 3, 5])('at step %i is completed by the same request, with the same receipt', async (at) => {
    await service.stop()
    Breaking.at = at
    service = await startService({ now: NOW, from: service, makeStore: breaking })
    const { answers } = await sums()
    const broken = await remove(ANN)
    expect([broken.status, broken.headers.get('Retry-After')]).toEqual([503, '1'])
    const [begun] = await service.rows<{ receipt: string }>('SELECT toString(receipt) AS receipt FROM removals')
    expect((await reconciled()).drift).toEqual([])
    expect((await sums()).answers).toEqual(answers)
    // Meanwhile the person is active again: that is a new one.
    await service.store([
      {
        id: `again ${at}`,
        eventType: 'tasksInitiated',
        timestamp: '2025-01-01T10:00:00.000Z',
        assistant: 'assistant 1',
        user: ANN,
      },
    ])

    const { status, body } = await remove(ANN)
    expect([status, body.data]).toMatchObject([
      200,
      { receiptId: begun?.receipt, events: ofAnn.length + 1, firstEventAt: '2025-01-01T10:00:00.000Z' },
    ])
    await expectRemoved()
    expect((await remove(ANN)).status).toBe(404)
  })

  test('where it was recorded, and the disk was full then, forgets the person when it is asked for again', async () => {
    await service.stop()
    /** Calls until the disk is full for one. */
    let left = Infinity
    const makeStore = (options: StoreOptions) => {
      const store = new Store({
        ...options,
        assertWritten() {
          if (--left === 0) throw new DiskFullError('as on a full disk')
        },
      })
      const { insert } = store.admin
      store.admin.insert = (params) => {
        // Not before it is sent, but after that.
        if (params.table === 'removals' && left === Infinity) left = 2
        return insert(params)
      }
      return store
    }
    service = await startService({ now: NOW, from: service, makeStore })
    // So that the name is in memory.
    const again = { eventType: 'tasksInitiated', timestamp: '2025-01-01T10:00:00.000Z', assistant: 'assistant 1', user: ANN }
    await service.store([{ ...again, id: 'once more' }])
    expect((await remove(ANN)).status).toBe(503)
    expect((await remove(ANN)).status).toBe(200)
    await expectRemoved()
    await service.store([{ ...again, id: 'and once more' }])
    expect((await remove(ANN)).body.data).toMatchObject({ events: 1 })
    await expectRemoved()
  })

  test.each([2, 4])('at step %i is completed by the next service that starts', async (at) => {
    await service.stop()
    Breaking.at = at
    service = await startService({ now: NOW, from: service, makeStore: breaking })
    const { answers } = await sums()
    expect((await remove(ANN)).status).toBe(503)
    await service.stop()
    service = await startService({ now: NOW, from: service })
    await vi.waitFor(async () => expect(await service.rows(`SELECT state FROM removals WHERE state = 'done'`)).toHaveLength(1), {
      timeout: 10_000,
    })
    expect((await sums()).answers).toEqual(answers)
    await expectRemoved()
    expect((await remove(ANN)).status).toBe(404)
  })
})
