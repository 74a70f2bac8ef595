/**
 * Two companies whose assistants and users have the same numbers, on purpose: rows written into `names` by hand, so that
 * everything but the key of the company is alike, in every table. Neither sees, changes or counts anything of the other.
 *
 * As in isolation.test.ts, each company's answers are taken down in a world of its own, and compared byte for byte with
 * those of the world where both live. And the same checks have to notice builds that do not keep the companies apart.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as v from 'valibot'
import { tenantKey, type TenantKey } from '../../src/domain/tenant.ts'
import { Store } from '../../src/clickhouse/store.ts'
import { tenantSql } from '../../src/clickhouse/tenant-filter.ts'
import type { SentEvent } from '../reference.ts'
import { queryString, type Params } from '../support.ts'
import { FILTER, WithoutTenant } from './broken-stores.ts'
import { NOW, startWorld, type Company, type Question, type Seen, type World } from './companies.ts'

const COMPANIES = ['acme', 'globex'] as const
const SLOW = { timeout: 240_000 }

/** Not the numbers that the service would hand out, so that events show whose they are. */
const ASSISTANTS = [70, 80]
const USERS = [7_000, 8_000, 9_000]

/** Of one number each company has its own name; and a name that both have is another number in each. */
const NAMES = {
  acme: { assistants: ['assistant of acme', 'common'], users: ['user of acme', 'common', 'second of acme'] },
  globex: { assistants: ['common', 'assistant of globex'], users: ['common', 'user of globex', 'second of globex'] },
}

const namesOf = (company: Company) => [
  ...NAMES[company].assistants.map((name, at) => ({ kind: 'assistant', name, number: ASSISTANTS[at] })),
  ...NAMES[company].users.map((name, at) => ({ kind: 'user', name, number: USERS[at] })),
]

const TYPES = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted'] as const
const DAY_MS = 86_400_000

/** The same ids in both companies, for other events. */
const eventsOf = (company: Company): SentEvent[] =>
  Array.from({ length: company === 'acme' ? 120 : 200 }, (_, n) => ({
    id: `event ${n}`,
    eventType: TYPES[n % TYPES.length] as SentEvent['eventType'],
    timestamp: new Date(NOW - 60_000 - Math.floor((n / (company === 'acme' ? 120 : 200)) * 30 * DAY_MS)).toISOString(),
    assistant: NAMES[company].assistants[n % 2] as string,
    user: NAMES[company].users[n % 3] as string,
    cost: company === 'acme' ? 0.25 : 2,
    traceId: `trace of ${company} ${n}`,
    metadata: { of: company },
  }))

const RANGE = { startDate: '2026-01-25', endDate: '2026-03-02' }
const NEEDED: Record<string, Params> = {
  overview: { period: 'month' },
  metrics: { period: 'week', ...RANGE },
  rolling: { window: 30 },
  events: RANGE,
  assistants: RANGE,
  'users/top': RANGE,
  snapshots: RANGE,
  regressions: { hours: 168, minVolume: 1 },
}

const get = (path: string, params: Params): Question => ({ url: `/analytics/${path}?${queryString(params)}` })

const tool = (name: string, args: object): Question => ({
  method: 'POST',
  url: '/mcp',
  headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
  body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }),
})

/** Every endpoint, export and MCP tool: of everything, of each name of either company, and in each format. */
const READS: Question[] = [
  ...Object.entries(NEEDED).flatMap(([path, params]) => [
    get(path, params),
    ...['assistant of acme', 'assistant of globex', 'common'].map((assistant) => get(path, { ...params, assistant })),
    ...['user of acme', 'user of globex', 'common'].map((user) => get(path, { ...params, user })),
    tool(path.replace('/', '_'), params),
    tool(path.replace('/', '_'), { ...params, user: 'common' }),
  ]),
  ...['ndjson', 'csv', 'parquet'].flatMap((format) => [
    get('events', { ...RANGE, format }),
    get('events', { ...RANGE, format, user: 'common' }),
    get('snapshots', { ...RANGE, format }),
  ]),
  get('users/top', { ...RANGE, limit: 1 }),
]

const post = (events: readonly object[], key?: string): Question => ({
  method: 'POST',
  url: '/analytics/events',
  headers: { 'Content-Type': 'application/json', ...(key === undefined ? {} : { 'Idempotency-Key': key }) },
  body: JSON.stringify(events),
})

/** Receipts of one key, and ids that the other company has as well. */
function writes(company: Company): Question[] {
  const [first, second] = eventsOf(company) as [SentEvent, SentEvent]
  const keyed = post([{ ...first, id: 'keyed' }, second, { ...second, id: `only ${company}` }], 'one-key')
  return [keyed, keyed, post([{ ...first, id: 'another body' }], 'one-key'), post([first, { ...second, cost: 7 }])]
}

