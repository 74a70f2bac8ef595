/** Ids stored twice, numbers with two names, names with two numbers: made with SQL, found, and repaired in every answer. */
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Store } from '../../src/clickhouse/store.ts'
import { tenantKey } from '../../src/domain/tenant.ts'
import { reconcileIds } from '../../src/maintenance/reconcile-ids.ts'
import { compare, type Path } from '../compare.ts'
import { Reference, type Asked, type SentEvent } from '../reference.ts'
import { someEvents } from '../ingest/events.ts'
import { startService, type TestService } from '../support.ts'

vi.setConfig({ testTimeout: 240_000 })

const NOW = '2026-03-01T12:00:00.000Z'
const RANGE = { startDate: '2025-12-20', endDate: '2026-03-02' }
const OPERATOR = { org: 'operator', scope: 'analytics:operate' }
const ACME = tenantKey('acme')

const QUESTIONS: ReadonlyArray<[Path, Asked]> = [
  ['overview', { period: 'month' }],
  ['metrics', { ...RANGE, period: 'day' }],
  ['metrics', { ...RANGE, period: 'month', assistant: ['assistant 1'] }],
  ['metrics', { ...RANGE, period: 'month', user: ['user 4'] }],
  ['rolling', { window: 30 }],
  ['events', { ...RANGE, limit: 1_000 }],
  ['events', { ...RANGE, limit: 1_000, user: ['user 4'] }],
  ['events', { ...RANGE, limit: 1_000, user: ['user 5', 'user 6'] }],
  ['assistants', RANGE],
  ['assistants', { ...RANGE, user: ['user 5'] }],
  ['users/top', { ...RANGE, limit: 1_000 }],
  ['users/top', { ...RANGE, limit: 1_000, assistant: ['assistant 2'] }],
  ['snapshots', { ...RANGE, period: 'day' }],
]

let service: TestService
let store: Store
afterEach(() => service.close())

const events = {
  acme: someEvents({ count: 1_500, from: '2025-12-25', to: '2026-03-01', seed: 1 }),
  globex: someEvents({ count: 400, from: '2026-01-10', to: '2026-03-01', seed: 2 }),
}

async function fill() {
  service = await startService({ now: NOW, config: { CACHE_MB: '32' }, makeStore: (options) => (store = new Store(options)) })
  await service.store(events.acme)
  await service.store(events.globex, { org: 'globex' })
}

async function ask(stored: readonly SentEvent[] = events.acme) {
  const reference = new Reference(stored, Date.parse(NOW))
  for (const [path, asked] of QUESTIONS) await compare(service, reference, path, asked)
}

async function reconcile(repair = false) {
  for (;;) {
    const reply = await service.request('POST', `/operations/reconcile?repair=${repair}`, OPERATOR)
    expect(reply.status, `${JSON.stringify(reply.body)} ${service.complaints.at(-1)}`).toBe(200)
    if (reply.body.data.status === 'complete') return reply.body.data
  }
}

const NOTHING = { drift: [], duplicateIds: [], sharedNumbers: [], splitNames: [], identitiesRepaired: 0 }

/** Repaired once, nothing is left to find, every answer is right, and events are stored as before. */
async function expectRepaired() {
  expect(await reconcile()).toMatchObject(NOTHING)
  await ask()
  const more = someEvents({ count: 60, from: '2026-02-01', to: '2026-03-01', seed: 9, name: 'more' })
  await service.store(more)
  expect(await service.submit(events.acme)).toEqual([{ accepted: 0, duplicates: events.acme.length, rejected: [] }])
  await ask([...events.acme, ...more])
  expect(await reconcile()).toMatchObject(NOTHING)
  const other = new Reference(events.globex, Date.parse(NOW)).metrics({ ...RANGE, period: 'month' })
  expect(await service.data('metrics', { ...RANGE, period: 'month' }, { org: 'globex' })).toEqual(other)
}

const run = (query: string) =>
  service.admin.command({ query, clickhouse_settings: { wait_end_of_query: 1, mutations_sync: '1', insert_deduplicate: 0 } })

