import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { NOTHING, startService, type TestService } from '../../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T12:00:00.000Z' })
  await service.store([
    {
      id: '1',
      eventType: 'tasksInitiated',
      timestamp: '2026-02-27T10:00:00Z',
      assistant: 'Rex',
      user: 'ann',
      cost: 0.5,
      inputTokens: 1,
      outputTokens: 2,
    },
    { id: '2', eventType: 'tasksCompleted', timestamp: '2026-02-27T11:00:00Z', assistant: 'Rex', user: 'bob' },
    { id: '3', eventType: 'incomingMessages', timestamp: '2026-03-01T08:00:00Z', assistant: 'Ada', user: 'ann' },
  ])
})
afterAll(() => service.close())

const RANGE = { startDate: '2026-02-27', endDate: '2026-03-02' }

const ROWS = [
  {
    period: 'day',
    periodKey: '2026-02-27',
    startDate: '2026-02-27T00:00:00.000Z',
    endDate: '2026-02-28T00:00:00.000Z',
    final: true,
    ...NOTHING,
    activeUsers: 2,
    tasksInitiated: 1,
    tasksCompleted: 1,
    total: 2,
    completionRate: 1,
    cost: 0.5,
    inputTokens: 1,
    outputTokens: 2,
  },
  {
    period: 'day',
    periodKey: '2026-02-28',
    startDate: '2026-02-28T00:00:00.000Z',
    endDate: '2026-03-01T00:00:00.000Z',
    final: true,
    ...NOTHING,
  },
  {
    period: 'day',
    periodKey: '2026-03-01',
    startDate: '2026-03-01T00:00:00.000Z',
    endDate: '2026-03-02T00:00:00.000Z',
    final: false,
    ...NOTHING,
    activeUsers: 1,
    incomingMessages: 1,
    total: 1,
  },
]

test('a row a day, final once the day is over', async () => {
  expect(await service.whole('snapshots', RANGE)).toEqual({ success: true, data: ROWS })
})

/** Which rows are final, asked at that time. */
async function final(now: string, params: object) {
  service.setNow(now)
  const rows = await service.data('snapshots', { ...RANGE, ...params })
  service.setNow('2026-03-01T12:00:00.000Z')
  return rows.map((row: { final: boolean }) => row.final)
}

test('a day is final when it is over, and an unfinished one is not though the range ends before it', async () => {
  expect(await final('2026-03-01T23:59:59.999Z', {})).toEqual([true, true, false])
  expect(await final('2026-03-02T00:00:00.000Z', {})).toEqual([true, true, true])
  expect(await final('2026-03-01T12:00:00.000Z', { endDate: '2026-03-01T08:30' })).toEqual([true, true, false])
  expect(await final('2026-03-01T12:00:00.000Z', { period: 'month' })).toEqual([true, false])
  expect(await final('2026-03-01T12:00:00.000Z', { timezone: 'Pacific/Kiritimati', endDate: '2026-03-02' })).toEqual([
    true,
    true,
    true,
  ])
})

describe('formats', () => {
  const csv = [
    'period,periodKey,startDate,endDate,final,activeUsers,incomingMessages,outgoingMessages,tasksInitiated,' +
      'tasksCompleted,total,completionRate,cost,inputTokens,outputTokens',
    'day,2026-02-27,2026-02-27T00:00:00.000Z,2026-02-28T00:00:00.000Z,true,2,0,0,1,1,2,1,0.5,1,2',
    'day,2026-02-28,2026-02-28T00:00:00.000Z,2026-03-01T00:00:00.000Z,true,0,0,0,0,0,0,,0,0,0',
    'day,2026-03-01,2026-03-01T00:00:00.000Z,2026-03-02T00:00:00.000Z,false,1,1,0,0,0,1,,0,0,0',
    '',
  ].join('\r\n')
  const ndjson = ROWS.map((row) => JSON.stringify(row))

  test('CSV by parameter', async () => {
    const { status, headers, body } = await service.get('snapshots', { ...RANGE, format: 'csv' })
    expect([status, headers.get('Content-Type'), body]).toEqual([200, 'text/csv; charset=utf-8', csv])
    expect(headers.get('Content-Disposition')).toBe('attachment; filename="snapshots-day-2026-02-27-2026-03-02.csv"')
  })

  test('NDJSON by parameter', async () => {
    const { status, headers, body } = await service.get('snapshots', { ...RANGE, format: 'ndjson' })
    expect([status, headers.get('Content-Type')]).toEqual([200, 'application/x-ndjson; charset=utf-8'])
    expect(
      body
        .split('\n')
        .filter(Boolean)
        .map((line: string) => JSON.parse(line)),
    ).toEqual(ndjson.map((line) => JSON.parse(line)))
    expect(body.endsWith('\n')).toBe(true)
  })

  test.each([
    ['text/csv', 'text/csv'],
    ['application/x-ndjson', 'application/x-ndjson'],
    ['application/json', 'application/json'],
    ['*/*', 'application/json'],
    ['', 'application/json'],
    ['text/html, application/xhtml+xml, */*;q=0.8', 'application/json'],
    ['application/pdf, Text/CSV;q=0.5', 'text/csv'],
  ])('Accept: %s', async (accept, type) => {
    const { status, headers } = await service.get('snapshots', RANGE, { headers: accept ? { Accept: accept } : {} })
    expect([status, headers.get('Content-Type')?.split(';')[0]]).toEqual([200, type])
  })

  test('the parameter wins over Accept', async () => {
    const { headers } = await service.get('snapshots', { ...RANGE, format: 'csv' }, { headers: { Accept: 'application/json' } })
    expect(headers.get('Content-Type')).toContain('text/csv')
  })

  test('what cannot be had is a 406 that says what can', async () => {
    const { status, body } = await service.get('snapshots', RANGE, { headers: { Accept: 'application/pdf' } })
    expect([status, body.error.code]).toEqual([406, 'not_acceptable'])
    expect(body.error.message).toContain('text/csv')
  })
})

test('more rows than are asked of ClickHouse at a time', async () => {
  const rows = await service.data('snapshots', { startDate: '2025-01-01', endDate: '2026-03-02' })
  expect(rows.length).toBe(425)
  expect(rows.slice(-3)).toEqual(ROWS)
  expect(rows.slice(0, -3).every(({ total }: { total: number }) => total === 0)).toBe(true)
  expect(new Set(rows.map(({ periodKey }: { periodKey: string }) => periodKey)).size).toBe(425)
})

test('filters hold in every format', async () => {
  const rows = await service.data('snapshots', { ...RANGE, assistant: 'Ada', user: ['ann', 'bob'] })
  expect(rows.map(({ total }: { total: number }) => total)).toEqual([0, 0, 1])
  const { body } = await service.get('snapshots', { ...RANGE, assistant: 'Ada', user: 'bob', format: 'ndjson' })
  expect(
    body
      .trim()
      .split('\n')
      .map((line: string) => JSON.parse(line).total),
  ).toEqual([0, 0, 0])
})