/** The company's user with the first number leaves; the other company's user with that number stays. */
const removal = (company: Company): Question => ({
  method: 'DELETE',
  url: `/analytics/users/${encodeURIComponent(NAMES[company].users[0] as string)}`,
})

const SCOPE = 'analytics:read analytics:write analytics:admin'

/** What is random or goes by ClickHouse's clock in the receipt of a removal. */
const scrubbed = (seen: Seen): Seen => ({
  ...seen,
  body: seen.body.replace(/"receiptId":"[^"]+"/, '').replace(/"removedAt":"[^"]+"/, ''),
})

const ask = async (world: World, company: Company, question: Question) =>
  scrubbed(await world.ask(question, { org: company, scope: SCOPE }))

const title = (stage: string, company: Company, { method = 'GET', url, body }: Question) =>
  `${stage}, ${company}: ${method} ${decodeURIComponent(url)}${url === '/mcp' ? ` ${body}` : ''}`

/**
 * Runs through everything; globex asks, and acme asks and removes its user with the number 7,000.
 * @param companies who is in this world; where both are, they take turns question by question
 */
async function story(world: World, companies: readonly Company[]): Promise<Map<string, Seen>> {
  const told = new Map<string, Seen>()
  const inTurn = async (stage: string, questions: (company: Company) => readonly Question[]) => {
    const lists = companies.map((company) => ({ company, questions: questions(company) }))
    for (let at = 0; at < Math.max(...lists.map((list) => list.questions.length)); at++) {
      for (const { company, questions: list } of lists) {
        const question = list[at]
        // So that names are looked up by their numbers, as after a restart.
        world.forgetNames()
        if (question) told.set(`${title(stage, company, question)}, ${at}`, await ask(world, company, question))
      }
    }
  }
  for (const company of companies) {
    await world.plant(
      'names',
      namesOf(company).map((row) => ({ tenant: tenantKey(company), ...row })),
    )
  }
  for (const company of companies) await world.store(eventsOf(company), { org: company })
  await inTurn('reads', () => READS)
  await inTurn('writes', writes)
  await inTurn('removal', (company) => (company === 'acme' ? [removal('acme')] : []))
  await inTurn('reads after all', () => READS)
  return told
}

const expected = new Map<string, Seen>()
const opened: World[] = []

async function open(makeStore?: (options: ConstructorParameters<typeof Store>[0]) => Store): Promise<World> {
  const world = await startWorld({ config: { CACHE_MB: '0' }, ...(makeStore ? { makeStore } : {}) })
  opened.push(world)
  return world
}

beforeAll(async () => {
  for (const company of COMPANIES) {
    for (const [name, seen] of await story(await open(), [company])) expected.set(name, seen)
  }
}, SLOW.timeout)
afterAll(async () => {
  for (const world of opened) await world.close()
}, SLOW.timeout)

/** What differs from the worlds of one company. */
async function leaks(world: World): Promise<string[]> {
  const told = await story(world, COMPANIES)
  expect([...told.keys()].sort()).toEqual([...expected.keys()].sort())
  return [...told].flatMap(([name, seen]) => (JSON.stringify(seen) === JSON.stringify(expected.get(name)) ? [] : [name]))
}

/** Looks for names by number among those of all companies. */
class WithoutTenantOfNames extends Store {
  override readInternal<Row>(name: string, sql: string, ...rest: [Record<string, unknown>?]): Promise<Row[]> {
    return super.readInternal(name, name === 'names_by_number' ? sql.replaceAll(FILTER, '1') : sql, ...rest)
  }
}

/** Changes and deletes rows by the number of a user alone. */
class WithoutTenantOfChanges extends Store {
  override updateRows(table: string, columns: string, where: string, params: Record<string, unknown> = {}): Promise<void> {
    return super.updateRows(table, columns, where.replaceAll(FILTER, '1'), params)
  }

  override deleteRows(table: string, where: string, params: Record<string, unknown> = {}): Promise<void> {
    return super.deleteRows(table, where.replaceAll(FILTER, '1'), params)
  }
}

