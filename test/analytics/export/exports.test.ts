/** `events` and `snapshots` as files: opened by readers that know nothing of this service. */
import { DuckDBInstance } from '@duckdb/node-api'
import { parse } from 'csv-parse/sync'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { negotiate } from '../../../src/analytics/export/formats.ts'
import { Store } from '../../../src/clickhouse/store.ts'
import { listen } from '../../../src/http/server.ts'
import { queryString, startService, type Caller, type Params, type TestService } from '../../support.ts'
import { talk } from '../../sockets.ts'
import { authorization } from '../../tokens.ts'
import type { TenantSql } from '../../../src/clickhouse/tenant-filter.ts'

/** What a file must not be broken by, and what a spreadsheet would run. */
const NASTY = '=cmd()|"calc",\r\n\'x\', "",\tü\u2028\\n;\\N @SUM(1)'
const RANGE = { startDate: '2026-02-01', endDate: '2026-03-01' }

/** The newest first, ties by id, as the page has them. */
const EVENTS = [
  {
    id: 'b',
    eventType: 'outgoingMessages',
    timestamp: '2026-02-10T10:00:00.123Z',
    assistant: 'Rex, "the" dog',
    user: NASTY,
    cost: 0.001234567,
    inputTokens: 4_294_967_295,
    outputTokens: 34,
    model: 'small-1',
    traceId: '\\N',
    metadata: { 'a "key"': [1, null, 'line\nbreak', 0.1], empty: {} },
  },
  {
    id: '-1+1',
    eventType: 'tasksInitiated',
    timestamp: '2026-02-10T10:00:00.123Z',
    assistant: '\\N',
    user: 'ann',
    cost: 0.000000001,
    inputTokens: 0,
    outputTokens: 0,
    model: null,
    traceId: null,
    metadata: null,
  },
  {
    id: 'a',
    eventType: 'incomingMessages',
    timestamp: '2026-02-09T00:00:00.000Z',
    assistant: 'Ada',
    user: 'ann',
    cost: 0,
    inputTokens: 0,
    outputTokens: 0,
    model: null,
    traceId: null,
    metadata: {},
  },
]

let service: TestService
let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'analytics-exports-'))
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
  await service.store(EVENTS)
  await service.store([{ ...EVENTS[0], id: 'theirs', user: 'a secret' }], { org: 'globex' })
})
afterAll(async () => {
  await service.close()
  await rm(directory, { recursive: true, force: true })
})

interface File {
  status: number
  headers: Headers
  bytes: Buffer
}

async function download(path: string, params: Params, caller: Caller & { accept?: string } = {}): Promise<File> {
  const headers = {
    Authorization: await authorization(service, caller),
    ...(caller.accept === undefined ? {} : { Accept: caller.accept }),
  }
  const response = await service.app.request(`/analytics/${path}?${queryString(params)}`, { headers })
  return {
    status: response.status,
    headers: response.headers,
    bytes: Buffer.from(await response.arrayBuffer()),
  }
}

/** The rows of a Parquet file as DuckDB reads them: instants as ISO 8601, 64-bit integers as numbers. */
async function readParquet(bytes: Buffer): Promise<Array<Record<string, unknown>>> {
  const path = join(directory, `${Math.random()}.parquet`)
  await writeFile(path, bytes)
  const connection = await (await DuckDBInstance.create()).connect()
  const { columns, types } = await connection.runAndReadAll(`DESCRIBE SELECT * FROM '${path}'`).then((described) => ({
    columns: described.getRows().map(([name]) => String(name)),
    types: described.getRows().map(([, type]) => String(type)),
  }))
  const selected = columns.map((name, at) =>
    types[at] === 'TIMESTAMP WITH TIME ZONE'
      ? `strftime("${name}" AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ') AS "${name}"`
      : `"${name}"`,
  )
  const rows = (await connection.runAndReadAll(`SELECT ${selected.join(', ')} FROM '${path}'`)).getRowObjects()
  connection.closeSync()
  return rows.map((row) =>
    Object.fromEntries(Object.entries(row).map(([name, value]) => [name, typeof value === 'bigint' ? Number(value) : value])),
  )
}

