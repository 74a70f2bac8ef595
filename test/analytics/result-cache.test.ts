import { describe, expect, test } from 'vitest'
import { AnswerCache, type Kept } from '../../src/analytics/result-cache.ts'
import type { Range } from '../../src/domain/time-range.ts'
import { tenantKey } from '../../src/domain/tenant.ts'

const NOW = Date.parse('2026-03-01T12:00:00Z')
/** A range that is over. */
const PAST: Range = { from: 1_000, to: 2_000 }
/** A range that includes the present. */
const OPEN: Range = { from: NOW - 1_000, to: NOW + 1 }
const ACME = tenantKey('acme')
const GLOBEX = tenantKey('globex')

const body = (kept: Kept | undefined) => kept?.body

/** A question whose answer is given when the test says so. */
function question(covers: Range = PAST) {
  let give!: (text: string) => void
  let fail!: (error: Error) => void
  const answer = new Promise<string>((resolve, reject) => {
    give = resolve
    fail = reject
  })
  let asked = 0
  let signal: AbortSignal | undefined
  return {
    give,
    fail,
    get asked() {
      return asked
    },
    get cancelled() {
      return signal?.aborted
    },
    find: async (given: AbortSignal) => {
      asked++
      signal = given
      return { body: await answer, covers }
    },
  }
}

const answered =
  (text: string, covers: Range = PAST) =>
  () =>
    Promise.resolve({ body: text, covers })
const here = () => new AbortController().signal

async function keep(cache: AnswerCache, key: string, { tenant = ACME, covers = PAST, text = key } = {}) {
  await cache.find(key, tenant, NOW, here(), answered(text, covers))
}

describe('what is kept', () => {
  test('an answer about the past is kept as long as nothing is stored', async () => {
    const cache = new AnswerCache(1)
    await keep(cache, 'q')
    expect(body(cache.get('q', NOW + 1e12))).toBe('q')
    expect(cache.hits).toBe(1)
    expect(cache.misses).toBe(1)
  })

  test('an event inside of the half-open range drops the answer, one at its end or outside does not', async () => {
    const cases: Array<[timestamps: number[], kept: boolean]> = [
      [[999], true],
      [[1_000], false],
      [[1_999], false],
      [[2_000], true],
      [[5_000, 500], true],
      [[5_000, 500, 1_500], false],
      [[], true],
    ]
    for (const [timestamps, kept] of cases) {
      const cache = new AnswerCache(1)
      await keep(cache, 'q')
      cache.stored(ACME, timestamps)
      expect(body(cache.get('q', NOW)), String(timestamps)).toBe(kept ? 'q' : undefined)
    }
  })

  test('an answer that depends on the present is a second old at most', async () => {
    const cache = new AnswerCache(1)
    await keep(cache, 'q', { covers: OPEN })
    await keep(cache, 'forever', { covers: { from: 0, to: Infinity } })
    expect(body(cache.get('q', NOW + 999))).toBe('q')
    expect(body(cache.get('q', NOW + 1_000))).toBeUndefined()
    expect(body(cache.get('forever', NOW + 1_000))).toBeUndefined()
    expect(body(cache.get('q', NOW)), 'gone for good').toBeUndefined()
  })

  test('a range that ends this very moment is over', async () => {
    const cache = new AnswerCache(1)
    await keep(cache, 'q', { covers: { from: 0, to: NOW } })
    expect(body(cache.get('q', NOW + 1e9))).toBe('q')
  })

  test('where another instance may write unseen, nothing is older than its limit', async () => {
    const cache = new AnswerCache(1, 2_000)
    await keep(cache, 'past')
    await keep(cache, 'open', { covers: OPEN })
    expect(body(cache.get('past', NOW + 1_999))).toBe('past')
    expect(body(cache.get('past', NOW + 2_000))).toBeUndefined()
    expect(body(cache.get('open', NOW + 1_000))).toBeUndefined()
  })

  test('a failed question is not kept, and the next one is asked anew', async () => {
    const cache = new AnswerCache(1)
    const failing = question()
    const asking = cache.find('q', ACME, NOW, here(), failing.find)
    failing.fail(new Error('away'))
    await expect(asking).rejects.toThrow('away')
    expect(cache.get('q', NOW)).toBeUndefined()
    expect(body(await cache.find('q', ACME, NOW, here(), answered('better')))).toBe('better')
  })

  test('with no room to keep anything, what is under way is shared all the same', async () => {
    const cache = new AnswerCache(0)
    const slow = question()
    const both = [1, 2].map(() => cache.find('q', ACME, NOW, here(), slow.find))
    slow.give('once')
    expect((await Promise.all(both)).map(body)).toEqual(['once', 'once'])
    expect(slow.asked).toBe(1)
    expect(cache.get('q', NOW)).toBeUndefined()
  })

  test('equal answers have equal tags, others do not', async () => {
    const cache = new AnswerCache(1)
    const tags = []
    for (const text of ['a', 'a', 'b']) tags.push((await cache.find(text, ACME, NOW, here(), answered(text))).etag)
    expect(tags[0]).toMatch(/^"[\w-]+"$/)
    expect(tags[1]).toBe(tags[0])
    expect(tags[2]).not.toBe(tags[0])
  })
})

