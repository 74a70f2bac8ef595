import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startService, type Caller, type TestService } from '../../support.ts'

const NOW = '2026-03-01T12:00:00.000Z'
const ALL = { startDate: '1970-01-01', endDate: '2026-03-02' }

let service: TestService
beforeAll(async () => {
  service = await startService({ now: NOW })
})
afterAll(() => service.close())

let tenants = 0
/** A tenant that has nothing yet. */
const fresh = (): string => `tenant ${tenants++}`

const event = (id: string | undefined, rest: object = {}) => ({
  ...(id === undefined ? {} : { id }),
  eventType: 'incomingMessages',
  timestamp: '2026-02-22T10:00:00.000Z',
  assistant: 'Rex',
  user: 'ann',
  ...rest,
})

/** The ids that are stored, in the order of the alphabet. */
async function stored(org: string, of = service): Promise<string[]> {
  const { data } = await of.whole('events', { ...ALL, limit: 1000 }, { org })
  return data.map(({ id }: { id: string }) => id).toSorted()
}

const sum = (rows: Array<{ total: number }>) => rows.reduce((all, { total }) => all + total, 0)

/** The number of events by three ways that read different tables. */
async function counted(org: string, of = service) {
  const [{ pagination }, top, assistants] = await Promise.all([
    of.whole('events', ALL, { org }),
    of.data('users/top', { ...ALL, limit: 1000 }, { org }),
    of.data('assistants', ALL, { org }),
  ])
  return [pagination.total, sum(top), sum(assistants)]
}

const NDJSON = { 'Content-Type': 'application/x-ndjson' }
const GZIP = { 'Content-Encoding': 'gzip' }
const receipt = (accepted: number, duplicates = 0, rejected: object[] = []) => ({
  success: true,
  data: { accepted, duplicates, rejected },
})

describe('forms of a batch', () => {
  const [a, b] = [event('a'), event('b', { user: 'b\u00f6b \ud83d\ude00' })]
  const [textA, textB] = [JSON.stringify(a), JSON.stringify(b)]
  const array = JSON.stringify([a, b])
  test.each<[string, string | Uint8Array, Record<string, string>]>([
    ['an array', array, {}],
    ['an array over several lines, with a byte order mark', `\ufeff${JSON.stringify([a, b], null, 2)}`, {}],
    ['with a charset', array, { 'Content-Type': 'application/json; charset=UTF-8' }],
    ['a media type in capitals', array, { 'Content-Type': 'Application/JSON' }],
    ['an event a line', `${textA}\n${textB}`, NDJSON],
    ['a newline at the end', `${textA}\n${textB}\n`, NDJSON],
    ['CRLF and empty lines', `\r\n${textA}\r\n \r\n\r\n${textB}\r\n\r\n`, NDJSON],
    ['gzip', gzipSync(array), GZIP],
    ['gzip, an event a line', gzipSync(`${textA}\n${textB}\n`), { ...NDJSON, ...GZIP }],
    ['gzip in two members', Buffer.concat([gzipSync(`${textA}\n`), gzipSync(textB)]), { ...NDJSON, ...GZIP }],
    ['bytes', new TextEncoder().encode(array), {}],
  ])('%s', async (_, body, headers) => {
    const org = fresh()
    const reply = await service.post(body, { org, headers })
    expect([reply.status, reply.body]).toEqual([200, receipt(2)])
    expect(await stored(org)).toEqual(['a', 'b'])
    expect(await service.data('users/top', { ...ALL, user: b.user }, { org })).toMatchObject([{ user: b.user, total: 1 }])
  })

  test('one event that is no array', async () => {
    const org = fresh()
    expect((await service.post(a, { org })).body).toEqual(receipt(1))
    expect(await stored(org)).toEqual(['a'])
  })
})

