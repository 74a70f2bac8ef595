/** The right to write, where instances share a database. */
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest'
import { Store } from '../../src/clickhouse/store.ts'
import {
  ARRIVED_IN_TIME,
  insertId,
  isRefusedByLease,
  LeaseLostError,
  maintenanceId,
  orFail,
  SharedLease,
  type Unsettled,
} from '../../src/clickhouse/writer-lease.ts'
import { startService, type TestService } from '../support.ts'

vi.setConfig({ testTimeout: 90_000 })

let service: TestService
let store: Store
beforeEach(async () => {
  service = await startService()
  const { database } = service
  store = new Store({ ...inject('clickhouse'), database, queryTimeoutSeconds: 20, queryMemoryMb: 1_000 })
  await service.admin.command({ query: 'CREATE TABLE written (who String) ENGINE = MergeTree ORDER BY who' })
})
afterEach(async () => {
  await store.close()
  await service.close()
})

const terms = () =>
  service.rows<{ term: number; holders: string[] }>(
    `SELECT term, groupArray(holder) AS holders FROM writer_lease WHERE state = 'held' GROUP BY term ORDER BY term`,
  )
const written = async () => (await service.rows<{ who: string }>('SELECT who FROM written ORDER BY who')).map(({ who }) => who)

/** An insert whose body is held back until `release` is called. */
function stalled(who: string, until: string) {
  const hold = new AbortController()
  async function* body() {
    yield Buffer.from(`["${who}"`)
    if (!hold.signal.aborted) await once(hold.signal, 'abort')
    yield Buffer.from(']')
  }
  const result = store.writer.exec({
    query: `INSERT INTO written (who) SELECT who FROM input('who String') WHERE ${ARRIVED_IN_TIME} FORMAT JSONCompactEachRow`,
    values: Readable.from(body(), { objectMode: false }),
    query_id: insertId(service.database),
    query_params: { until },
    clickhouse_settings: { wait_end_of_query: 1, input_format_parallel_parsing: 0 },
  })
  return { result: result.then(({ stream }) => void stream.resume()), release: () => hold.abort() }
}