const readLines = (bytes: Buffer) =>
  bytes
    .toString()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>)

/** Strict: every row has every column, quotes only where RFC 4180 has them, lines end in CRLF. */
const readCsv = (bytes: Buffer) =>
  parse(bytes, {
    columns: true,
    relax_column_count: false,
    relax_quotes: false,
    skip_empty_lines: false,
    record_delimiter: '\r\n',
  }) as Array<Record<string, string>>

const ids = (rows: Array<Record<string, unknown>>) => rows.map(({ id }) => id)

const metadataOf = (value: unknown) => (value === null ? null : JSON.stringify(value))

describe('events', () => {
  test('Parquet, opened by DuckDB', async () => {
    const { status, headers, bytes } = await download('events', { ...RANGE, format: 'parquet' })
    expect([status, headers.get('Content-Type')]).toEqual([200, 'application/vnd.apache.parquet'])
    expect(headers.get('Content-Disposition')).toBe('attachment; filename="events-2026-02-01-2026-03-01.parquet"')
    expect(headers.get('Vary')).toContain('Accept')
    expect(await readParquet(bytes)).toEqual(EVENTS.map((event) => ({ ...event, metadata: metadataOf(event.metadata) })))
  })

  test('CSV, read by a strict parser: every text exactly as it was sent, null is nothing', async () => {
    const { status, headers, bytes } = await download('events', { ...RANGE, format: 'csv' })
    expect([status, headers.get('Content-Type')]).toEqual([200, 'text/csv; charset=utf-8'])
    expect(headers.get('Content-Disposition')).toBe('attachment; filename="events-2026-02-01-2026-03-01.csv"')
    const rows = readCsv(bytes)
    expect(rows.map((row) => ({ ...row, cost: Number(row['cost']) }))).toEqual(
      EVENTS.map((event) => ({
        ...event,
        inputTokens: String(event.inputTokens),
        outputTokens: String(event.outputTokens),
        model: event.model ?? '',
        traceId: event.traceId ?? '',
        metadata: metadataOf(event.metadata) ?? '',
      })),
    )
    expect(rows[0]?.['user']).toBe(NASTY)
  })

  test('NDJSON: what the page says, an event a line', async () => {
    const { status, headers, bytes } = await download('events', { ...RANGE, format: 'ndjson' })
    expect([status, headers.get('Content-Type')]).toEqual([200, 'application/x-ndjson; charset=utf-8'])
    expect(readLines(bytes)).toEqual(EVENTS)
    expect(readLines(bytes)).toEqual(await service.data('events', RANGE))
  })

  test('NDJSON goes back in as it is', async () => {
    const { bytes } = await download('events', { ...RANGE, format: 'ndjson' })
    const headers = { 'Content-Type': 'application/x-ndjson' }
    const { body } = await service.post(new Uint8Array(bytes), { org: 'copy', headers })
    expect(body.data).toEqual({ accepted: 3, duplicates: 0, rejected: [] })
    expect(await service.data('events', RANGE, { org: 'copy' })).toEqual(EVENTS)
  })

  test.each(['ndjson', 'csv', 'parquet'])(
    '%s: filters, limit, skip and cursor mean what they mean for a page',
    async (format) => {
      const rowsOf = async (params: Params) => {
        const { status, bytes } = await download('events', { ...RANGE, ...params, format })
        expect(status).toBe(200)
        return ids(await (format === 'csv' ? readCsv(bytes) : format === 'ndjson' ? readLines(bytes) : readParquet(bytes)))
      }
      expect(await rowsOf({})).toEqual(['b', '-1+1', 'a'])
      expect(await rowsOf({ user: NASTY })).toEqual(['b'])
      expect(await rowsOf({ user: 'ann', assistant: ['Ada', 'nobody'] })).toEqual(['a'])
      expect(await rowsOf({ user: 'nobody' })).toEqual([])
      expect(await rowsOf({ eventType: 'tasksInitiated' })).toEqual(['-1+1'])
      expect(await rowsOf({ startDate: '2026-02-10' })).toEqual(['b', '-1+1'])
      expect(await rowsOf({ limit: 2 })).toEqual(['b', '-1+1'])
      expect(await rowsOf({ skip: 1 })).toEqual(['-1+1', 'a'])
      expect(await rowsOf({ skip: 1, limit: 1 })).toEqual(['-1+1'])
      const { nextCursor } = (await service.whole('events', { ...RANGE, limit: 1 })).pagination
      expect(await rowsOf({ cursor: nextCursor })).toEqual(['-1+1', 'a'])
      const { status } = await service.get('events', { ...RANGE, cursor: nextCursor, skip: 1, format })
      expect(status).toBe(400)
    },
  )

  test.each(['ndjson', 'csv', 'parquet'])(
    '%s: nothing of another company, and no more than the token reaches',
    async (format) => {
      const { bytes } = await download('events', { ...RANGE, format, user: [NASTY, 'a secret'] })
      expect(bytes.toString('latin1')).not.toContain('theirs')
      const theirs = await download('events', { ...RANGE, format }, { org: 'globex' })
      expect(theirs.bytes.toString('latin1')).toContain('theirs')
      const narrow = await download('events', { ...RANGE, format }, { assistants: ['Ada'] })
      const rows =
        format === 'csv' ? readCsv(narrow.bytes) : format === 'ndjson' ? readLines(narrow.bytes) : await readParquet(narrow.bytes)
      expect(ids(rows)).toEqual(['a'])
      const newcomer = await download('events', { ...RANGE, format }, { org: 'newcomer' })
      expect([newcomer.status, newcomer.bytes.toString('latin1').includes('theirs')]).toEqual([200, false])
    },
  )

  test('a refusal is an answer and no file', async () => {
    const { status, headers, bytes } = await download('events', { startDate: '2026-02-30', endDate: 'x', format: 'csv' })
    expect([status, headers.get('Content-Type'), headers.get('Content-Disposition')]).toEqual([400, 'application/json', null])
    expect(JSON.parse(bytes.toString()).error.details).toHaveLength(2)
  })

  test('HEAD tells the headers and leaves no query behind', async () => {
    const url = `/analytics/events?${queryString({ ...RANGE, format: 'csv' })}`
    const { status, headers, body } = await service.request('HEAD', url, {})
    expect([status, body, headers.get('Content-Disposition')]).toEqual([
      200,
      '',
      'attachment; filename="events-2026-02-01-2026-03-01.csv"',
    ])
    await untilNoExportRuns()
  })
})