/** Stores some rows of the log once more, through every view, as an insert does that should not have been sent. */
async function again(where: string, changes: Record<string, string> = {}) {
  const columns = await service.rows<{ name: string }>(
    `SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'events' AND name != 'received_at' ORDER BY position`,
  )
  const list = columns.map(({ name }) => name)
  await run(
    `INSERT INTO events (${list.join(', ')}) SELECT ${list.map((name) => changes[name] ?? name).join(', ')} FROM events WHERE ${where}`,
  )
}

const numberOf = async (kind: 'assistant' | 'user', name: string) =>
  (await service.names.numbers(ACME, kind, [name]))[0] as number

describe('an id that is stored twice', () => {
  test('is found, named, and stored once after a repair', async () => {
    await fill()
    expect(await reconcile()).toMatchObject(NOTHING)
    const twice = events.acme.slice(0, 40).map(({ id }) => id)
    await again(`tenant = '${ACME}' AND id IN (${twice.map((id) => `'${id}'`).join(', ')})`)
    await again(`tenant = '${ACME}' AND id = 'event 3'`)
    // Another company has the same id, once.
    const found = await reconcile()
    expect(found.duplicateIds).toHaveLength(40)
    expect(found.duplicateIds).toContainEqual({ tenant: 'acme', id: 'event 3', copies: 4, contents: 1 })
    expect(found.duplicateIds).toContainEqual({ tenant: 'acme', id: 'event 7', copies: 2, contents: 1 })
    expect(found.drift).toEqual([])
    expect((await service.data('metrics', { ...RANGE, period: 'month' }))[0].total).not.toBe(
      new Reference(events.acme, Date.parse(NOW)).metrics({ ...RANGE, period: 'month' })[0]?.total,
    )
    expect(await reconcile(true)).toMatchObject({ identitiesRepaired: 40, drift: [] })
    await expectRepaired()
  })

  test('with another content keeps the event that was stored first', async () => {
    await fill()
    await again(`tenant = '${ACME}' AND id = 'event 11'`, { timestamp: 'timestamp + 86400', cost_nanos: 'cost_nanos + 7' })
    const found = await reconcile(true)
    expect(found.duplicateIds).toEqual([{ tenant: 'acme', id: 'event 11', copies: 2, contents: 2 }])
    await expectRepaired()
  })

  test('is found whatever the pass, and an id in another company is not one', async () => {
    await fill()
    await again(`tenant = '${ACME}' AND startsWith(id, 'event 1')`)
    const { seals, names, writer } = service
    const options = { from: 0, to: Date.parse('2100-01-01'), repair: false, passSize: { ids: 100, names: 3 } }
    const found = await reconcileIds(store, seals, names, (work) => writer.exclusive(work), options)
    const expected = events.acme.map(({ id }) => id).filter((id) => id.startsWith('event 1'))
    expect(found.duplicateIds.map(({ id }) => id).sort()).toEqual(expected.sort())
  })
})

