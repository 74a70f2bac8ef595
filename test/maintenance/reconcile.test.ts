/** Rollups that differ from the raw log: found where they are, put right while events come in, and only there. */
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { tenantKey } from '../../src/domain/tenant.ts'
import { Store } from '../../src/clickhouse/store.ts'
import { Journal } from '../../src/ingest/journal.ts'
import { repairSinceTerm } from '../../src/ingest/repair-insert.ts'
import { compare, type Path } from '../compare.ts'
import { Reference, type Asked } from '../reference.ts'
import { startService, type TestService } from '../support.ts'
import { someEvents } from '../ingest/events.ts'

vi.setConfig({ testTimeout: 120_000 })

const NOW = '2026-03-01T12:00:00.000Z'
/** The only day that has events and no coarse level over it: they are sealed up to its midnight. */
const LAST_DAY = '2026-02-28'
const OPERATOR = { org: 'operator', scope: 'analytics:operate' }

/** Each reads other levels; together all of them. */
const QUESTIONS: Array<[Path, Asked]> = [
  ['metrics', { period: 'day', startDate: '2025-10-20', endDate: '2026-03-02' }],
  ['metrics', { period: 'month', startDate: '2025-10-20', endDate: '2026-03-02', assistant: ['assistant 1'] }],
  ['metrics', { period: 'day', startDate: '2026-02-20T01:15', endDate: '2026-02-28T22:30' }],
  ['metrics', { period: 'day', startDate: '2026-02-28T00:15', endDate: '2026-02-28T04:45', assistant: ['assistant 2'] }],
  ['metrics', { period: 'day', startDate: '2026-02-28T00:15', endDate: '2026-02-28T11:45' }],
  ['assistants', { startDate: '2025-12-01', endDate: '2026-03-01' }],
  ['users/top', { startDate: '2025-10-20', endDate: '2026-03-02', limit: 100 }],
  ['users/top', { startDate: '2026-02-27', endDate: '2026-03-01', limit: 100 }],
  ['overview', { period: 'month' }],
  ['rolling', { window: 30 }],
]

let service: TestService
afterEach(() => service.close())

const ask = async (reference: Reference) => {
  for (const [path, asked] of QUESTIONS) await compare(service, reference, path, asked)
}

interface Found {
  days: number
  repaired: number
  drift: Array<{ tenant: string; start: string; rollup: string; sourceEvents: number; rollupEvents: number }>
}

async function reconcile(repair = false, params = ''): Promise<Found> {
  for (;;) {
    const reply = await service.request('POST', `/operations/reconcile?repair=${repair}${params}`, OPERATOR)
    expect(reply.status, `${JSON.stringify(reply.body)} ${service.complaints.at(-1)}`).toBe(200)
    if (reply.body.data.status === 'complete') return reply.body.data as Found
  }
}

const places = ({ drift }: Found) => drift.map(({ tenant, start, rollup }) => `${tenant} ${start.slice(0, 10)} ${rollup}`).sort()

function change(query: string) {
  const [, table, where] = /^ALTER TABLE (\w+) DELETE WHERE ([^]+)$/.exec(query) ?? []
  if (table && where) return service.deleteRows(table, where)
  return service.admin.command({ query, clickhouse_settings: { wait_end_of_query: 1 } })
}

/** The start of the span that holds an instant. */
const spanOf = (instant: string, days: number) =>
  new Date(Math.floor(Date.parse(instant) / days / 86_400_000) * days * 86_400_000).toISOString().slice(0, 10)

/** Stores events of two companies; their keys come as literals of SQL. */
async function fill() {
  const events = {
    acme: someEvents({ count: 3_000, from: '2025-10-25', to: '2026-03-01', seed: 1 }),
    globex: someEvents({ count: 1_000, from: '2026-01-10', to: '2026-03-01', seed: 2 }),
  }
  // Every quarter of an hour of the last day has something to lose.
  events.acme.push(...someEvents({ count: 2_000, from: LAST_DAY, to: '2026-03-01', seed: 3, name: 'dense' }))
  await service.store(events.acme)
  await service.store(events.globex, { org: 'globex' })
  return { events, acme: `'${tenantKey('acme')}'`, globex: `'${tenantKey('globex')}'` }
}