describe('two companies with the same numbers', SLOW, () => {
  test('no answer, export, tool, receipt or removal of one depends on the other', async () => {
    const world = await open()
    expect(await leaks(world)).toEqual([])

    // What was to be shown was there: in every table the rows of both are told apart by the key alone.
    const numbers = await world.rows<{ table: string; tenant: string; numbers: number[] }>(`
      SELECT * FROM (
        SELECT 'assistants' AS table, toString(tenant) AS tenant, arraySort(groupUniqArray(assistant_no)) AS numbers FROM events GROUP BY tenant
        UNION ALL SELECT 'users', toString(tenant), arraySort(groupUniqArray(user_no)) FROM events GROUP BY tenant
        UNION ALL SELECT 'activity', toString(tenant), arraySort(groupUniqArray(assistant_no)) FROM activity GROUP BY tenant
        UNION ALL SELECT 'user_activity', toString(tenant), arraySort(groupUniqArray(user_no)) FROM user_activity GROUP BY tenant)`)
    const of = (table: string, company: Company) =>
      numbers.find((row) => row.table === table && row.tenant === tenantKey(company))?.numbers
    for (const company of COMPANIES) {
      expect(of('assistants', company)).toEqual(ASSISTANTS)
      expect(of('users', company)).toEqual(USERS)
      expect(of('activity', company)).toEqual([0, ...ASSISTANTS])
    }
    expect(of('user_activity', 'acme'), 'the removed one has no rows').toEqual(USERS.slice(1))
    expect(of('user_activity', 'globex'), 'the other one has').toEqual(USERS)
  })

  test('what is compared is not empty, and not the same for both', () => {
    for (const path of Object.keys(NEEDED)) {
      const [acme, globex] = COMPANIES.map((company) => {
        const name = [...expected.keys()].find((key) => key.startsWith(`reads, ${company}: GET /analytics/${path}?`)) as string
        return expected.get(name)
      })
      expect([acme?.status, globex?.status], path).toEqual([200, 200])
      expect(acme?.body, path).not.toBe(globex?.body)
    }
    const tools = [...expected].filter(([name]) => name.includes('POST /mcp'))
    expect(tools.map(([, { status }]) => status)).toEqual(tools.map(() => 200))
    expect(tools.filter(([, { body }]) => body.includes('"isError":true') || body.includes('"error"'))).toEqual([])
    const removed = [...expected].filter(([name]) => name.startsWith('removal'))
    expect(removed.map(([, { status }]) => status)).toEqual([200])
    const receipts = [...expected].filter(([name]) => name.startsWith('writes')).map(([, { status }]) => status)
    expect(receipts).toEqual([200, 200, 422, 200, 200, 200, 422, 200])
  })
})

describe('the checks would notice', SLOW, () => {
  test('queries that go by the numbers alone: every endpoint and every tool', async () => {
    const found = await leaks(await open((options) => new WithoutTenant(options)))
    for (const path of Object.keys(NEEDED)) {
      expect(
        found.some((leak) => leak.includes(` GET /analytics/${path}?`)),
        path,
      ).toBe(true)
      expect(
        found.some((leak) => leak.includes(`"name":"${path.replace('/', '_')}"`)),
        `tool ${path}`,
      ).toBe(true)
    }
    for (const format of ['ndjson', 'csv', 'parquet']) {
      expect(
        found.some((leak) => leak.includes(`format=${format}`)),
        format,
      ).toBe(true)
    }
  })

  test('names looked up by number alone: one company is shown names of the other', async () => {
    const found = await leaks(await open((options) => new WithoutTenantOfNames(options)))
    expect(found.some((leak) => leak.includes(' GET /analytics/users/top?'))).toBe(true)
    expect(found.some((leak) => leak.includes(' GET /analytics/assistants?'))).toBe(true)
  })

  test('a removal by number alone: the other company loses its user with that number', async () => {
    const found = await leaks(await open((options) => new WithoutTenantOfChanges(options)))
    expect(found.filter((leak) => leak.startsWith('reads after all, globex: GET /analytics/users/top?'))).not.toEqual([])
    expect(found.filter((leak) => leak.startsWith('reads, '))).toEqual([])
  })
})

test('a query for anything else than the key of a company is not sent', async () => {
  let store: Store | undefined
  const sent: string[] = []
  await open((options) => (store = new Store({ ...options, onQuery: ({ name }) => void sent.push(name) })))
  const sql = tenantSql('SELECT id FROM events WHERE tenant = {tenant:UUID}')
  const named = (name: string) => ({ name, sql, params: {}, row: v.unknown() })
  const key = tenantKey('acme')
  for (const text of ['', 'acme', `${key}' OR '1' = '1`, `${key}\n`, key.toUpperCase(), '00000000-0000-0000-0000-000000000000']) {
    await expect(store?.read({ tenant: text as TenantKey }, named('forged_read')), text).rejects.toThrow(TypeError)
    await expect(
      store?.stream({ tenant: text as TenantKey }, { ...named('forged_stream'), format: 'TSVRaw' }),
      text,
    ).rejects.toThrow(TypeError)
  }
  await store?.read({ tenant: key }, named('right_read'))
  expect(sent.filter((name) => name.endsWith('_read') || name.endsWith('_stream'))).toEqual(['right_read'])
})
