import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ApiError } from '../../src/domain/errors.ts'
import { BUSY_WAIT_MS, QuerySlots, WAIT_MS } from '../../src/limits/query-slots.ts'
import { refused } from './refused.ts'

/** Questions that run until they are told to end. */
function questions(slots: QuerySlots) {
  const started: string[] = []
  const ends = new Map<string, () => void>()
  return {
    started,
    ask: (tenant: string, name: string, signal?: AbortSignal) =>
      slots.run(
        tenant,
        () =>
          new Promise<string>((resolve) => {
            started.push(name)
            ends.set(name, () => resolve(name))
          }),
        signal,
      ),
    async end(name: string) {
      ends.get(name)?.()
      await vi.advanceTimersByTimeAsync(0)
    },
  }
}

describe('questions at a time', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  test('what is beyond the limit waits, and starts in the order it came', async () => {
    const slots = new QuerySlots(2)
    const { ask, end, started } = questions(slots)
    const answers = ['a', 'b', 'c', 'd'].map((name) => ask('acme', name))
    expect(started).toEqual(['a', 'b'])
    expect(slots.load).toEqual({ running: 2, waiting: 2 })
    await end('b')
    expect(started).toEqual(['a', 'b', 'c'])
    for (const name of ['a', 'c', 'd']) await end(name)
    expect(await Promise.all(answers)).toEqual(['a', 'b', 'c', 'd'])
    expect(slots.load).toEqual({ running: 0, waiting: 0 })
  })

  test('four may wait for each that runs; the next is told to come back', async () => {
    const slots = new QuerySlots(1)
    const { ask } = questions(slots)
    for (const name of ['a', 'b', 'c', 'd', 'e']) void ask('acme', name)
    expect(await refused(ask('acme', 'f'))).toEqual({
      status: 429,
      code: 'too_many_requests',
      message: 'Too many questions are being answered for this tenant.',
      headers: { 'Retry-After': '1' },
    })
  })

  test('nobody waits longer than the limit, and who has been refused does not run after all', async () => {
    const slots = new QuerySlots(1)
    const { ask, end, started } = questions(slots)
    void ask('acme', 'a')
    const late = refused(ask('acme', 'b'))
    await vi.advanceTimersByTimeAsync(WAIT_MS)
    expect(await late).toEqual({
      status: 503,
      code: 'unavailable',
      message: 'Too many questions are being answered right now.',
      headers: { 'Retry-After': '1' },
    })
    await end('a')
    expect(started).toEqual(['a'])
    expect(slots.load).toEqual({ running: 0, waiting: 0 })
  })

  test('while a queue stays, its questions are answered early or not at all, and not all of them late', async () => {
    const slots = new QuerySlots(8, 1)
    const waits: number[] = []
    const ask = async () => {
      const asked = performance.now()
      const work = async () => {
        waits.push(performance.now() - asked)
        await new Promise((resolve) => void setTimeout(resolve, 100))
      }
      await slots.run('acme', work).catch((error: unknown) => expect(error).toMatchObject({ status: 503 }))
    }
    // Three times as many as can be answered.
    const asked: Promise<void>[] = []
    for (let n = 0; n < 600; n++) {
      asked.push(ask())
      await vi.advanceTimersByTimeAsync(33)
    }
    const late = waits.slice(100)
    expect(late.length).toBeGreaterThan(90)
    expect(Math.max(...late)).toBeLessThanOrEqual(BUSY_WAIT_MS)
    // The load ends, the queue empties, and the next burst has its full time again.
    await vi.advanceTimersByTimeAsync(5_000)
    await Promise.all(asked)
    waits.length = 0
    const burst = Promise.all([ask(), ask(), ask(), ask(), ask()])
    await vi.advanceTimersByTimeAsync(1_000)
    await burst
    expect(waits.map(Math.round)).toEqual([0, 100, 200, 300, 400])
  })

  test('a question that fails gives its place back', async () => {
    const slots = new QuerySlots(1)
    await expect(slots.run('acme', () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(await slots.run('acme', () => Promise.resolve('yes'))).toBe('yes')
  })

  test('a caller that is gone leaves the queue to those who still want an answer', async () => {
    const slots = new QuerySlots(1)
    const { ask, end, started } = questions(slots)
    void ask('acme', 'a')
    const caller = new AbortController()
    const gone = refused(ask('acme', 'gone', caller.signal))
    void ask('acme', 'b')
    caller.abort()
    expect(await gone).toMatchObject({ status: 503 })
    expect(await refused(ask('acme', 'gone before', AbortSignal.abort()))).toMatchObject({ status: 503 })
    expect(slots.load).toEqual({ running: 1, waiting: 1 })
    await end('a')
    expect(started).toEqual(['a', 'b'])
  })

  test('a caller that goes while its question runs does not disturb the count', async () => {
    const slots = new QuerySlots(1)
    const { ask, end } = questions(slots)
    const caller = new AbortController()
    void ask('acme', 'a', caller.signal)
    caller.abort()
    expect(slots.load).toEqual({ running: 1, waiting: 0 })
    await end('a')
    expect(slots.load).toEqual({ running: 0, waiting: 0 })
  })

  test('all tenants together stay within what ClickHouse is asked at a time', () => {
    const slots = new QuerySlots(4, 10)
    const { ask, started } = questions(slots)
    for (let tenant = 0; tenant < 5; tenant++) for (let n = 0; n < 4; n++) void ask(`tenant ${tenant}`, `${tenant}/${n}`)
    expect(started).toHaveLength(10)
    expect(slots.load).toEqual({ running: 10, waiting: 10 })
  })

  test("a tenant with one question waits for one of its neighbour's, not for all of them", async () => {
    const slots = new QuerySlots(8, 1)
    const { ask, end, started } = questions(slots)
    for (let n = 0; n < 4; n++) void ask('busy', `busy ${n}`)
    void ask('quiet', 'quiet')
    for (const name of ['busy 0', 'busy 1', 'quiet', 'busy 2']) await end(name)
    expect(started).toEqual(['busy 0', 'busy 1', 'quiet', 'busy 2', 'busy 3'])
  })

  test('a place goes to the tenant that has fewest, so a busy one cannot keep a quiet one waiting', async () => {
    const slots = new QuerySlots(8, 4)
    const { ask, end, started } = questions(slots)
    for (let n = 0; n < 8; n++) void ask('busy', `busy ${n}`)
    for (let n = 0; n < 3; n++) void ask('quiet', `quiet ${n}`)
    started.length = 0
    for (const name of ['busy 0', 'busy 1', 'busy 2', 'busy 3']) await end(name)
    // Two places each, from then on.
    expect(started).toEqual(['quiet 0', 'quiet 1', 'busy 4', 'busy 5'])
  })

  test('a tenant at its own limit holds up nobody, though it came first', async () => {
    const slots = new QuerySlots(1, 2)
    const { ask, end, started } = questions(slots)
    for (const name of ['a', 'b', 'c']) void ask('acme', name)
    void ask('globex', 'x')
    expect(started).toEqual(['a', 'x'])
    void ask('initech', 'y')
    await end('x')
    expect(started).toEqual(['a', 'x', 'y'])
    await end('a')
    expect(started).toEqual(['a', 'x', 'y', 'b'])
  })

  test('a full service turns away the last of the longest queue, never a neighbour with less', async () => {
    const slots = new QuerySlots(100, 1)
    const { ask, end, started } = questions(slots)
    void ask('busy', 'busy')
    const waiting = Array.from({ length: 16 }, (_, n) => ask('busy', `busy ${n}`))
    expect(await refused(ask('busy', 'one more'))).toMatchObject({ status: 503, headers: { 'Retry-After': '1' } })
    void ask('quiet', 'quiet')
    expect(await refused(waiting[15] as Promise<unknown>)).toMatchObject({
      status: 503,
      headers: { 'Retry-After': '1' },
    })
    expect(slots.load).toEqual({ running: 1, waiting: 16 })
    for (const name of ['busy', 'busy 0']) await end(name)
    expect(started).toEqual(['busy', 'busy 0', 'quiet'])
  })

  test('whatever callers do, places are neither lost nor made up', async () => {
    const slots = new QuerySlots(3, 7)
    let seed = 1
    const random = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below
    let running = 0
    const asked: Promise<unknown>[] = []
    for (let n = 0; n < 5_000; n++) {
      const tenant = `tenant ${random(6)}`
      const caller = new AbortController()
      const work = async () => {
        running++
        expect(running).toBeLessThanOrEqual(7)
        await new Promise((resolve) => void setTimeout(resolve, random(1_500)))
        running--
      }
      asked.push(slots.run(tenant, work, caller.signal).catch((error: unknown) => expect(error).toBeInstanceOf(ApiError)))
      if (random(5) === 0) setTimeout(() => caller.abort(), random(3_000))
      await vi.advanceTimersByTimeAsync(random(60))
    }
    await vi.advanceTimersByTimeAsync(60_000)
    await Promise.all(asked)
    expect(running).toBe(0)
    expect(slots.load).toEqual({ running: 0, waiting: 0 })
    expect(vi.getTimerCount()).toBe(0)
  })
})
