/**
 * The SQL of every endpoint, to be read in test/analytics/sql/: one file a named statement, as one fixed request sends it.
 * A change of SQL is a diff there; `npm run golden` writes the files anew.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { TupleParam } from '@clickhouse/client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { FileQuery, Query, Statement } from '../../src/clickhouse/query.ts'
import { type Asker, Store } from '../../src/clickhouse/store.ts'
import { startService, type TestService } from '../support.ts'

const DIRECTORY = new URL('sql/', import.meta.url)
const NOW = '2026-03-01T12:03:00.000Z'
const RANGE = 'startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z'

/** Together they send every statement that an endpoint can send. */
const REQUESTS = [
  '/analytics/overview?endDate=2026-02-20',
  // The range reaches into the last five minutes, so these are asked for by themselves.
  '/analytics/overview?endDate=2026-03-05&assistant=a',
  `/analytics/metrics?period=day&${RANGE}`,
  '/analytics/rolling?window=7',
  `/analytics/events?eventType=incomingMessages&limit=2&${RANGE}`,
  `/analytics/events?format=ndjson&${RANGE}`,
  `/analytics/assistants?user=nobody&${RANGE}`,
  `/analytics/users/top?limit=3&${RANGE}`,
  `/analytics/snapshots?period=week&${RANGE}`,
  '/analytics/regressions?hours=12',
]

class Recording extends Store {
  statements = new Map<string, Statement>()

  #note(statement: Statement): void {
    if (!this.statements.has(statement.name)) this.statements.set(statement.name, statement)
  }

  override read<Row>(asker: Asker, query: Query<Row>): Promise<Row[]> {
    this.#note(query)
    return super.read(asker, query)
  }

  override stream(asker: Asker, query: FileQuery) {
    this.#note(query)
    return super.stream(asker, query)
  }

  override readInternal<Row>(...[name, sql, params = {}, onQuery]: Parameters<Store['readInternal']>): Promise<Row[]> {
    if (/^names_|^users_count$/.test(name)) this.#note({ name, sql: sql as Query<Row>['sql'], params })
    return super.readInternal(name, sql, params, onQuery)
  }
}

const event = (timestamp: number, assistant: string, user: string, id: number) => ({
  id: `${assistant}-${user}-${id}`,
  eventType: 'incomingMessages',
  timestamp: new Date(timestamp).toISOString(),
  assistant,
  user,
})

let service: TestService
let store: Recording
beforeAll(async () => {
  service = await startService({ now: NOW, makeStore: (options) => (store = new Recording(options)) })
  const day = 86_400_000
  const events = []
  // 200 messages of each assistant in the same 24 hours of seven weeks, but for the last, in which they get 40 and 50.
  for (let week = 0; week < 7; week++) {
    const from = Date.parse('2026-02-28T12:00:00Z') - 7 * week * day
    for (let at = 0; at < 200; at++) {
      if (week > 0 || at % 5 === 0) events.push(event(from + (at * day) / 200, 'a', 'steady', week * 200 + at))
      if (week > 0 || at % 4 === 0) events.push(event(from + (at * day) / 200, 'b', 'steady', week * 200 + at))
    }
  }
  // More users with one event each than are ranked beyond a list of three.
  for (let user = 0; user < 1_100; user++) events.push(event(Date.parse('2026-02-12T08:00:00Z'), 'c', `u${user}`, 0))
  await service.store(events)
  service.names.forgetAll()
  store.statements.clear()
})
afterAll(() => service.close())

const textOf = (value: unknown): string =>
  value instanceof TupleParam ? `(${value.values.map(textOf).join(', ')})` : JSON.stringify(value)
const shown = (value: unknown) => (Array.isArray(value) ? `[${value.map(textOf).join(', ')}]` : textOf(value))

/** A parameter a line, then the statement as it is sent. */
function fileOf(url: string, { sql, params }: Statement): string {
  const lines = Object.entries(params).map(([name, value]) => `--   ${name} = ${shown(value)}`)
  return [
    `-- GET ${url} at ${NOW}`,
    '-- tenant is the key of the token’s company',
    ...lines,
    '',
    sql.replace(/^\n+|\s+$/g, ''),
    '',
  ].join('\n')
}

test('the SQL of every statement is that of its file', async () => {
  const files = new Map<string, string>()
  for (const url of REQUESTS) {
    const reply = await service.request('GET', url, {})
    expect([url, reply.status]).toEqual([url, 200])
    for (const [name, statement] of store.statements) if (!files.has(name)) files.set(name, fileOf(url, statement))
    store.statements.clear()
  }
  if (process.env['UPDATE_GOLDEN']) {
    rmSync(DIRECTORY, { recursive: true, force: true })
    mkdirSync(DIRECTORY)
    for (const [name, text] of files) writeFileSync(new URL(`${name}.sql`, DIRECTORY), text)
  }
  const known = readdirSync(DIRECTORY).map((file) => [file.replace(/\.sql$/, ''), readFileSync(new URL(file, DIRECTORY), 'utf8')])
  expect(Object.fromEntries(files), 'npm run golden writes the files anew').toEqual(Object.fromEntries(known))
})