describe('planted drift', () => {
  test('is found where it is, level by level, and repaired while writers go on', async () => {
    service = await startService({ now: NOW, config: { CACHE_MB: '32' } })
    const { events, acme, globex } = await fill()
    const reference = new Reference(events.acme, Date.parse(NOW))
    await ask(reference)
    expect(await reconcile()).toMatchObject({ drift: [], repaired: 0 })

    const expected: string[] = []
    const plant = async (tenant: string, start: string, rollup: string, query: string) => {
      await change(query)
      expected.push(`${tenant} ${start} ${rollup}`)
    }
    const from = (table: string, level: number, start: string, rest: string, tenant = acme) =>
      `ALTER TABLE ${table} DELETE WHERE tenant = ${tenant} AND level = ${level} AND ${rest} AND start ${start}`
    const early = `BETWEEN '${LAST_DAY} 00:00:00' AND '${LAST_DAY} 03:00:00'`
    await plant('acme', LAST_DAY, 'activity level 0 of the fleet', from('activity', 0, early, 'assistant_no = 0'))
    await plant(
      'acme',
      '2026-02-21',
      'activity level 0 by assistant',
      from('activity', 0, `BETWEEN '2026-02-21 00:00:00' AND '2026-02-21 23:59:59'`, 'assistant_no > 1'),
    )
    await plant(
      'acme',
      LAST_DAY,
      'activity level 1 of the fleet',
      from('activity', 1, `= '${LAST_DAY} 06:00:00'`, 'assistant_no = 0'),
    )
    await plant(
      'acme',
      LAST_DAY,
      'activity level 2 of the fleet',
      from('activity', 2, `= '${LAST_DAY} 00:00:00'`, 'assistant_no = 0'),
    )
    await plant(
      'globex',
      LAST_DAY,
      'activity level 2 by assistant',
      from('activity', 2, `= '${LAST_DAY} 00:00:00'`, 'assistant_no = 1', globex),
    )
    await plant('acme', LAST_DAY, 'activity level 1 by assistant', from('activity', 1, early, 'assistant_no = 1'))
    await plant('acme', LAST_DAY, 'activity level 6 by assistant', from('activity', 6, early, 'assistant_no = 1'))
    await plant('acme', LAST_DAY, 'user_activity level 2', from('user_activity', 2, `= '${LAST_DAY} 00:00:00'`, 'user_no < 4'))
    for (const [level, days] of [
      [3, 4],
      [4, 16],
      [5, 64],
    ] as const) {
      const start = spanOf('2025-12-20', days)
      await plant(
        'acme',
        start,
        `activity level ${level} of the fleet`,
        from('activity', level, `= '${start} 00:00:00'`, 'assistant_no = 0'),
      )
      await plant(
        'acme',
        start,
        `activity level ${level} by assistant`,
        from('activity', level, `= '${start} 00:00:00'`, 'assistant_no = 2'),
      )
      await plant(
        'acme',
        start,
        `user_activity level ${level}`,
        from('user_activity', level, `= '${start} 00:00:00'`, 'user_no = 3'),
      )
    }
    await plant(
      'acme',
      '2026-02-11',
      'activity pieces of days of the fleet',
      from('activity', 173, `= '2026-02-11 18:15:00'`, 'assistant_no = 0'),
    )
    // Rows that stand for nothing: a user who was not there, and figures that are too high.
    const columns = '(tenant, level, start, user_no, incoming_messages, last_at)'
    await plant(
      'globex',
      LAST_DAY,
      'user_activity level 2',
      `INSERT INTO user_activity ${columns} VALUES (${globex}, 2, '${LAST_DAY}', 7, 50, '${LAST_DAY} 01:00:00')`,
    )
    await plant(
      'globex',
      '2026-01-13',
      'activity level 1 of the fleet',
      `INSERT INTO activity (tenant, level, assistant_no, start, cost_nanos)
       VALUES (${globex}, 1, 0, '2026-01-13 03:00:00', 1000000000)`,
    )
    await plant(
      'globex',
      '2026-01-20',
      'activity pieces of days of the fleet',
      `INSERT INTO activity (tenant, level, assistant_no, start, input_tokens) VALUES (${globex}, 120, 0, '2026-01-20 05:00:00', 1)`,
    )

    const found = await reconcile()
    // What was planted first is the source of that day's pieces, which differ from it until it is repaired.
    expect(places(found)).toEqual([...expected, `acme ${LAST_DAY} activity pieces of days of the fleet`].sort())
    expect(found.repaired).toBe(0)
    const ofTheDay = found.drift.find(({ tenant, rollup }) => tenant === 'acme' && rollup === 'activity level 2 of the fleet')
    expect(ofTheDay).toMatchObject({ rollupEvents: 0 })
    expect(ofTheDay?.sourceEvents).toBeGreaterThan(2_000)
    // A range that holds none of it.
    expect((await reconcile(false, '&startDate=2025-11-11&endDate=2025-11-12')).drift).toEqual([])
    // Answers are wrong, and kept; nothing that is stored meanwhile touches this one.
    const ofGlobex: Asked = { period: 'day', startDate: '2026-01-13T03:00', endDate: '2026-01-13T06:00' }
    const globexAnswers = () => service.data('metrics', ofGlobex as Record<string, string>, { org: 'globex' })
    const right = new Reference(events.globex, Date.parse(NOW)).metrics(ofGlobex)
    expect(await globexAnswers()).not.toEqual(right)

    const traffic = { ends: false }
    const writers = [4, 5].map(async (seed) => {
      let count = 0
      for (let batch = 0; !traffic.ends && batch < 300; batch++) {
        const name = `${seed}/${batch}`
        const more = someEvents({ count: 40, from: '2025-10-25', to: NOW, seed: seed * 1_000 + batch, name })
        await service.store(more)
        reference.add(more)
        count += more.length
      }
      return count
    })
    const repair = await reconcile(true).finally(() => (traffic.ends = true))
    const written = await Promise.all(writers)
    expect(repair.repaired).toBe(repair.drift.length)
    expect(places(repair)).toEqual(expected.sort())
    expect(Math.min(...written)).toBeGreaterThan(0)
    expect(await globexAnswers()).toEqual(right)
    await ask(reference)
    expect(await reconcile()).toMatchObject({ drift: [], repaired: 0 })
  })

  test('in sealed days shows in the day and in the spans over it, and one repair puts all of them right', async () => {
    service = await startService({ now: NOW })
    const { events, acme } = await fill()
    await change(`ALTER TABLE activity DELETE WHERE tenant = ${acme} AND level = 2 AND start = '2025-12-20 00:00:00'`)
    const spans = [
      [3, 4],
      [4, 16],
      [5, 64],
    ].flatMap(([level, days]) =>
      ['of the fleet', 'by assistant'].map((by) => `acme ${spanOf('2025-12-20', days as number)} activity level ${level} ${by}`),
    )
    const days = ['of the fleet', 'by assistant'].map((by) => `acme 2025-12-20 activity level 2 ${by}`)
    expect(places(await reconcile())).toEqual([...days, ...spans].sort())
    await reconcile(true)
    expect((await reconcile()).drift).toEqual([])
    await ask(new Reference(events.acme, Date.parse(NOW)))
  })

  test('of a tenant that has no events at all is found and taken away', async () => {
    service = await startService({ now: NOW })
    const { acme } = await fill()
    const nobody = tenantKey('a company that never wrote')
    await change(`INSERT INTO activity (tenant, level, assistant_no, start, incoming_messages)
      VALUES ('${nobody}', 2, 0, '2026-02-01', 3)`)
    await change(`INSERT INTO user_activity (tenant, level, start, user_no, tasks_completed)
      VALUES (${acme}, 2, '2024-05-05', 1, 3)`)
    const found = await reconcile(true)
    expect(places(found)).toContain(`${nobody} 2026-02-01 activity level 2 of the fleet`)
    expect(places(found)).toContain('acme 2024-05-05 user_activity level 2')
    expect((await reconcile()).drift).toEqual([])
  })
})