describe('the writer lease', () => {
  test('has one holder a term, and each of several instances gets a turn', async () => {
    const instances = ['a', 'b', 'c'].map((name) => ({ name, lease: new SharedLease(store), turns: 0 }))
    let inside: string | null = null
    await Promise.all(
      instances.map(async (instance) => {
        for (; instance.turns < 4; instance.turns++) {
          await instance.lease.acquire()
          expect(inside).toBe(null)
          inside = instance.name
          await sleep(20)
          inside = null
          await instance.lease.release()
        }
      }),
    )
    const all = await terms()
    expect(all.map(({ term }) => term)).toEqual(all.map((_, at) => at + 1))
    expect(all.every(({ holders }) => holders.length === 1)).toBe(true)
    expect(new Set(all.flatMap(({ holders }) => holders)).size).toBe(3)
  })

  test('is kept for many turns while nobody waits, and given up after a turn when somebody does', async () => {
    const [a, b] = [new SharedLease(store), new SharedLease(store)]
    const first = await a.acquire()
    await sleep(700)
    expect(await a.acquire()).toMatchObject({ continued: true, term: { number: first.term.number } })
    const waited = performance.now()
    const other = b.acquire().then((turn) => ({ turn, took: performance.now() - waited }))
    // As the writer does: it asks for its next turn as soon as one is over.
    for (let answer = null; answer === null;) answer = await Promise.race([other, a.acquire().then(() => null), sleep(200, null)])
    const { turn, took } = await other
    expect(took).toBeLessThan(4_000)
    expect(turn.continued).toBe(false)
  })

  test('says whether anybody else may have written since the last turn', async () => {
    const [a, b] = [new SharedLease(store), new SharedLease(store)]
    expect((await a.acquire()).continued).toBe(false)
    await a.release()
    expect((await a.acquire()).continued).toBe(true)
    await a.release()
    await b.acquire()
    await b.release()
    expect((await a.acquire()).continued).toBe(false)
  })

  test('of a holder that ended without giving it up passes to another instance within 10 seconds', async () => {
    const [a, b] = [new SharedLease(store), new SharedLease(store)]
    const { term } = await a.acquire()
    const died = performance.now()
    const turn = await b.acquire().catch(() => b.acquire())
    expect(performance.now() - died).toBeLessThan(10_000)
    expect(turn.term.number).toBeGreaterThan(term.number)
    // The new holder looks at what was stored under the terms that were not released.
    expect(turn.unsettled).toEqual({ fromTerm: term.number })
    // It goes on saying so until that is done, and does not count as having given up the lease either.
    await b.release()
    const later = await b.acquire().catch(() => b.acquire())
    expect(later.unsettled).toEqual({ fromTerm: term.number })
    b.settled(turn.unsettled as Unsettled)
    expect((await b.acquire()).unsettled).toEqual({ fromTerm: term.number })
    b.settled(later.unsettled as Unsettled)
    expect((await b.acquire()).unsettled).toBe(null)
  })

  test('refuses an insert whose body arrives when the term is over, although it began in time', async () => {
    const a = new SharedLease(store)
    const { term } = await a.acquire()
    const insert = stalled('late', term.until)
    const inTime = stalled('in time', term.until)
    await sleep(300)
    inTime.release()
    await inTime.result
    await sleep(9_000)
    insert.release()
    await expect(insert.result).rejects.toSatisfy(isRefusedByLease)
    expect(await written()).toEqual(['in time'])
  })

  test('refuses maintenance when the term is over, whatever the statement does', async () => {
    const a = new SharedLease(store)
    await a.acquire()
    const condition = a.condition()
    const guard = { condition: () => condition }
    const insert = (who: string) =>
      store.admin.command({
        query: `INSERT INTO written SELECT '${who}' WHERE ${orFail(guard)}`,
        query_id: maintenanceId(service.database),
      })
    await insert('in time')
    await store.deleteRows('written', `who = 'nobody' AND ${condition}`)
    await sleep(8_500)
    await expect(insert('late')).rejects.toSatisfy(isRefusedByLease)
    await store.deleteRows('written', `who = 'in time' AND ${condition}`)
    expect(await written()).toEqual(['in time'])
    expect(() => a.condition()).toThrow(LeaseLostError)
  })

  test('is not used by another instance while a write that passed the check in time is still running', async () => {
    const [a, b] = [new SharedLease(store), new SharedLease(store)]
    const { term } = await a.acquire()
    await service.admin.command({ query: 'CREATE TABLE copies (who String) ENGINE = MergeTree ORDER BY who' })
    // One after the other, these take longer than the term; a single sleep is limited to 3 s.
    for (const view of [1, 2, 3, 4]) {
      await service.admin.command({
        query: `CREATE MATERIALIZED VIEW slowly_${view} TO copies DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
          SELECT who FROM written WHERE sleepEachRow(2.9) = 0`,
      })
    }
    const insert = stalled('slow', term.until)
    insert.release()
    const ended = insert.result.then(() => performance.now())
    await b.acquire().catch(() => b.acquire())
    const acquired = performance.now()
    expect(acquired).toBeGreaterThan(await ended)
    expect(await written()).toEqual(['slow'])
    expect(await service.rows('SELECT count() AS copies FROM copies')).toEqual([{ copies: 4 }])
  })

  test('is not lost with a term whose token is known and whose row is not', async () => {
    const a = new SharedLease(store)
    const { term } = await a.acquire()
    await a.release()
    const next = term.number + 1
    // A claim by a server that was killed before its row was in place: a mutation leaves the token as well.
    await service.admin.command({
      query: `INSERT INTO writer_lease (partition, term, holder, state, until) VALUES (0, ${next}, 'b', 'held', now64(3))`,
      clickhouse_settings: { insert_deduplicate: 1, insert_deduplication_token: `held-${next}` },
    })
    await store.deleteRows('writer_lease', `holder = 'b'`)
    expect((await a.acquire()).term.number).toBe(next + 1)
    await a.release()
    expect((await new SharedLease(store).acquire()).term.number).toBeGreaterThan(next + 1)
  })
})