describe('a number with two names', () => {
  test.each(['user', 'assistant'] as const)(
    'of one %s, in the log and in the dictionary, is given to one of them',
    async (kind) => {
      await fill()
      const [one, two] = [`${kind} 3`, `${kind} 4`]
      const [number, wrong] = [await numberOf(kind, one), await numberOf(kind, two)]
      // As two instances did that gave out the same number: the second name has never had one of its own.
      await run(`ALTER TABLE events UPDATE ${kind}_no = ${number} WHERE tenant = '${ACME}' AND ${kind} = '${two}'`)
      await run(`ALTER TABLE names DELETE WHERE tenant = '${ACME}' AND kind = '${kind}' AND name = '${two}'`)
      await run(`INSERT INTO names (tenant, kind, name, number) VALUES ('${ACME}', '${kind}', '${two}', ${number})`)
      service.names.forgetAll()
      const found = await reconcile()
      expect(found.sharedNumbers).toEqual([{ tenant: 'acme', kind, number, names: [one, two] }])
      expect(found.splitNames).toEqual([])
      const repaired = await reconcile(true)
      expect(repaired.identitiesRepaired).toBe(1)
      const numbers = await service.rows<{ name: string; number: number }>(
        `SELECT name, number FROM names WHERE tenant = '${ACME}' AND kind = '${kind}' AND name IN ('${one}', '${two}')`,
      )
      expect(numbers).toHaveLength(2)
      expect(new Set(numbers.map((row) => row.number)).size).toBe(2)
      expect(numbers.map((row) => row.number)).toContain(number)
      expect(wrong).not.toBe(number)
      await expectRepaired()
    },
  )

  test('in the log alone goes back to the one that the dictionary says', async () => {
    await fill()
    const [five, six] = [await numberOf('user', 'user 5'), await numberOf('user', 'user 6')]
    await run(
      `ALTER TABLE events UPDATE user_no = ${five} WHERE tenant = '${ACME}' AND user = 'user 6' AND timestamp > '2026-02-20 00:00:00'`,
    )
    const found = await reconcile(true)
    expect(found.sharedNumbers).toEqual([{ tenant: 'acme', kind: 'user', number: five, names: ['user 5', 'user 6'] }])
    expect(found.splitNames).toEqual([
      { tenant: 'acme', kind: 'user', name: 'user 6', numbers: [five, six].sort((a, b) => a - b) },
    ])
    expect(await numberOf('user', 'user 6')).toBe(six)
    await expectRepaired()
  })
})

describe('a name with two numbers', () => {
  test.each(['user', 'assistant'] as const)('of %ss becomes one', async (kind) => {
    await fill()
    const [name, number] = [`${kind} 2`, await numberOf(kind, `${kind} 2`)]
    await run(`INSERT INTO names (tenant, kind, name, number) VALUES ('${ACME}', '${kind}', '${name}', 900)`)
    await run(
      `ALTER TABLE events UPDATE ${kind}_no = 900 WHERE tenant = '${ACME}' AND ${kind} = '${name}' AND timestamp < '2026-01-05 00:00:00'`,
    )
    service.names.forgetAll()
    const found = await reconcile(true)
    expect(found.splitNames).toEqual([{ tenant: 'acme', kind, name, numbers: [number, 900] }])
    expect(found.sharedNumbers).toEqual([])
    await expectRepaired()
  })

  test('of somebody who was removed is none', async () => {
    await fill()
    const admin = { org: 'acme', scope: 'analytics:admin' }
    expect((await service.request('DELETE', `/analytics/users/${encodeURIComponent('user 4')}`, admin)).status).toBe(200)
    await service.store([{ ...events.acme[0], id: 'back', user: 'user 4' } as SentEvent])
    expect(await reconcile()).toMatchObject(NOTHING)
  })
})

test('all of it at once, in a chain of names and numbers, is repaired by one run', async () => {
  await fill()
  const numbers = new Map<string, number>()
  for (const n of [1, 2, 3, 4, 5, 6]) numbers.set(`user ${n}`, await numberOf('user', `user ${n}`))
  const late = `timestamp > '2026-02-01 00:00:00'`
  for (const n of [1, 2, 3, 4, 5]) {
    const other = numbers.get(`user ${n + 1}`)
    await run(
      `ALTER TABLE events UPDATE user_no = ${other} WHERE tenant = '${ACME}' AND user = 'user ${n}' AND ${late} AND toString(event_type) = 'tasksInitiated'`,
    )
    if (n % 2 === 0) await run(`INSERT INTO names (tenant, kind, name, number) VALUES ('${ACME}', 'user', 'user ${n}', ${other})`)
  }
  await again(`tenant = '${ACME}' AND startsWith(id, 'event 2')`, {
    user_no: `if(user = 'user 1', ${numbers.get('user 9') ?? 77}, user_no)`,
  })
  await again(`tenant = '${ACME}' AND id = 'event 500'`)
  service.names.forgetAll()
  const found = await reconcile(true)
  expect(found.sharedNumbers.length).toBeGreaterThanOrEqual(5)
  expect(found.splitNames.length).toBeGreaterThanOrEqual(5)
  // Copies that a change of numbers has met are one by then already.
  expect(found.duplicateIds.map(({ id }: { id: string }) => id)).toContain('event 500')
  await expectRepaired()
})