describe('what is shared', () => {
  test('callers who ask the same at the same time cost one question', async () => {
    const cache = new AnswerCache(1)
    const slow = question()
    const asking = Array.from({ length: 50 }, () => cache.find('q', ACME, NOW, here(), slow.find))
    const other = cache.find('another', ACME, NOW, here(), answered('other'))
    slow.give('one')
    expect(new Set((await Promise.all(asking)).map(body))).toEqual(new Set(['one']))
    expect(body(await other)).toBe('other')
    expect(slow.asked).toBe(1)
  })

  test('one caller who goes away takes nothing from the others', async () => {
    const cache = new AnswerCache(1)
    const slow = question()
    const callers = [new AbortController(), new AbortController(), new AbortController()]
    const asking = callers.map(({ signal }) => cache.find('q', ACME, NOW, signal, slow.find))
    callers[0]?.abort()
    callers[2]?.abort()
    expect(slow.cancelled).toBe(false)
    slow.give('still')
    expect(body(await asking[1])).toBe('still')
  })

  test('when every caller is gone the question is cancelled, and a later one is not stuck with it', async () => {
    const cache = new AnswerCache(1)
    const slow = question()
    const callers = [new AbortController(), new AbortController()]
    const asking = callers.map(({ signal }) => cache.find('q', ACME, NOW, signal, slow.find))
    for (const caller of callers) caller.abort()
    expect(slow.cancelled).toBe(true)
    const later = cache.find('q', ACME, NOW, here(), answered('fresh'))
    slow.fail(new Error('cancelled'))
    await Promise.allSettled(asking)
    expect(body(await later)).toBe('fresh')
    expect(body(cache.get('q', NOW)), 'the cancelled one must not take the fresh one along').toBe('fresh')
  })

  test('a caller that was gone before it asked keeps nothing running', async () => {
    const cache = new AnswerCache(1)
    const slow = question()
    const asking = cache.find('q', ACME, NOW, AbortSignal.abort(), slow.find)
    expect(slow.cancelled).toBe(true)
    slow.fail(new Error('cancelled'))
    await expect(asking).rejects.toThrow('cancelled')
  })

  test('a caller that goes after its answer has come cancels nothing', async () => {
    const cache = new AnswerCache(1)
    const caller = new AbortController()
    const quick = question()
    quick.give('done')
    await cache.find('q', ACME, NOW, caller.signal, quick.find)
    caller.abort()
    expect(quick.cancelled).toBe(false)
  })
})

