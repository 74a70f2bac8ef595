/** Whose turn it is, where instances share a database. */
import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest'
import { Store } from '../../src/clickhouse/store.ts'
import { SharedLane } from '../../src/clickhouse/writer-lease.ts'
import { startService, type TestService } from '../support.ts'

vi.setConfig({ testTimeout: 60_000 })

let service: TestService
let store: Store
beforeEach(async () => {
  service = await startService()
  const { database } = service
  store = new Store({ ...inject('clickhouse'), database, queryTimeoutSeconds: 20, queryMemoryMb: 1_000 })
})
afterEach(async () => {
  await store.close()
  await service.close()
})

const holders = () => service.rows<{ epoch: number; holder: string }>('SELECT epoch, holder FROM lane ORDER BY epoch')

describe('the lane', () => {
  test('has one holder at a time, and everybody gets a turn', async () => {
    const lanes = ['a', 'b', 'c'].map((name) => ({ name, lane: new SharedLane(store, name), turns: 0 }))
    let inside: string | null = null
    await Promise.all(
      lanes.map(async (instance) => {
        for (; instance.turns < 4; instance.turns++) {
          await instance.lane.enter()
          expect(inside).toBe(null)
          inside = instance.name
          await new Promise((done) => setTimeout(done, 20))
          inside = null
          await instance.lane.leave()
        }
      }),
    )
    const epochs = (await holders()).map(({ epoch }) => epoch)
    expect(epochs).toEqual(epochs.map((_, at) => at + 1))
  })

  test('is not lost with an epoch whose token is known and whose row is not', async () => {
    const lane = new SharedLane(store, 'a')
    await lane.enter()
    await lane.leave()
    // A claim by a server that was killed before its row was in place: a mutation leaves the token as well.
    const [last] = (await holders()).slice(-1)
    await service.admin.command({
      query: `INSERT INTO lane (epoch, holder, until) VALUES (${Number(last?.epoch) + 1}, 'b', now64(3))`,
      clickhouse_settings: { insert_deduplicate: 1, insert_deduplication_token: `lane-${Number(last?.epoch) + 1}` },
    })
    await store.deleteRows('lane', `holder = 'b'`)
    await expect(lane.enter()).rejects.toThrow()
    expect((await lane.enter()).epoch).toBe(Number(last?.epoch) + 2)
    // Others follow.
    await lane.leave()
    expect((await new SharedLane(store, 'c').enter()).epoch).toBeGreaterThan(Number(last?.epoch) + 2)
  })
})
