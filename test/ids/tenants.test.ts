/** The names behind the keys of tenants: written by every process that sees one, and the same whoever writes first. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { Store } from '../../src/clickhouse/store.ts'
import { tenantKey } from '../../src/domain/tenant.ts'
import { Tenants } from '../../src/ids/tenants.ts'
import { startService, type TestService } from '../support.ts'

let service: TestService
let store: Store
beforeAll(async () => {
  service = await startService({ makeStore: (options) => (store = new Store(options)) })
})
afterAll(() => service.close())

const rowsOf = (name: string) =>
  service.rows<{ name: string; first: string }>(
    `SELECT name, toString(first_seen) AS first FROM tenants WHERE tenant = '${tenantKey(name)}'`,
  )

test('a process writes a name once, each process writes its own, and merged they are one row of the first moment', async () => {
  const [one, two] = [new Tenants(store), new Tenants(store)]
  const name = `O'Brien \\ Söhne 😀`
  await one.record([name, 'another', name])
  await one.record([name])
  const [first] = await rowsOf(name)
  expect(await rowsOf(name)).toEqual([first])
  await two.record([name])
  expect(await rowsOf(name)).toHaveLength(2)
  await service.admin.command({ query: `OPTIMIZE TABLE ${service.database}.tenants FINAL` })
  expect(await rowsOf(name)).toEqual([{ name, first: first?.first }])
  const keys = ['another', name, 'a company that never wrote'].map(tenantKey)
  expect(await one.names(keys)).toEqual(
    new Map([
      [keys[0], 'another'],
      [keys[1], name],
    ]),
  )
})

test('what ClickHouse did not take is written with the next events', async () => {
  const tenants = new Tenants(store)
  const insert = vi.spyOn(store.writer, 'insert').mockRejectedValueOnce(new Error('away'))
  await expect(tenants.record(['late'])).rejects.toThrow('away')
  expect(await rowsOf('late')).toEqual([])
  await tenants.record(['late'])
  expect(await rowsOf('late')).toHaveLength(1)
  insert.mockRestore()
})

test('it is there when the first events of a company are acknowledged', async () => {
  const event = { id: 'x', eventType: 'incomingMessages', timestamp: '2026-01-01T00:00:00.000Z', assistant: 'a', user: 'u' }
  await service.store([event], { org: 'a new company' })
  expect(await rowsOf('a new company')).toHaveLength(1)
})

test('no answer to a company reads the table', async () => {
  await service.admin.command({ query: `TRUNCATE TABLE ${service.database}.tenants` })
  const { data } = await service.whole('events', { startDate: '2026-01-01', endDate: '2026-01-02' }, { org: 'a new company' })
  expect(data).toHaveLength(1)
  expect(
    await service.data('assistants', { startDate: '2026-01-01', endDate: '2026-01-02' }, { org: 'a new company' }),
  ).toHaveLength(1)
})
