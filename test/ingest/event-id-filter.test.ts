/** The filter that spares look-ups of ids. Where it says no wrongly, an event is counted twice. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { IdFilter, idHash } from '../../src/ingest/event-id-filter.ts'
import { tenantKey } from '../../src/domain/tenant.ts'
import { startService, type TestService } from '../support.ts'
import { ID_HASH } from '../../src/clickhouse/event-ids.ts'

const ACME = tenantKey('acme')

describe('the hash is the one that ClickHouse computes', () => {
  let service: TestService
  beforeAll(async () => {
    service = await startService()
  })
  afterAll(() => service.close())

  test.each(['acme', 'globex', 'a third'].map(tenantKey))('of every length and any character: tenant %s', async (tenant) => {
    const alphabets = ['abcdefghij', 'aé漢\ud83d\ude00', '\u007f\u0080\u07ff\u0800\uffff\u{10000}', " '\\\n\t"]
    const ids = alphabets.flatMap((alphabet) => {
      const characters = [...alphabet]
      return Array.from({ length: 70 }, (_, length) =>
        Array.from({ length }, (_unused, at) => characters[(at * 7 + length) % characters.length]).join(''),
      )
    })
    const result = await service.admin.query({
      query: `SELECT groupArray(${ID_HASH}) AS hashes
        FROM (SELECT {tenant:UUID} AS tenant, arrayJoin({ids:Array(String)}) AS id)`,
      query_params: { tenant, ids },
      format: 'JSONEachRow',
      use_multipart_params: true,
    })
    const [row] = await result.json<{ hashes: number[] }>()
    expect(ids.map((id) => idHash(tenant, id))).toEqual(row?.hashes)
  })
})

describe.each([1, 3, 32])('of %i MiB', (megabytes) => {
  test('what was added is never ruled out, and most of the rest is', () => {
    const filter = new IdFilter(megabytes)
    filter.complete()
    const count = 200_000
    for (let index = 0; index < count; index++) filter.addHash(idHash(ACME, `id ${index}`))
    const missed = Array.from({ length: count }, (_, index) => filter.mayHold(idHash(ACME, `id ${index}`))).filter(
      (held) => !held,
    )
    expect(missed.length).toBe(0)
    const doubtful = Array.from({ length: count }, (_, index) => filter.mayHold(idHash(ACME, `other ${index}`))).filter(Boolean)
    expect(doubtful.length / count).toBeLessThan(0.01)
  })

  test('nothing is ruled out before it is complete', () => {
    expect(new IdFilter(megabytes).mayHold(idHash(ACME, 'x'))).toBe(true)
  })
})