describe('snapshots', () => {
  test('Parquet says what JSON says', async () => {
    const { status, headers, bytes } = await download('snapshots', { ...RANGE, format: 'parquet' })
    expect([status, headers.get('Content-Type')]).toEqual([200, 'application/vnd.apache.parquet'])
    expect(headers.get('Content-Disposition')).toBe('attachment; filename="snapshots-day-2026-02-01-2026-03-01.parquet"')
    const rows = await readParquet(bytes)
    expect(rows).toHaveLength(28)
    expect(rows).toEqual(await service.data('snapshots', RANGE))
  })

  test('Parquet over more rows than a group has, and over none', async () => {
    const long = { startDate: '2010-01-01', endDate: '2026-03-01' }
    const { bytes } = await download('snapshots', { ...long, format: 'parquet' })
    expect(await readParquet(bytes)).toEqual(await service.data('snapshots', long))
    const { bytes: filtered } = await download('snapshots', { ...RANGE, user: 'nobody', format: 'parquet' })
    expect((await readParquet(filtered)).every(({ total, completionRate }) => total === 0 && completionRate === null)).toBe(true)
  })

  test('CSV, read by a strict parser', async () => {
    const { bytes } = await download('snapshots', { ...RANGE, format: 'csv' })
    const json = (await service.data('snapshots', RANGE)) as object[]
    expect(readCsv(bytes)).toEqual(
      json.map((row) =>
        Object.fromEntries(Object.entries(row).map(([name, value]) => [name, value === null ? '' : String(value)])),
      ),
    )
  })
})