describe('one bad event costs no neighbour', () => {
  const wrong: Array<[string, unknown, RegExp]> = [
    ['null', null, /object/],
    ['a number', 1, /object/],
    ['a text', 'event', /object/],
    ['an array', [event('x')], /object/],
    ['no field at all', {}, /eventType/],
    ['an unknown field', event('x', { evenType: 'x' }), /"evenType"/],
    ['an unknown field with a long name', event('x', { ['y'.repeat(1_000)]: 1 }), /^.{1,120}$/],
    ['no eventType', event('x', { eventType: undefined }), /eventType must be one of incomingMessages/],
    ['an unknown eventType', event('x', { eventType: 'messages' }), /eventType must be one of incomingMessages/],
    ['an eventType of another case', event('x', { eventType: 'IncomingMessages' }), /eventType/],
    ['a name from the prototype as eventType', event('x', { eventType: 'constructor' }), /eventType/],
    ['no assistant', event('x', { assistant: undefined }), /assistant must be a string of 1 to 256/],
    ['an empty assistant', event('x', { assistant: '' }), /assistant/],
    ['a number as assistant', event('x', { assistant: 7 }), /assistant/],
    ['257 characters', event('x', { assistant: 'y'.repeat(257) }), /assistant/],
    ['a NUL character', event('x', { user: 'a\0b' }), /user/],
    ['half a character', event('x', { user: 'a\ud800' }), /user/],
    ['null as user', event('x', { user: null }), /user/],
    ['an empty id', event(''), /id must be/],
    ['a number as id', event('x', { id: 5 }), /id must be/],
    ['half a character as id', event('\udc00'), /id must be/],
    ['no timestamp', event('x', { timestamp: undefined }), /timestamp/],
    ['a number as timestamp', event('x', { timestamp: 1_772_366_400_000 }), /timestamp/],
    ['a day that does not exist', event('x', { timestamp: '2026-02-30T10:00:00.000Z' }), /timestamp has day 30/],
    ['an hour that does not exist', event('x', { timestamp: '2026-02-20T24:00:00Z' }), /timestamp/],
    ['a timestamp in words', event('x', { timestamp: 'yesterday' }), /timestamp cannot be read/],
    ['the millisecond before the first', event('x', { timestamp: '1969-12-31T23:59:59.999Z' }), /timestamp is out of range/],
    ['the first by its zone, not by UTC', event('x', { timestamp: '1970-01-01T00:00:00+00:01' }), /timestamp is out of range/],
    ['the far future', event('x', { timestamp: '9999-12-31T00:00:00.000Z' }), /timestamp/],
    [
      'a millisecond too far ahead',
      event('x', { timestamp: '2026-03-01T12:05:00.001Z' }),
      /in the future.*2026-03-01T12:05:00.000Z/,
    ],
    ['a negative cost', event('x', { cost: -0.01 }), /cost must be/],
    ['a cost as text', event('x', { cost: '1' }), /cost must be/],
    ['a cost beyond reason', event('x', { cost: 1_000_001 }), /cost must be/],
    ['negative tokens', event('x', { inputTokens: -1 }), /inputTokens must be an integer/],
    ['a part of a token', event('x', { outputTokens: 1.5 }), /outputTokens must be an integer/],
    ['more tokens than a column holds', event('x', { outputTokens: 4_294_967_296 }), /outputTokens must be/],
    ['an empty model', event('x', { model: '' }), /model must be/],
    ['a number as traceId', event('x', { traceId: 1 }), /traceId must be/],
    ['metadata as a list', event('x', { metadata: [] }), /metadata must be a JSON object/],
    ['metadata as text', event('x', { metadata: '{}' }), /metadata must be/],
    ['metadata of 4,097 bytes', event('x', { metadata: { k: 'ü'.repeat(2_044) + 'x' } }), /4096 bytes/],
  ]

  test('each of them, with its position and its reason, and the good ones in between are kept', async () => {
    const org = fresh()
    const batch = wrong.flatMap(([, value], index) => [value, event(`good ${String(index).padStart(3, '0')}`)])
    const { status, body } = await service.post(batch, { org })
    expect(status).toBe(200)
    expect(body).toEqual(
      receipt(
        wrong.length,
        0,
        wrong.map(([, , reason], index) => ({ index: 2 * index, message: expect.stringMatching(reason) })),
      ),
    )
    expect(await stored(org)).toEqual(wrong.map((_, index) => `good ${String(index).padStart(3, '0')}`))
    expect(await counted(org)).toEqual([wrong.length, wrong.length, wrong.length])
  })

  test.each(wrong)('%s, alone', async (_, value, reason) => {
    const { status, body } = await service.post(JSON.stringify([value]), { org: 'the wrong ones' })
    expect([status, body]).toEqual([200, receipt(0, 0, [{ index: 0, message: expect.stringMatching(reason) }])])
  })

  test('lines that are no JSON, and their positions among the lines that are not empty', async () => {
    const org = fresh()
    const lines = [
      JSON.stringify(event('1')),
      '{"id":',
      '',
      'hello',
      JSON.stringify(event('2')),
      '{}{}',
      JSON.stringify(event('3')),
    ]
    const { body } = await service.post(lines.join('\n'), { org, headers: NDJSON })
    expect(body).toEqual(
      receipt(
        3,
        0,
        [1, 2, 4].map((index) => ({ index, message: 'is not JSON' })),
      ),
    )
    expect(await stored(org)).toEqual(['1', '2', '3'])
  })

  test('a field called __proto__ is a field like any other: unknown', async () => {
    const text = JSON.stringify(event('x')).replace('{', '{"__proto__":{"user":"eve"},')
    expect((await service.post(`[${text}]`, { org: fresh() })).body.data.rejected).toEqual([
      { index: 0, message: expect.stringMatching(/__proto__/) },
    ])
  })

  test('metadata nested deeper than any stack, on a line of its own', async () => {
    const org = fresh()
    const deep = JSON.stringify(event('deep', { metadata: { x: 'HERE' } })).replace(
      '"HERE"',
      `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
    )
    const { status, body } = await service.post(`${deep}\n${JSON.stringify(event('good'))}`, { org, headers: NDJSON })
    expect([status, body.data.accepted, body.data.rejected.length]).toEqual([200, 1, 1])
    expect(await stored(org)).toEqual(['good'])
  })
})

describe('at the edges of what is accepted', () => {
  test.each([
    ['the first millisecond', { timestamp: '1970-01-01T00:00:00.000Z' }, { timestamp: '1970-01-01T00:00:00.000Z' }],
    ['five minutes ahead', { timestamp: '2026-03-01T12:05:00.000Z' }, { timestamp: '2026-03-01T12:05:00.000Z' }],
    ['microseconds', { timestamp: '2026-02-22T10:00:00.123999Z' }, { timestamp: '2026-02-22T10:00:00.123Z' }],
    [
      'nanoseconds and an offset',
      { timestamp: '2026-02-22T10:00:00.123456789-03:30' },
      { timestamp: '2026-02-22T13:30:00.123Z' },
    ],
    ['a tenth of a second', { timestamp: '2026-02-22T10:00:00.5Z' }, { timestamp: '2026-02-22T10:00:00.500Z' }],
    ['no offset', { timestamp: '2026-02-22T10:00:00' }, { timestamp: '2026-02-22T10:00:00.000Z' }],
    ['a leap day', { timestamp: '2024-02-29T23:59:59.999Z' }, { timestamp: '2024-02-29T23:59:59.999Z' }],
    ['256 characters', { user: 'ü'.repeat(256), assistant: '\ud83d\ude00'.repeat(128) }, {}],
    ['the largest figures', { cost: 1_000_000, inputTokens: 4_294_967_295, outputTokens: 4_294_967_295 }, {}],
    ['the smallest cost, and less', { cost: 0.000000001 }, {}],
    ['what rounds to nothing', { cost: 0.0000000004 }, { cost: 0 }],
    ['zeros', { cost: 0, inputTokens: 0, outputTokens: -0 }, { outputTokens: 0 }],
    [
      'null where a field is optional',
      { cost: null, inputTokens: null, outputTokens: null, model: null, traceId: null, metadata: null },
      { cost: 0, inputTokens: 0, outputTokens: 0 },
    ],
    ['metadata of 4,096 bytes', { metadata: { k: 'ü'.repeat(2_044) } }, {}],
    ['odd metadata', { metadata: { 'a\0b': '\ud800', '': [[], {}], toString: 1.5e300 } }, {}],
  ])('%s', async (_, fields, answered) => {
    const org = fresh()
    await service.store([event('x', fields)], { org })
    const { data } = await service.whole('events', ALL, { org })
    const defaults = { cost: 0, inputTokens: 0, outputTokens: 0, model: null, traceId: null, metadata: null }
    expect(data).toEqual([{ ...defaults, ...event('x', fields), ...answered }])
    expect(await counted(org)).toEqual([1, 1, 1])
  })
})

const other = (index: number) => ({ index, message: 'id was used before for an event with other content' })

describe('the same id', () => {
  test('in the same batch, in another and in both is counted once', async () => {
    const org = fresh()
    expect((await service.post([event('a'), event('b'), event('a'), event('a')], { org })).body).toEqual(receipt(2, 2))
    expect((await service.post([event('c'), event('b'), event('a')], { org })).body).toEqual(receipt(1, 2))
    expect(await stored(org)).toEqual(['a', 'b', 'c'])
    expect(await counted(org)).toEqual([3, 3, 3])
  })

  test('with other content is refused, in the batch and later, and the first one stays', async () => {
    const org = fresh()
    expect((await service.post([event('a'), event('a', { user: 'bob' }), event('b')], { org })).body).toEqual(
      receipt(2, 0, [other(1)]),
    )
    const changes = [
      { timestamp: '2026-02-22T10:00:00.001Z' },
      { eventType: 'outgoingMessages' },
      { assistant: 'Ada' },
      { user: 'bob' },
      { cost: 0.000000001 },
      { inputTokens: 1 },
      { outputTokens: 1 },
      { model: 'm' },
      { traceId: 't' },
      { metadata: {} },
    ]
    const { body } = await service.post(
      changes.map((change) => event('a', change)),
      { org },
    )
    expect(body).toEqual(
      receipt(
        0,
        0,
        changes.map((_, index) => other(index)),
      ),
    )
    expect(await service.data('users/top', ALL, { org })).toMatchObject([{ user: 'ann', total: 2 }])
  })

  test('written in other words is the same event', async () => {
    const org = fresh()
    await service.store([event('a', { cost: 0.1, metadata: { x: 1 } })], { org })
    const same = event('a', {
      timestamp: '2026-02-22T15:45:00.000999+05:45',
      cost: 0.1000000000001,
      model: null,
      metadata: { x: 1.0 },
    })
    expect((await service.post([same], { org })).body).toEqual(receipt(0, 1))
  })

  test('that differs in case, in accents or in a space is another id', async () => {
    const org = fresh()
    const ids = ['a', 'A', 'a ', ' a', 'á', 'a\u0301', 'a\n', '\\a']
    expect(
      (
        await service.post(
          ids.map((id) => event(id)),
          { org },
        )
      ).body,
    ).toEqual(receipt(ids.length))
    expect(
      (
        await service.post(
          ids.map((id) => event(id)),
          { org },
        )
      ).body,
    ).toEqual(receipt(0, ids.length))
  })

  test('of another tenant is nobody else’s business', async () => {
    const [one, two] = [fresh(), fresh()]
    await service.store([event('a')], { org: one })
    expect((await service.post([event('a', { user: 'bob' })], { org: two })).body).toEqual(receipt(1))
    expect(await service.data('users/top', ALL, { org: one })).toMatchObject([{ user: 'ann', total: 1 }])
    expect(await service.data('users/top', ALL, { org: two })).toMatchObject([{ user: 'bob', total: 1 }])
  })

  test('from many callers at the same moment is counted once, whatever else is in their batches', async () => {
    const org = fresh()
    const shared = Array.from({ length: 20 }, (_, index) => event(`shared ${index}`))
    const replies = await Promise.all(
      Array.from({ length: 30 }, (_, caller) =>
        service.post([event(`own ${caller}`), ...shared.toSpliced(caller % 20, 1)], { org }),
      ),
    )
    const all = (name: 'accepted' | 'duplicates') => replies.reduce((count, { body }) => count + body.data[name], 0)
    expect([all('accepted'), all('duplicates')]).toEqual([50, 30 * 20 - 50])
    expect((await stored(org)).length).toBe(50)
    expect(await counted(org)).toEqual([50, 50, 50])
  })

  test('with other content, from many callers at the same moment: one gets it, the others are told', async () => {
    const org = fresh()
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, caller) => service.post([event('a', { user: `user ${caller}` })], { org })),
    )
    expect(replies.filter(({ body }) => body.data.accepted === 1).length).toBe(1)
    expect(replies.filter(({ body }) => body.data.rejected.length === 1).length).toBe(19)
    expect(await counted(org)).toEqual([1, 1, 1])
  })

  test('is known to the next run of the service, whatever characters it has', async () => {
    const ids = [
      'a',
      'ab',
      'abc',
      'abcd',
      'abcde',
      'é',
      '漢字',
      '\ud83d\ude00',
      '\u0080',
      'x'.repeat(256),
      '漢'.repeat(256),
      "'\\\n",
    ]
    let first = await startService({ now: NOW })
    await first.store(ids.map((id) => event(id)))
    await first.stop()
    first = await startService({ now: NOW, from: first })
    // By then the filter that spares most look-ups is filled.
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect((await first.post([...ids.map((id) => event(id)), event('new')])).body).toEqual(receipt(1, ids.length))
    expect(await counted('acme', first)).toEqual([ids.length + 1, ids.length + 1, ids.length + 1])
    await first.close()
  })
})

const long = (kind: string, index: number) => `${kind}${'漢'.repeat(240)}${String(index).padStart(5, '0')}`

test('a large batch of the longest ids, sent twice', async () => {
  const org = fresh()
  const batch = Array.from({ length: 1_500 }, (_, index) =>
    event(long('e', index), { user: long('u', index), assistant: long('a', index % 350) }),
  )
  expect(Buffer.byteLength(JSON.stringify(batch))).toBeLessThan(8 * 1_048_576)
  expect((await service.post(batch, { org })).body).toEqual(receipt(1_500))
  expect((await service.post(batch, { org })).body).toEqual(receipt(0, 1_500))
  const assistants = await service.data('assistants', ALL, { org })
  expect([assistants.length, sum(assistants)]).toEqual([350, 1_500])
  expect(await service.data('users/top', { ...ALL, limit: 1_000 }, { org })).toHaveLength(1_000)
}, 60_000)

test('names and ids of a batch are looked up together, not beyond what ClickHouse takes as one parameter', async () => {
  const first = await startService({ now: NOW })
  const batch = Array.from({ length: 4_000 }, (_, index) => {
    const name = `${'0123456789abcdef'.repeat(5)}${index}`
    return event(name, { user: name, assistant: name.slice(0, -1) })
  })
  await first.store(batch)
  await first.stop()
  // A new run remembers no name and no id.
  const second = await startService({ now: NOW, from: first })
  expect((await second.post([...batch.map((sent) => ({ ...sent, id: `${sent.id} again` })), ...batch])).body).toEqual(
    receipt(4_000, 4_000),
  )
  expect(await second.data('assistants', ALL)).toHaveLength(new Set(batch.map(({ assistant }) => assistant)).size)
  await second.close()
}, 60_000)

describe('events without an id', () => {
  test('are all different, however equal they look', async () => {
    const org = fresh()
    expect((await service.post([event(undefined), event(undefined)], { org })).body).toEqual(receipt(2))
    expect((await service.post([event(undefined)], { org })).body).toEqual(receipt(1))
    const ids = await stored(org)
    expect(new Set(ids).size).toBe(3)
    expect(await counted(org)).toEqual([3, 3, 3])
  })
})

const send = (key: string, body: unknown, caller: Caller = {}, of = service) =>
  of.post(body, { ...caller, headers: { 'Idempotency-Key': key } })

describe('Idempotency-Key', () => {
  const batch = [event(undefined), event('named'), event(undefined, { cost: -1 }), event(undefined)]
  const answer = receipt(3, 0, [{ index: 2, message: expect.stringMatching(/cost/) }])

  test('the same request again gets the same answer, and its events are counted once', async () => {
    const org = fresh()
    const first = await send('key-1', batch, { org })
    expect([first.status, first.body]).toEqual([200, answer])
    for (let again = 0; again < 3; again++) {
      const { status, body } = await send('key-1', batch, { org })
      expect([status, body]).toEqual([200, first.body])
    }
    expect((await send('"key-1"', batch, { org })).body).toEqual(first.body)
    expect(await counted(org)).toEqual([3, 3, 3])
  })

  test('another body under the same key is a 422, and nothing of it is stored', async () => {
    const org = fresh()
    await send('key', [event('a')], { org })
    const { status, body } = await send('key', [event('b')], { org })
    expect([status, body.error.code]).toEqual([422, 'key_reused'])
    expect(await stored(org)).toEqual(['a'])
  })

  test('while the first request is under way, the second is a 409 that says when to come back', async () => {
    const org = fresh()
    const replies = await Promise.all([send('key', [event(undefined)], { org }), send('key', [event(undefined)], { org })])
    expect(replies.map(({ status }) => status).toSorted()).toEqual([200, 409])
    const conflict = replies.find(({ status }) => status === 409)
    expect([conflict?.body.error.code, conflict?.headers.get('Retry-After')]).toEqual(['in_progress', '1'])
    expect((await send('key', [event(undefined)], { org })).body).toEqual(receipt(1))
    expect(await counted(org)).toEqual([1, 1, 1])
  })

  test('is the tenant’s own', async () => {
    const [one, two] = [fresh(), fresh()]
    await send('key', [event('a')], { org: one })
    expect((await send('key', [event('b')], { org: two })).body).toEqual(receipt(1))
    expect([await stored(one), await stored(two)]).toEqual([['a'], ['b']])
  })

  test('a request that was refused does not use its key up', async () => {
    const org = fresh()
    expect((await send('key', 'no JSON', { org })).status).toBe(400)
    expect((await send('key', [], { org })).status).toBe(400)
    expect((await send('key', [event('a')], { org })).body).toEqual(receipt(1))
  })

  test('the answer outlives the service', async () => {
    let run = await startService({ now: NOW })
    const first = await send('key', batch, {}, run)
    await run.stop()
    run = await startService({ now: NOW, from: run })
    expect((await send('key', batch, {}, run)).body).toEqual(first.body)
    expect((await send('key', [event('b')], {}, run)).status).toBe(422)
    expect(await counted('acme', run)).toEqual([3, 3, 3])
    await run.close()
  })

  test('a key whose answer is long forgotten can be used for other events without ids', async () => {
    let run = await startService({ now: NOW })
    await send('nightly', [event(undefined), event(undefined)], {}, run)
    await run.deleteRows('answers', '1')
    await run.stop()
    run = await startService({ now: NOW, from: run })
    expect((await send('nightly', [event(undefined, { user: 'bob' })], {}, run)).body).toEqual(receipt(1))
    // The same events again, whose answer was lost, are still the same events.
    expect((await send('nightly-again', [event(undefined)], {}, run)).body).toEqual(receipt(1))
    await run.deleteRows('answers', '1')
    await run.stop()
    run = await startService({ now: NOW, from: run })
    expect((await send('nightly-again', [event(undefined)], {}, run)).body).toEqual(receipt(0, 1))
    expect(await counted('acme', run)).toEqual([4, 4, 4])
    await run.close()
  })

  test.each(['', ' ', 'x'.repeat(256), 'schlüssel', 'two words', '""', 'a\tb'])('%j is no key', async (key) => {
    const { status, body } = await send(key, [event('a')], { org: 'keyless' })
    expect([status, body.error.details]).toEqual([400, [{ parameter: 'Idempotency-Key', message: expect.any(String) }]])
  })
})

const many = (count: number) => Array.from({ length: count }, (_, index) => event(String(index)))

describe('limits', () => {
  test('10,000 events are a batch, one more is a 413 and none is stored', async () => {
    const org = fresh()
    const { status, body } = await service.post(many(10_001), { org })
    expect([status, body.error.code]).toEqual([413, 'too_many_events'])
    expect(await counted(org)).toEqual([0, 0, 0])
    expect((await service.post(many(10_000), { org })).body).toEqual(receipt(10_000))
    expect(await counted(org)).toEqual([10_000, 10_000, 10_000])
  })

  test('bad ones count: 10,001 lines of nonsense are a 413 as well', async () => {
    expect((await service.post('x\n'.repeat(10_001), { org: fresh(), headers: NDJSON })).status).toBe(413)
  })

  test('8 MiB are a body, one byte more is a 413', async () => {
    const org = fresh()
    const text = JSON.stringify([event('a')])
    const padded = (bytes: number) => text + ' '.repeat(bytes - text.length)
    expect((await service.post(padded(8 * 1_048_576), { org })).body).toEqual(receipt(1))
    const { status, body } = await service.post(padded(8 * 1_048_576 + 1), { org })
    expect([status, body.error.code]).toEqual([413, 'too_large'])
  })

  test('a body that unpacks to more is a 413, to exactly as much is none', async () => {
    const org = fresh()
    const bomb = gzipSync(Buffer.alloc(200 * 1_048_576, ' '))
    expect(bomb.length).toBeLessThan(300_000)
    expect((await service.post(bomb, { org, headers: GZIP })).status).toBe(413)
    const text = JSON.stringify([event('a')])
    expect((await service.post(gzipSync(text.padEnd(8 * 1_048_576)), { org, headers: GZIP })).body).toEqual(receipt(1))
    expect((await service.post(gzipSync(text.padEnd(8 * 1_048_576 + 1)), { org, headers: GZIP })).status).toBe(413)
  })
})

describe('bodies that cannot be read are a 400 that says why, and nothing of them is stored', () => {
  const json = JSON.stringify([event('a')])
  test.each<[string, string | Uint8Array, Record<string, string>]>([
    ['nothing', '', {}],
    ['no line', '', NDJSON],
    ['empty lines', '\n \n\r\n', NDJSON],
    ['an empty array', '[]', {}],
    ['half an array', json.slice(0, -1), {}],
    ['two arrays', json + json, {}],
    ['lines sent as an array', `${JSON.stringify(event('a'))}\n${JSON.stringify(event('b'))}`, {}],
    ['a comma too many', json.replace(']', ',]'), {}],
    ['single quotes', json.replaceAll('"', "'"), {}],
    ['no UTF-8', Buffer.from(json.replace('ann', 'ann\u00ff'), 'latin1'), {}],
    ['no UTF-8 on one line', Buffer.from(`${JSON.stringify(event('a'))}\n"\u00ff"`, 'latin1'), NDJSON],
    ['UTF-16', Buffer.from(json, 'utf16le'), {}],
    ['no gzip', json, GZIP],
    ['half a gzip', gzipSync(json).subarray(0, -12), GZIP],
    ['a gzip with a broken checksum', Buffer.concat([gzipSync(json).subarray(0, -8), Buffer.alloc(8)]), GZIP],
    ['gzip that is not announced', gzipSync(json), {}],
  ])('%s', async (_, body, headers) => {
    const org = 'unreadable'
    const reply = await service.post(body, { org, headers })
    expect([reply.status, reply.body.error.details]).toEqual([400, [{ parameter: 'body', message: expect.any(String) }]])
    expect(await counted(org)).toEqual([0, 0, 0])
  })
})

const narrow = (org: string): Caller => ({ org, assistants: ['Rex', 'Eve'] })

describe('what a token reaches', () => {
  test('events of other assistants are refused one by one', async () => {
    const org = fresh()
    const { body } = await service.post(
      [event('1'), event('2', { assistant: 'Ada' }), event('3', { assistant: 'Eve' })],
      narrow(org),
    )
    expect(body).toEqual(receipt(2, 0, [{ index: 1, message: 'the token does not reach this assistant' }]))
    expect(await stored(org)).toEqual(['1', '3'])
  })

  test('it reads the events of its own assistants alone, in every figure', async () => {
    const org = fresh()
    await service.store([event('1'), event('2', { assistant: 'Ada', user: 'bob' }), event('3', { assistant: 'Eve' })], {
      org,
    })
    const { data, pagination } = await service.whole('events', ALL, narrow(org))
    expect([data.map(({ id }: { id: string }) => id), pagination.total]).toEqual([['3', '1'], 2])
    const top = await service.data('users/top', ALL, narrow(org))
    expect(top.map(({ user }: { user: string }) => user)).toEqual(['ann'])
    expect((await service.whole('events', { ...ALL, assistant: 'Ada' }, narrow(org))).pagination.total).toBe(0)
    expect((await service.whole('events', { ...ALL, assistant: ['Ada', 'Eve'] }, narrow(org))).pagination.total).toBe(1)
  })

  test('reading does not allow writing, nor writing reading', async () => {
    expect((await service.post([event('a')], { org: 'x', scope: 'analytics:read' })).status).toBe(403)
    expect((await service.get('overview', {}, { org: 'x', scope: 'analytics:write' })).status).toBe(403)
  })
})

test('events of long ago, in spans that are summed up already, are counted once', async () => {
  const org = fresh()
  const at = ['2025-11-30T10:00:00.000Z', '2025-12-24T18:00:00.000Z', '2026-01-31T23:59:59.999Z']
  const batch = at.map((timestamp, index) => event(String(index), { timestamp, user: `user ${index % 2}` }))
  expect(service.seals.sealedUntil.every((until) => until > Date.parse('2025-12-25') / 1000)).toBe(true)
  await service.store(batch, { org })
  expect((await service.post(batch, { org })).body).toEqual(receipt(0, 3))
  expect(await counted(org)).toEqual([3, 3, 3])
  const { total, activeUsers, previous } = await service.data('rolling', { window: 90, endDate: '2026-03-01' }, { org })
  expect([total, activeUsers, previous.total]).toEqual([2, 2, 1])
})
