import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ApiError } from '../../src/domain/errors.ts'
import { BUSY_WAIT_MS, MAX_EXPORTS, TenantLimits, WAIT_MS } from '../../src/limits/tenant-limits.ts'

/** What a refused caller is told. */
async function refused(what: Promise<unknown> | (() => unknown)) {
  try {
    await (typeof what === 'function' ? what() : what)
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    return { status: error.status, code: error.code, message: error.message, headers: error.headers }
  }
  throw new Error('nothing was refused')
}

const spend = (limits: TenantLimits, tenant: string, requests: number, now: number) => {
  for (let n = 0; n < requests; n++) limits.count(tenant, now)
}

/** Questions that run until they are told to end. */
function questions(limits: TenantLimits) {
  const started: string[] = []
  const ends = new Map<string, () => void>()
  return {
    started,
    ask: (tenant: string, name: string, signal?: AbortSignal) =>
      limits.run(
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

describe('requests a second', () => {
  test("a burst passes up to a second's worth and not one request further", async () => {
    const limits = new TenantLimits(10, 1)
    spend(limits, 'acme', 10, 0)
    expect(await refused(() => limits.count('acme', 0))).toEqual({
      status: 429,
      code: 'too_many_requests',
      message: 'More than 10 requests a second.',
      headers: { 'RateLimit-Policy': '"tenant";q=10;w=1', RateLimit: '"tenant";r=0;t=1', 'Retry-After': '1' },
    })
  })

  test("requests come back at the rate, not all at once, and never pile up beyond a second's worth", async () => {
    const limits = new TenantLimits(10, 1)
    spend(limits, 'acme', 10, 0)
    spend(limits, 'acme', 3, 300)
    await refused(() => limits.count('acme', 300))
    spend(limits, 'acme', 10, 3_600_000)
    await refused(() => limits.count('acme', 3_600_000))
  })

  test('a refused request costs nothing, so that a caller who keeps knocking is not locked out for good', async () => {
    const limits = new TenantLimits(10, 1)
    spend(limits, 'acme', 10, 0)
    for (let n = 0; n < 1_000; n++) await refused(() => limits.count('acme', 50))
    spend(limits, 'acme', 1, 100)
  })

  test('the headers count down to what is really left', () => {
    const limits = new TenantLimits(3, 1)
    const left = Array.from({ length: 3 }, () => limits.count('acme', 0)['RateLimit'])
    expect(left).toEqual(['"tenant";r=2;t=1', '"tenant";r=1;t=1', '"tenant";r=0;t=1'])
  })

  test('a tenant that spends all it has takes nothing from another', async () => {
    const limits = new TenantLimits(5, 1)
    spend(limits, 'acme', 5, 0)
    await refused(() => limits.count('acme', 0))
    expect(limits.count('globex', 0)['RateLimit']).toBe('"tenant";r=4;t=1')
  })

  test('ten thousand other tenants do not give a busy one its requests back', async () => {
    const limits = new TenantLimits(2, 1)
    for (let n = 0; n < 30_000; n++) {
      // Each second request of the busy one is one too many, whoever came in between.
      if (n % 5_000 === 0) {
        spend(limits, 'busy', n === 0 ? 2 : 0, 0)
        await refused(() => limits.count('busy', 0))
      }
      limits.count(`tenant ${n}`, 0)
    }
  })
})

describe('questions at a time', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  test('what is beyond the limit waits, and starts in the order it came', async () => {
    const limits = new TenantLimits(1, 2)
    const { ask, end, started } = questions(limits)
    const answers = ['a', 'b', 'c', 'd'].map((name) => ask('acme', name))
    expect(started).toEqual(['a', 'b'])
    expect(limits.load).toEqual({ running: 2, waiting: 2 })
    await end('b')
    expect(started).toEqual(['a', 'b', 'c'])
    for (const name of ['a', 'c', 'd']) await end(name)
    expect(await Promise.all(answers)).toEqual(['a', 'b', 'c', 'd'])
    expect(limits.load).toEqual({ running: 0, waiting: 0 })
  })

  test('four may wait for each that runs; the next is told to come back', async () => {
    const limits = new TenantLimits(1, 1)
    const { ask } = questions(limits)
    for (const name of ['a', 'b', 'c', 'd', 'e']) void ask('acme', name)
    expect(await refused(ask('acme', 'f'))).toEqual({
      status: 429,
      code: 'too_many_requests',
      message: 'Too many questions are being answered for this tenant.',
      headers: { 'Retry-After': '1' },
    })
  })

  test('nobody waits longer than the limit, and who has been refused does not run after all', async () => {
    const limits = new TenantLimits(1, 1)
    const { ask, end, started } = questions(limits)
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
    expect(limits.load).toEqual({ running: 0, waiting: 0 })
  })

  test('while a queue stays, its questions are answered early or not at all, and not all of them late', async () => {
    const limits = new TenantLimits(1, 8, 1)
    const waits: number[] = []
    const ask = async () => {
      const asked = performance.now()
      const work = async () => {
        waits.push(performance.now() - asked)
        await new Promise((resolve) => void setTimeout(resolve, 100))
      }
      await limits.run('acme', work).catch((error: unknown) => expect(error).toMatchObject({ status: 503 }))
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
    const limits = new TenantLimits(1, 1)
    await expect(limits.run('acme', () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(await limits.run('acme', () => Promise.resolve('yes'))).toBe('yes')
  })

  test('a caller that is gone leaves the queue to those who still want an answer', async () => {
    const limits = new TenantLimits(1, 1)
    const { ask, end, started } = questions(limits)
    void ask('acme', 'a')
    const caller = new AbortController()
    const gone = refused(ask('acme', 'gone', caller.signal))
    void ask('acme', 'b')
    caller.abort()
    expect(await gone).toMatchObject({ status: 503 })
    expect(await refused(ask('acme', 'gone before', AbortSignal.abort()))).toMatchObject({ status: 503 })
    expect(limits.load).toEqual({ running: 1, waiting: 1 })
    await end('a')
    expect(started).toEqual(['a', 'b'])
  })

  test('a caller that goes while its question runs does not disturb the count', async () => {
    const limits = new TenantLimits(1, 1)
    const { ask, end } = questions(limits)
    const caller = new AbortController()
    void ask('acme', 'a', caller.signal)
    caller.abort()
    expect(limits.load).toEqual({ running: 1, waiting: 0 })
    await end('a')
    expect(limits.load).toEqual({ running: 0, waiting: 0 })
  })

  test('all tenants together stay within what ClickHouse is asked at a time', () => {
    const limits = new TenantLimits(1, 4, 10)
    const { ask, started } = questions(limits)
    for (let tenant = 0; tenant < 5; tenant++)
      for (let n = 0; n < 4; n++) void ask(`tenant ${tenant}`, `${tenant}/${n}`)
    expect(started).toHaveLength(10)
    expect(limits.load).toEqual({ running: 10, waiting: 10 })
  })

  test("a tenant with one question waits for one of its neighbour's, not for all of them", async () => {
    const limits = new TenantLimits(1, 8, 1)
    const { ask, end, started } = questions(limits)
    for (let n = 0; n < 4; n++) void ask('busy', `busy ${n}`)
    void ask('quiet', 'quiet')
    for (const name of ['busy 0', 'busy 1', 'quiet', 'busy 2']) await end(name)
    expect(started).toEqual(['busy 0', 'busy 1', 'quiet', 'busy 2', 'busy 3'])
  })

  test('a place goes to the tenant that has fewest, so a busy one cannot keep a quiet one waiting', async () => {
    const limits = new TenantLimits(1, 8, 4)
    const { ask, end, started } = questions(limits)
    for (let n = 0; n < 8; n++) void ask('busy', `busy ${n}`)
    for (let n = 0; n < 3; n++) void ask('quiet', `quiet ${n}`)
    started.length = 0
    for (const name of ['busy 0', 'busy 1', 'busy 2', 'busy 3']) await end(name)
    // Two places each, from then on.
    expect(started).toEqual(['quiet 0', 'quiet 1', 'busy 4', 'busy 5'])
  })

  test('a tenant at its own limit holds up nobody, though it came first', async () => {
    const limits = new TenantLimits(1, 1, 2)
    const { ask, end, started } = questions(limits)
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
    const limits = new TenantLimits(1, 100, 1)
    const { ask, end, started } = questions(limits)
    void ask('busy', 'busy')
    const waiting = Array.from({ length: 16 }, (_, n) => ask('busy', `busy ${n}`))
    expect(await refused(ask('busy', 'one more'))).toMatchObject({ status: 503, headers: { 'Retry-After': '1' } })
    void ask('quiet', 'quiet')
    expect(await refused(waiting[15] as Promise<unknown>)).toMatchObject({
      status: 503,
      headers: { 'Retry-After': '1' },
    })
    expect(limits.load).toEqual({ running: 1, waiting: 16 })
    for (const name of ['busy', 'busy 0']) await end(name)
    expect(started).toEqual(['busy', 'busy 0', 'quiet'])
  })

  test('whatever callers do, places are neither lost nor made up', async () => {
    const limits = new TenantLimits(1, 3, 7)
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
      asked.push(
        limits.run(tenant, work, caller.signal).catch((error: unknown) => expect(error).toBeInstanceOf(ApiError)),
      )
      if (random(5) === 0) setTimeout(() => caller.abort(), random(3_000))
      await vi.advanceTimersByTimeAsync(random(60))
    }
    await vi.advanceTimersByTimeAsync(60_000)
    await Promise.all(asked)
    expect(running).toBe(0)
    expect(limits.load).toEqual({ running: 0, waiting: 0 })
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('exports at a time', () => {
  test('open ones are counted until they are over, however often that is said', async () => {
    const limits = new TenantLimits(1, 2)
    const first = limits.openExport('acme')
    limits.openExport('acme')
    expect(await refused(() => limits.openExport('acme'))).toEqual({
      status: 429,
      code: 'too_many_requests',
      message: 'Too many exports are being sent to this tenant.',
      headers: { 'Retry-After': '1' },
    })
    limits.openExport('globex')
    first()
    first()
    limits.openExport('acme')
    await refused(() => limits.openExport('acme'))
  })

  test('all tenants together have as many as there are connections for', async () => {
    const limits = new TenantLimits(1, 2)
    const open = Array.from({ length: MAX_EXPORTS }, (_, n) => limits.openExport(`tenant ${n}`))
    expect(await refused(() => limits.openExport('one more'))).toEqual({
      status: 503,
      code: 'unavailable',
      message: 'Too many exports are being sent right now.',
      headers: { 'Retry-After': '1' },
    })
    open[0]?.()
    limits.openExport('one more')
  })
})
