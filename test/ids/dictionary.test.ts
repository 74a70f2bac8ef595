/** What is known of a tenant's names. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { tenantKey } from '../../src/domain/tenant.ts'
import { Store } from '../../src/clickhouse/store.ts'
import { Names } from '../../src/ids/dictionary.ts'
import { startService, type TestService } from '../support.ts'

let service: TestService
let store: Store
beforeAll(async () => {
  service = await startService({ makeStore: (options) => (store = new Store(options)) })
})
afterAll(() => service.close())

test('users are counted in the background, each tenant by itself', async () => {
  const event = { eventType: 'incomingMessages', timestamp: '2026-01-01T00:00:00.000Z', assistant: 'assistant' }
  await service.store(
    ['a', 'b', 'a', 'c'].map((user, at) => ({ ...event, id: `${at}`, user })),
    { org: 'one' },
  )
  await service.store([{ ...event, id: '0', user: 'somebody' }], { org: 'two' })

  const names = new Names(store)
  const [one, two] = [tenantKey('one'), tenantKey('two')]
  expect(names.userCount(one)).toBe(0)
  await vi.waitFor(() => expect(names.userCount(one)).toBe(3))
  names.userCount(two)
  await vi.waitFor(() => expect(names.userCount(two)).toBe(1))
  expect(names.userCount(tenantKey('a company that never wrote'))).toBe(0)
})

test('a name is read again once everything was forgotten', async () => {
  const event = { id: 'x', eventType: 'incomingMessages', timestamp: '2026-01-01T00:00:00.000Z', assistant: 'lost', user: 'lost' }
  await service.store([event], { org: 'three' })
  const names = new Names(store)
  const tenant = tenantKey('three')
  expect(await names.numbers(tenant, 'user', ['lost'])).toEqual([1])
  await service.admin.command({
    query: `ALTER TABLE ${service.database}.names DELETE WHERE name = 'lost' SETTINGS mutations_sync = 1`,
  })
  expect(await names.numbers(tenant, 'user', ['lost'])).toEqual([1])
  names.forgetAll()
  expect(await names.numbers(tenant, 'user', ['lost'])).toEqual([0])
  expect(await names.names(tenant, 'user', [1])).toEqual(new Map())
})