describe('an insert that was cut off', () => {
  const TOKEN = 'a-group-that-was-cut-off'
  const COLUMNS = [
    'tenant',
    'timestamp',
    'id',
    'event_type',
    'assistant',
    'user',
    'assistant_no',
    'user_no',
    'cost_nanos',
    'input_tokens',
    'output_tokens',
    'model',
    'trace_id',
    'metadata',
    'late_levels',
  ]
  const before = someEvents({ count: 500, from: '2026-01-20', to: '2026-03-01', seed: 11 })
  const group = someEvents({ count: 200, from: '2026-01-20', to: '2026-03-01', seed: 12, name: 'cut' })

  /** The lines that the writer would journal and send for `group`. */
  async function lines(): Promise<string> {
    const tenant = tenantKey('acme')
    const [assistants, users] = await Promise.all([
      service.names.numbers(
        tenant,
        'assistant',
        group.map(({ assistant }) => assistant),
      ),
      service.names.numbers(
        tenant,
        'user',
        group.map(({ user }) => user),
      ),
    ])
    const { sealedUntil } = service.seals
    return group
      .map((event, n) =>
        JSON.stringify([
          tenant,
          event.timestamp.slice(0, 23).replace('T', ' '),
          event.id,
          event.eventType,
          event.assistant,
          event.user,
          assistants[n],
          users[n],
          Math.round((event.cost ?? 0) * 1e9),
          event.inputTokens ?? 0,
          event.outputTokens ?? 0,
          event.model ?? '',
          event.traceId ?? '',
          event.metadata ? JSON.stringify(event.metadata) : '',
          sealedUntil.filter((until) => Date.parse(event.timestamp) < until * 1_000).length,
        ]),
      )
      .join('\n')
  }

  const insert = async (rows: string, token: string) => {
    const { stream } = await service.admin.exec({
      query: `INSERT INTO events (${COLUMNS.join(', ')}) FORMAT JSONCompactEachRow\n${rows}`,
      clickhouse_settings: {
        insert_deduplication_token: token,
        insert_deduplicate: 1,
        deduplicate_blocks_in_dependent_materialized_views: 1,
        input_format_parallel_parsing: 0,
        wait_end_of_query: 1,
      },
    })
    for await (const _ of stream) continue
  }

  /** Runs `crash` on a service that has stored `before`, and starts it again with the group in its journal. */
  async function restartAfter(crash: (rows: string) => Promise<void>) {
    service = await startService({ now: NOW })
    await service.store(before)
    const rows = await lines()
    await crash(rows)
    const { database, dataDir } = service
    await service.stop()
    const journal = await Journal.open(dataDir)
    await journal.write([{ token: TOKEN, table: 'events', rows }])
    // What a run that was killed while it wrote has left behind was never sent.
    await writeFile(join(dataDir, 'journal', '999999999999999-half.json.part'), '{"inser')
    service = await startService({ now: NOW, from: { database, dataDir } })
    expect(await readdir(join(dataDir, 'journal'))).toEqual([])
  }

  async function expectWhole() {
    const [row] = await service.rows<{ events: number; ids: number }>(
      'SELECT count() AS events, uniqExact(id) AS ids FROM events',
    )
    expect(row).toEqual({ events: before.length + group.length, ids: before.length + group.length })
    expect(await reconcile()).toMatchObject({ drift: [], repaired: 0 })
    await ask(new Reference([...before, ...group], Date.parse(NOW)))
    // The callers were never answered: they ask again.
    expect(await service.submit(group)).toEqual([{ accepted: 0, duplicates: group.length, rejected: [] }])
  }

  const CRASHES: Array<[when: string, crash: (rows: string) => Promise<void>]> = [
    ['before it was sent', async () => {}],
    [
      'after the raw log, before any rollup',
      async (rows) => {
        for (const view of ['activity_mv', 'user_activity_mv']) await change(`DETACH TABLE ${view}`)
        await insert(rows, TOKEN)
        for (const view of ['activity_mv', 'user_activity_mv']) await change(`ATTACH TABLE ${view}`)
      },
    ],
    [
      'between one rollup and the other',
      async (rows) => {
        await change('DETACH TABLE user_activity_mv')
        await insert(rows, TOKEN)
        await change('ATTACH TABLE user_activity_mv')
      },
    ],
    ['between all tables and the answer', (rows) => insert(rows, TOKEN)],
    // A mutation takes rows away and leaves their token known, as a kill between the two does.
    [
      'between the token of the raw log and its rows',
      async (rows) => {
        for (const view of ['activity_mv', 'user_activity_mv']) await change(`DETACH TABLE ${view}`)
        await insert(rows, TOKEN)
        for (const view of ['activity_mv', 'user_activity_mv']) await change(`ATTACH TABLE ${view}`)
        await change(`ALTER TABLE events DELETE WHERE startsWith(id, 'cut')`)
      },
    ],
    [
      'between the token of a rollup and its rows',
      async (rows) => {
        await change('DETACH TABLE user_activity_mv')
        await insert(rows, TOKEN)
        await change('ATTACH TABLE user_activity_mv')
        await change(`ALTER TABLE activity DELETE WHERE tenant = '${tenantKey('acme')}' AND level = 2`)
      },
    ],
    ['between the rows and their token', (rows) => insert(rows, 'forgotten')],
  ]

  for (const [when, crash] of CRASHES) {
    test(`${when} is completed from the journal, exactly`, async () => {
      await restartAfter(crash)
      await expectWhole()
    })
  }

  test('an answer that goes with it is kept, and said again', async () => {
    const batch = JSON.stringify(group)
    const headers = { 'Idempotency-Key': 'the-key' }
    service = await startService({ now: NOW })
    await service.store(before)
    const first = await service.post(batch, { headers })
    expect(first.body.data).toEqual({ accepted: group.length, duplicates: 0, rejected: [] })
    const { database, dataDir } = service
    await service.stop()
    service = await startService({ now: NOW, from: { database, dataDir } })
    expect((await service.post(batch, { headers })).body.data).toEqual(first.body.data)
    const other = await service.post(JSON.stringify(before), { headers })
    expect(other.status).toBe(422)
  })
})

