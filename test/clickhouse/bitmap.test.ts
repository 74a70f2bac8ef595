/** Sets of users that ClickHouse hands out, against what it says of them itself. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { countDistinct } from '../../src/clickhouse/bitmap.ts'
import { startService, type TestService } from '../support.ts'

let service: TestService
beforeAll(async () => {
  service = await startService({ now: '2026-03-01T00:00:00.000Z' })
})
afterAll(() => service.close())

/** SQL of the members: few, many and scattered, many in a row, at either end of what 32 bits hold. */
const SETS = {
  nobody: 'SELECT toUInt32(1) AS n WHERE false',
  one: 'SELECT toUInt32(7) AS n',
  '32, the most that are written one by one': 'SELECT toUInt32(number * 1000) AS n FROM numbers(32)',
  '33': 'SELECT toUInt32(number * 1000) AS n FROM numbers(33)',
  'every third of 100,000': 'SELECT toUInt32(number * 3) AS n FROM numbers(100000)',
  'a run': 'SELECT toUInt32(70000 + number) AS n FROM numbers(200000)',
  'scattered over all numbers': 'SELECT toUInt32(cityHash64(number)) AS n FROM numbers(20000)',
  'the ends': 'SELECT toUInt32(if(number % 2 = 0, number, 4294967295 - number)) AS n FROM numbers(2000)',
}

const base64 = (members: string) => `(SELECT base64Encode(toString(groupBitmapState(n))) FROM (${members}))`
const pairs = Object.entries(SETS).flatMap(([name, members]) =>
  Object.entries(SETS).map(([other, others]) => [name, other, members, others] as const),
)

test.each(pairs)('%s and %s', async (_name, _other, members, others) => {
  const [row] = await service.rows<{ a: string; b: string; one: number; both: number }>(`
    SELECT ${base64(members)} AS a, ${base64(others)} AS b, (SELECT uniqExact(n) FROM (${members})) AS one,
      (SELECT uniqExact(n) FROM (${members} UNION ALL ${others})) AS both`)
  expect(countDistinct([row?.a ?? ''])).toBe(Number(row?.one))
  expect(countDistinct([row?.a ?? '', row?.b ?? ''])).toBe(Number(row?.both))
})

test('states that were merged', async () => {
  const [row] = await service.rows<{ set: string }>(`
    SELECT base64Encode(toString(groupBitmapMergeState(state))) AS set
    FROM (SELECT number % 10 AS part, groupBitmapState(toUInt32(number)) AS state FROM numbers(1000) GROUP BY part)`)
  expect(countDistinct([row?.set ?? ''])).toBe(1_000)
})

test('anything else is refused, not miscounted', () => {
  for (const bytes of [[], [0], [0, 2, 1, 0, 0, 0], [1, 5, 1, 2], [7, 0], [1, 255, 255]]) {
    expect(() => countDistinct([Buffer.from(bytes).toString('base64')])).toThrow(RangeError)
  }
})