describe('a write that was acknowledged is seen by whoever asks afterwards', () => {
  test('an answer that was under way during the write is not kept', async () => {
    const cache = new AnswerCache(1)
    const slow = question()
    const asking = cache.find('q', ACME, NOW, here(), slow.find)
    cache.stored(ACME, [1_500])
    slow.give('from before the write')
    expect(body(await asking)).toBe('from before the write')
    expect(cache.get('q', NOW)).toBeUndefined()
  })

  test('an answer that was under way during the write is not shared with who asks after it', async () => {
    const cache = new AnswerCache(1)
    const [before, after] = [question(), question()]
    const first = cache.find('q', ACME, NOW, here(), before.find)
    cache.stored(ACME, [1_500])
    const second = cache.find('q', ACME, NOW, here(), after.find)
    const third = cache.find('q', ACME, NOW, here(), after.find)
    after.give('new')
    expect(body(await second)).toBe('new')
    before.give('old')
    expect(body(await first)).toBe('old')
    expect(body(await third)).toBe('new')
    expect([before.asked, after.asked]).toEqual([1, 1])
    expect(body(cache.get('q', NOW)), 'the old one came last and must not be kept').toBe('new')
  })

  test('an answer of a tenant without any event is dropped by its first one', async () => {
    const cache = new AnswerCache(1)
    await keep(cache, 'q', { text: 'nothing' })
    expect(body(cache.get('q', NOW))).toBe('nothing')
    cache.stored(ACME, [1_500])
    expect(cache.get('q', NOW)).toBeUndefined()
  })

  test('the first write of a tenant is not hidden by a question from before it', async () => {
    const cache = new AnswerCache(1)
    const slow = question()
    const before = cache.find('q', ACME, NOW, here(), slow.find)
    cache.stored(ACME, [1_500])
    const after = cache.find('q', ACME, NOW, here(), answered('one event'))
    slow.give('nothing')
    expect(body(await before)).toBe('nothing')
    expect(body(await after)).toBe('one event')
    expect(body(cache.get('q', NOW))).toBe('one event')
  })
})

describe('tenants', () => {
  test('the events of one leave the answers of another alone', async () => {
    const cache = new AnswerCache(1)
    await keep(cache, 'acme')
    await keep(cache, 'globex', { tenant: GLOBEX })
    const slow = question()
    const asking = cache.find('acme, slow', ACME, NOW, here(), slow.find)
    cache.stored(GLOBEX, [1_500])
    slow.give('kept')
    await asking
    expect(['acme', 'globex', 'acme, slow'].map((key) => body(cache.get(key, NOW)))).toEqual(['acme', undefined, 'kept'])
  })
})

describe('size', () => {
  const MEGABYTE = 1_048_576

  test('the cache holds no more than it may: what was used last stays', async () => {
    const cache = new AnswerCache(1)
    const text = 'x'.repeat(MEGABYTE / 4)
    await keep(cache, 'used', { text })
    for (let n = 0; n < 10; n++) {
      await keep(cache, `answer ${n}`, { text })
      expect(body(cache.get('used', NOW))).toBe(text)
    }
    const left = Array.from({ length: 10 }, (_, n) => cache.get(`answer ${n}`, NOW)).filter(Boolean)
    expect(left).toHaveLength(2)
  })

  test('an answer larger than the cache is given, not kept, and pushes nothing out', async () => {
    const cache = new AnswerCache(1)
    await keep(cache, 'small')
    const large = await cache.find('large', ACME, NOW, here(), answered('x'.repeat(2 * MEGABYTE)))
    expect(large.body).toHaveLength(2 * MEGABYTE)
    expect(cache.get('large', NOW)).toBeUndefined()
    expect(body(cache.get('small', NOW))).toBe('small')
  })

  test('many small answers with long questions count too', async () => {
    const cache = new AnswerCache(1)
    for (let n = 0; n < 2_000; n++) await keep(cache, `${n} ${'q'.repeat(1_000)}`, { text: '' })
    let left = 0
    for (let n = 0; n < 2_000; n++) if (cache.get(`${n} ${'q'.repeat(1_000)}`, NOW)) left++
    expect(left).toBeGreaterThan(300)
    expect(left).toBeLessThan(MEGABYTE / 2_000)
  })

  test('an answer that was pushed out is asked for again and dropped by events as before', async () => {
    const cache = new AnswerCache(1)
    const text = 'x'.repeat(MEGABYTE / 2)
    for (const key of ['a', 'b', 'c', 'a']) await keep(cache, key, { text })
    expect(body(cache.get('a', NOW))).toBe(text)
    cache.stored(ACME, [1_500])
    expect(cache.get('a', NOW)).toBeUndefined()
  })
})