describe('a seal that was cut off', () => {
  test('is made anew, with the events that came in between', async () => {
    // Four days end at midnight; they are sealed ten minutes later.
    service = await startService({ now: '2026-02-28T00:05:00.000Z' })
    const early = someEvents({ count: 300, from: '2026-02-20', to: '2026-02-28', seed: 21 })
    const between = someEvents({ count: 100, from: '2026-02-24', to: '2026-02-28', seed: 22, name: 'between' })
    await service.store(early)
    const start = '2026-02-24 00:00:00'
    expect(spanOf('2026-02-27', 4)).toBe('2026-02-24')
    // The attempt got as far as one table, with a row of some fleet in it.
    await change(`INSERT INTO activity SELECT tenant, 3, assistant_no, toDateTime('${start}', 'UTC'), incoming_messages,
      outgoing_messages, tasks_initiated, tasks_completed, cost_nanos, input_tokens, output_tokens, last_at, users, assistants
      FROM activity WHERE level = 2 AND start >= '${start}'`)
    await service.store(between)
    service.setNow('2026-02-28T00:11:00.000Z')
    const [sealed] = service.seals.sealedUntil
    for (let i = 0; i < 300 && service.seals.sealedUntil[0] === sealed; i++) await new Promise((done) => setTimeout(done, 100))
    expect(service.seals.sealedUntil[0]).toBe(Date.parse('2026-02-28') / 1_000)
    expect((await reconcile()).drift).toEqual([])
    const reference = new Reference([...early, ...between], Date.parse('2026-02-28T00:11:00.000Z'))
    await compare(service, reference, 'metrics', { period: 'month', startDate: '2026-02-20', endDate: '2026-03-01' })
    await compare(service, reference, 'users/top', { startDate: '2026-02-20', endDate: '2026-03-01', limit: 100 })
  })
})

test('2,000 days of one event each are compared in a few stretches, and repaired completely though everything is lost', async () => {
  let queries = 0
  let store!: Store
  service = await startService({
    now: NOW,
    makeStore(options) {
      store = new Store(options)
      const { readInternal } = store
      store.readInternal = (name, ...rest) => {
        if (name.startsWith('reconcile_')) queries++
        return readInternal.call(store, name, ...rest) as never
      }
      return store
    },
  })
  const events = Array.from({ length: 2_000 }, (_, day) => ({
    id: `day ${day}`,
    eventType: 'incomingMessages',
    timestamp: new Date(Date.parse(NOW) - (day + 1) * 86_400_000).toISOString(),
    assistant: 'Rex',
    user: 'ann',
  }))
  await service.store(events)
  for (const table of ['activity', 'user_activity']) await service.deleteRows(table, '1')
  queries = 0
  const repaired = await repairSinceTerm(store, service.seals, (work) => service.writer.exclusive(work), 0)
  // Six rollups by day, and half days.
  expect(repaired).toBeGreaterThan(7 * 2_000)
  // In stretches of 16 days it takes more than 2,000.
  expect(queries).toBeLessThan(200)
  expect(await reconcile()).toMatchObject({ days: 2_000, drift: [] })
})