describe('Accept', () => {
  test.each([
    [undefined, 'json'],
    ['', 'json'],
    ['*/*', 'json'],
    ['application/*', 'json'],
    ['text/*', 'csv'],
    ['text/csv', 'csv'],
    ['TEXT/CSV; charset=utf-8', 'csv'],
    ['application/vnd.apache.parquet', 'parquet'],
    ['application/jsonl', 'ndjson'],
    ['text/csv;q=0.5, application/x-ndjson;q=0.9', 'ndjson'],
    ['application/json;q=0.2, text/csv;q=0.8, */*;q=0.1', 'csv'],
    ['*/*, application/json;q=0', 'ndjson'],
    ['application/json;q=0, */*;q=0.5, text/csv;q=0.4', 'ndjson'],
    ['text/html, application/xhtml+xml, */*;q=0.8', 'json'],
    ['text/csv, */*', 'csv'],
    ['text/csv, application/json', 'csv'],
    ['application/json, text/csv', 'json'],
    ['application/json;q=nonsense, text/csv;q=0.001', 'csv'],
  ])('%s is %s', (accept, format) => expect(negotiate(accept)).toBe(format))

  test.each(['application/pdf', 'application/json;q=0', 'text/csv;q=0, image/*', ','])('%s cannot be had', (accept) =>
    expect(() => negotiate(accept)).toThrow('Known formats are application/json, application/x-ndjson, text/csv'),
  )

  test('events: by header, which the parameter overrules', async () => {
    const typeOf = async (accept: string, params: Params = {}) =>
      (await download('events', { ...RANGE, ...params }, { accept })).headers.get('Content-Type')?.split(';')[0]
    expect(await typeOf('text/csv;q=0.1, application/vnd.apache.parquet;q=0.2')).toBe('application/vnd.apache.parquet')
    expect(await typeOf('text/csv', { format: 'json' })).toBe('application/json')
    const { status, bytes } = await download('events', RANGE, { accept: 'application/pdf' })
    expect([status, JSON.parse(bytes.toString()).error.code]).toEqual([406, 'not_acceptable'])
  })
})

// ------------------------------------------------------------------------------------------------------ at any length

const MANY = 200_000
const mb = (bytes: number) => Math.round(bytes / 1_048_576)
const WIDE = { startDate: '2026-01-01', endDate: '2026-02-01' }

interface Running {
  peak: number
}
/** Exports that ClickHouse is working on, with the most memory each has taken, in bytes. */
const running = () =>
  service.rows<Running>(
    `SELECT toFloat64(peak_memory_usage) AS peak FROM system.processes
     WHERE current_database = '${service.database}' AND query_id LIKE 'events_file-%'`,
  )

async function untilNoExportRuns() {
  for (let tries = 0; (await running()).length > 0; tries++) {
    if (tries > 100) throw new Error('the query of an export that nobody reads still runs after 10 s')
    await sleep(100)
  }
}

const collect = (() => {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as () => void
})()

/** Bytes that this process holds on to. */
function held() {
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const open = async (params: Params, signal?: AbortSignal) => {
  const response = await service.app.request(`/analytics/events?${queryString({ ...WIDE, ...params })}`, {
    headers: { Authorization: await authorization(service, { org: 'large' }) },
    ...(signal ? { signal } : {}),
  })
  expect(response.status).toBe(200)
  return response.body as ReadableStream<Uint8Array>
}

describe(`${MANY} events`, () => {
  beforeAll(async () => {
    const filler = { text: 'x'.repeat(300) }
    for (let at = 0; at < MANY; at += 10_000) {
      const batch = Array.from({ length: 10_000 }, (_, n) => ({
        id: `event ${at + n}`,
        eventType: 'incomingMessages',
        timestamp: new Date(Date.UTC(2026, 0, 1) + (at + n) * 10_000).toISOString(),
        assistant: `assistant ${n % 7}`,
        user: `user ${(at + n) % 1_000}`,
        metadata: { ...filler, n: at + n },
      }))
      await service.store(batch, { org: 'large' })
    }
  }, 120_000)

  test.each(['ndjson', 'csv', 'parquet'])(
    '%s: all of them, in memory that does not depend on how many',
    async (format) => {
      const body = await open({ format })
      const before = held()
      let [bytes, most, engine] = [0, 0, 0]
      let chunks = 0
      let lines = 0
      for await (const chunk of body) {
        bytes += chunk.length
        for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, at + 1)) lines++
        if (chunks++ % 100 === 0) {
          most = Math.max(most, held() - before)
          engine = Math.max(engine, ...(await running()).map(({ peak }) => peak))
        }
      }
      if (format === 'ndjson') expect(lines).toBe(MANY)
      if (format === 'csv') expect(lines).toBe(1 + MANY)
      console.log(`${format}: ${mb(bytes)} MB sent; at most ${mb(most)} MB more held here, ${mb(engine)} MB in ClickHouse`)
      // As a whole it would be 80 MB or more.
      expect(most).toBeLessThan(16 * 1_048_576)
      expect(engine).toBeLessThan(400 * 1_048_576)
    },
    60_000,
  )

  test('a reader that stalls holds the query back instead of filling memory', async () => {
    const body = await open({ format: 'ndjson' })
    const reader = body.getReader()
    await reader.read()
    const before = held()
    await sleep(1_500)
    const more = held() - before
    expect(await running()).toHaveLength(1)
    console.log(`stalled: ${Math.round(more / 1024)} kB more after 1.5 s`)
    expect(more).toBeLessThan(16 * 1_048_576)
    await reader.cancel()
    await untilNoExportRuns()
  })

  test('one that is read no longer is cancelled in ClickHouse too', async () => {
    const left = (await open({ format: 'csv' })).getReader()
    await left.read()
    expect(await running()).toHaveLength(1)
    await left.cancel()
    await untilNoExportRuns()

    const caller = new AbortController()
    const aborted = (await open({ format: 'csv' }, caller.signal)).getReader()
    await aborted.read()
    expect(await running()).toHaveLength(1)
    caller.abort()
    await untilNoExportRuns()
    await aborted.cancel()
    expect(service.complaints).toEqual([])
  })

  test('over a socket that is closed half way', async () => {
    const server = await listen(service.app.fetch, { host: '127.0.0.1', port: 0 })
    const { port } = server.address() as { port: number }
    const caller = new AbortController()
    const response = await fetch(`http://127.0.0.1:${port}/analytics/events?${queryString({ ...WIDE, format: 'ndjson' })}`, {
      headers: { Authorization: await authorization(service, { org: 'large' }) },
      signal: caller.signal,
    })
    const reader = response.body!.getReader()
    await reader.read()
    expect(await running()).toHaveLength(1)
    caller.abort()
    await untilNoExportRuns()
    server.closeAllConnections()
    await new Promise((closed) => server.close(closed))
    expect(service.complaints).toEqual([])
  })

  test('a query that fails half way breaks the file off, says nothing of why to the caller, and all to the log', async () => {
    const server = await listen(service.app.fetch, { host: '127.0.0.1', port: 0 })
    const { stream } = Store.prototype
    const spy = vi.spyOn(Store.prototype, 'stream').mockImplementation(function (this: Store, ...args) {
      const [asker, query] = args
      const sql = query.sql.replace('SELECT ', "SELECT throwIf(id = 'event 50000', 'secret reason') AS x, ") as TenantSql
      return stream.call(this, asker, { ...query, sql })
    })
    try {
      const url = `/analytics/events?${queryString({ ...WIDE, format: 'csv' })}`
      const token = await authorization(service, { org: 'large' })
      const { answers, rest } = await talk(server, `GET ${url} HTTP/1.1\r\nHost: x\r\nAuthorization: ${token}\r\n\r\n`)
      expect(answers, 'no answer that looks complete').toEqual([])
      expect(rest).toContain('event 199999')
      expect(rest).not.toContain('secret')
      expect(rest).not.toContain('__exception__')
      expect(service.complaints.splice(0)).toEqual([expect.stringContaining('an answer broke off')])
    } finally {
      spy.mockRestore()
      server.closeAllConnections()
      await new Promise((closed) => server.close(closed))
    }
    await untilNoExportRuns()
  })

  test('a user’s events, which no index has in order', async () => {
    const { bytes } = await download('events', { ...WIDE, user: 'user 7', format: 'ndjson' }, { org: 'large' })
    const times = readLines(bytes).map(({ timestamp }) => String(timestamp))
    expect(times).toHaveLength(200)
    expect(times).toEqual(times.toSorted().toReversed())
  })
})
