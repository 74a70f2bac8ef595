/** Requests nobody sends by mistake, generated: hostile text in every place that a request has. */
import { deflateSync, gzipSync } from 'node:zlib'
import * as fc from 'fast-check'

export interface Attack {
  method: string
  /** Path and query as they go over the wire. */
  url: string
  headers: Record<string, string>
  body?: Uint8Array | string
}

export const PATHS = ['overview', 'metrics', 'rolling', 'events', 'assistants', 'users/top', 'snapshots'] as const
export type Path = (typeof PATHS)[number]

/** Text that has broken something somewhere. */
export const FRAGMENTS = [
  "' OR 1=1 --",
  "'; DROP TABLE events; --",
  "') UNION ALL SELECT name, 1 FROM system.tables --",
  "\\'; SELECT sleep(3); --",
  '" OR ""="',
  '`events`',
  '{x:String}',
  '{tenant:UUID}',
  "{at:DateTime64(3, 'UTC')}",
  '{{7*7}}',
  '${7*7}',
  '%{x}',
  "'\\''",
  "\\\\' OR 1 --",
  '\\',
  "\\'",
  '\\N',
  '\\x27',
  '\\0',
  "''",
  '"',
  "a','b",
  "['a']",
  '(1,2)',
  '1) FORMAT JSON',
  '/* */',
  '-- ',
  '#',
  ';',
  '&amp;',
  '&a=b',
  '?x=1#y',
  '%27',
  '%00',
  '%2527',
  '%',
  '+',
  '\t',
  '\n',
  '\r\nX-Injected: 1',
  '\u0001\u001b[31m',
  '\u007f',
  ' ',
  ' leading and trailing ',
  '..',
  '../../etc/passwd',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'NULL',
  'null',
  'undefined',
  'true',
  'NaN',
  '-0',
  '0',
  '1e309',
  '0x7fffffff',
  '18446744073709551616',
  '\u202eabc\u202c',
  'א\u05b0ב',
  'مرحبا',
  'é',
  'e\u0301',
  'Z\u0351\u036b\u0343a\u0363l\u0368g\u0322o',
  '👩‍👩‍👧‍👦',
  '🏳️‍🌈',
  '\u{1f600}'.repeat(64),
  '\ufeff',
  '\ufffd',
  '\ufffe',
  '\u2028\u2029',
  '\u00a0',
  '\u200b',
  'ﬀ',
  'İi',
  'ß',
  '𝟙',
  '<script>alert(1)</script>',
  '=cmd|"/C calc"!A0',
  '$(id)',
  '`id`',
  '() { :; }; echo',
  '%s%s%n',
  'x'.repeat(256),
  "'".repeat(256),
  '\\'.repeat(256),
  'ü'.repeat(256),
]

const NUMBERS = [
  '-1',
  '0',
  '00',
  '1.5',
  '1e3',
  '1e309',
  ' 7',
  '7 ',
  '+7',
  '0x10',
  '١٢',
  '７',
  '1_000',
  '2147483648',
  '9007199254740991',
  '9007199254740993',
  '18446744073709551616',
  '9'.repeat(400),
  'Infinity',
  'NaN',
  '',
]

const DATES = [
  '2026-02-30',
  '2026-02-29',
  '0000-00-00',
  '1969-12-31T23:59:59.999Z',
  '2100-01-01',
  '9999-12-31T23:59:59Z',
  '+275760-09-13T00:00:00Z',
  '-000001-01-01',
  '2026-02-01T25:00',
  '2026-02-01T00:00:60Z',
  '2026-02-01T00:00+99:99',
  '2026-02-01 00:00',
  '2026-02-01T00:00:00.0000001Z',
  '20260201',
  'yesterday',
  'now()',
  "2026-02-01' OR 1=1",
]

const ZONES = [
  'UTC',
  'utc',
  'Europe/Berlin',
  '../../etc/localtime',
  'UTC\0',
  'PST',
  '+05:45',
  'Etc/GMT+14',
  'posix/UTC',
  'x'.repeat(65),
]

const RIGHT: Record<string, string[]> = {
  startDate: ['2026-02-01', '2026-02-20T10:00', '2026-02-10T03:07:41.123Z'],
  endDate: ['2026-03-01', '2026-02-26T10:00', '2026-02-25T03:07:41.123Z'],
  period: ['day', 'week', 'month'],
  window: ['1', '7', '90'],
  hours: ['1', '24', '168'],
  limit: ['1', '50', '1000'],
  skip: ['0', '3'],
  eventType: ['incomingMessages', 'tasksCompleted'],
  format: ['json', 'ndjson', 'csv', 'parquet'],
  timezone: ZONES,
  cursor: [],
  assistant: ['a'],
  user: ['u'],
}
export const NAMES = Object.keys(RIGHT)

const STRANGE_NAMES = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'hasOwnProperty',
  'assistant[]',
  'assistant[0]',
  'user[$ne]',
  'user.name',
  'Assistant',
  'asistant',
  'tenant',
  'org',
  '',
  ' ',
  '\0',
  'startDate\0',
  'limit ',
  '🦊',
  "a'b",
  'x'.repeat(5_000),
]

/** Bytes of a text; a lone surrogate becomes the three bytes it would be, which are no UTF-8. */
function bytesOf(text: string): Buffer {
  const parts: Buffer[] = []
  for (const character of text) {
    const code = character.codePointAt(0) as number
    const lone = code >= 0xd800 && code <= 0xdfff
    parts.push(lone ? Buffer.from([0xed, 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)]) : Buffer.from(character))
  }
  return Buffer.concat(parts)
}

const UNRESERVED = /[\w.~-]/
export const escaped = (text: string): string =>
  [...bytesOf(text)]
    .map((byte) => {
      const character = String.fromCharCode(byte)
      return UNRESERVED.test(character) ? character : `%${byte.toString(16).padStart(2, '0')}`
    })
    .join('')

export const queryOf = (pairs: ReadonlyArray<readonly [string, string]>): string =>
  pairs.map(([name, value]) => `${escaped(name)}=${escaped(value)}`).join('&')

/** Any text: fragments, mixtures of them, everything that Unicode has, lone surrogates, NUL. */
export const text: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...FRAGMENTS) },
  {
    weight: 3,
    arbitrary: fc.array(fc.constantFrom(...FRAGMENTS), { minLength: 2, maxLength: 4 }).map((parts) => parts.join('')),
  },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 40 }) },
  { weight: 1, arbitrary: fc.string({ unit: 'grapheme', maxLength: 40 }) },
  {
    weight: 1,
    arbitrary: fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 }).map((units) => String.fromCharCode(...units)),
  },
  { weight: 1, arbitrary: fc.constantFrom('\0', 'a\0b', 'x'.repeat(257), '👩'.repeat(129), 'x'.repeat(9_000)) },
)

/** A text that may be the id of something: 1 to 256 UTF-16 units, no NUL, no lone surrogate. */
export const isId = (id: string) => id.length >= 1 && id.length <= 256 && !id.includes('\0') && id.isWellFormed()
export const id = text.map((given) => given.slice(0, 256)).filter(isId)

const valueOf = (name: string): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: 2, arbitrary: fc.constantFrom(...(RIGHT[name]?.length ? RIGHT[name] : ['x'])) },
    { weight: 3, arbitrary: text },
    { weight: 2, arbitrary: fc.constantFrom(...NUMBERS) },
    { weight: 2, arbitrary: fc.constantFrom(...DATES) },
    {
      weight: 1,
      arbitrary: fc.tuple(fc.constantFrom<unknown>(0, 1e12, -1, 1e300, null, 'x', 2 ** 42), text).map(cursorOf),
    },
  )

export const cursorOf = (position: readonly unknown[]) => Buffer.from(JSON.stringify(position)).toString('base64url')

const parameter: fc.Arbitrary<[string, string]> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.constantFrom(...NAMES).chain((name) => valueOf(name).map((value): [string, string] => [name, value])),
  },
  { weight: 1, arbitrary: fc.tuple(fc.oneof(fc.constantFrom(...STRANGE_NAMES), text), text) },
)

const RAW_QUERIES = [
  '?',
  '??',
  '&&&&',
  '====',
  '=',
  '%',
  '%zz=1',
  'assistant=%ED%A0%80',
  'assistant=%C0%AF',
  'assistant=%ff%fe',
  'assistant=%00',
  'assistant=a%00b',
  'assistant[]=a&assistant[]=b',
  'assistant=a;user=b',
  'limit=1&limit=2',
  'period=day&period=day',
  '__proto__[x]=1&constructor.prototype.x=1',
  `${'a=b&'.repeat(3_000)}`,
  `assistant=${'x'.repeat(60_000)}`,
  Array.from({ length: 101 }, (_, n) => `assistant=${n}`).join('&'),
  Array.from({ length: 3_000 }, (_, n) => `p${n}=`).join('&'),
]

const get = (path: string, query: string, headers: Record<string, string> = {}): Attack => ({
  method: 'GET',
  url: `/analytics/${path}?${query}`,
  headers,
})

const query = fc
  .record({
    path: fc.constantFrom(...PATHS),
    pairs: fc.array(parameter, { minLength: 1, maxLength: 5 }),
    head: fc.nat(20),
  })
  .map(({ path, pairs, head }): Attack => ({ ...get(path, queryOf(pairs)), method: head === 0 ? 'HEAD' : 'GET' }))

const NEEDED: Record<Path, Array<[string, string]>> = {
  overview: [],
  metrics: [
    ['period', 'week'],
    ['startDate', '2026-02-01'],
    ['endDate', '2026-02-20'],
  ],
  rolling: [],
  events: [
    ['startDate', '2026-02-01'],
    ['endDate', '2026-02-20'],
  ],
  assistants: [
    ['startDate', '2026-02-01'],
    ['endDate', '2026-02-20'],
  ],
  'users/top': [
    ['startDate', '2026-02-01'],
    ['endDate', '2026-02-20'],
  ],
  snapshots: [
    ['startDate', '2026-02-01'],
    ['endDate', '2026-02-20'],
  ],
}

/** Proper but for hostile ids, or a hostile position in a cursor: this gets as far as ClickHouse. */
const lookUp = fc
  .record({
    path: fc.constantFrom(...PATHS),
    ids: fc.array(fc.tuple(fc.constantFrom('assistant', 'user'), text), { minLength: 1, maxLength: 3 }),
    position: fc.tuple(fc.nat(2 ** 31), text),
    pages: fc.nat(3),
  })
  .map(({ path, ids, position, pages }) =>
    pages === 0
      ? get('events', queryOf([...NEEDED.events, ['cursor', cursorOf(position)]]))
      : get(path, queryOf([...NEEDED[path], ...ids])),
  )

const rawQuery = fc
  .record({
    path: fc.constantFrom(...PATHS),
    raw: fc.array(fc.oneof(fc.constantFrom(...RAW_QUERIES), printable(60)), { minLength: 1, maxLength: 3 }),
  })
  .map(({ path, raw }) => get(path, raw.join('&')))

/** ASCII that a URL or a header can hold as it is. */
function printable(maxLength: number): fc.Arbitrary<string> {
  const code = fc.integer({ min: 0x21, max: 0x7e })
  return fc.array(code, { maxLength }).map((codes) => String.fromCharCode(...codes))
}

const address = fc
  .record({
    method: fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'FOO'),
    path: fc.oneof(
      fc.constantFrom(
        '/',
        '//',
        '/analytics',
        '/analytics/',
        '/analytics/overview/',
        '/analytics//overview',
        '/analytics/%6fverview',
        '/analytics/OVERVIEW',
        '/analytics/users/top/..',
        '/analytics/../health/live',
        '/analytics/users%2ftop',
        '/analytics/overview%00',
        '/operations/reconcile',
        '/operations/reconcile?repair=true',
        '/health/live',
        `/${'a'.repeat(8_000)}`,
      ),
      printable(40).map((path) => `/${path}`),
      fc.tuple(fc.constantFrom(...PATHS), text).map(([path, more]) => `/analytics/${path}/${escaped(more)}`),
    ),
  })
  .map(({ method, path }): Attack => ({ method, url: path, headers: {} }))

/** What a header can hold: Latin-1 without line ends and NUL. */
const headerText = fc
  .oneof(
    text,
    fc.constantFrom(
      'gzip, br;q=0',
      '*/*;q=0',
      'text/csv;q=2',
      'a'.repeat(9_000),
      ',,,,',
      '"',
      'W/"x", *',
      'application/json, text/csv',
    ),
  )
  .map((given) =>
    Buffer.from(given)
      .toString('latin1')
      .replaceAll(/[\0\r\n]/g, '')
      .trim(),
  )

const HEADERS = [
  'Accept',
  'Authorization',
  'If-None-Match',
  'X-Request-Id',
  'Origin',
  'Cookie',
  'Content-Type',
  'Host',
  'X-Forwarded-For',
]

const header = fc
  .record({
    path: fc.constantFrom('overview', 'snapshots', 'events'),
    name: fc.constantFrom(...HEADERS),
    value: headerText,
    cheap: fc.nat(9),
  })
  .map(({ path, name, value, cheap }) =>
    get(path, cheap === 0 && path !== 'overview' ? 'startDate=2026-02-01&endDate=2026-02-20' : 'limit=x', {
      [name]: value,
    }),
  )

/** Tokens that are nearly one; `TOKEN` stands for a good one. */
const token = fc
  .oneof(
    fc.constantFrom(
      'Bearer',
      'Bearer ',
      'bearer TOKEN.',
      'Bearer TOKENx',
      'Basic TOKEN',
      'Bearer TOKEN TOKEN',
      'Bearer ..',
      'Bearer a.b.c',
    ),
    fc
      .constantFrom('none', 'None', 'HS256', 'RS256', '')
      .map((alg) => `Bearer ${jwt({ alg, typ: 'JWT' }, { org: 'acme', exp: 9e9 })}`),
    fc.jsonValue().map((payload) => `Bearer ${jwt({ alg: 'HS256' }, payload)}`),
    headerText.map((value) => `Bearer ${value}`),
    fc.constant(`Bearer ${'a'.repeat(9_000)}`),
  )
  .map((Authorization): Attack => get('overview', '', { Authorization }))

const jwt = (head: unknown, payload: unknown) =>
  [head, payload].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.') + '.c2lnbmF0dXJl'

const EVENT = {
  eventType: 'incomingMessages',
  timestamp: '2026-02-20T10:00:00.000Z',
  assistant: 'a',
  user: 'u',
}

/** Anything JSON can say, as text, so that it can say it more than one way. */
const json = fc.oneof(
  text.map((given) => JSON.stringify(given)),
  fc.json({ maxDepth: 3, noUnicodeString: false } as fc.JsonSharedConstraints),
  fc.constantFrom(
    '1e999',
    '-0',
    '1E400',
    '9007199254740993',
    '1.0000000000000000001',
    '[[]]',
    '{"__proto__":{"x":1}}',
    '"\\ud800"',
    '"\\u0000"',
    'null',
  ),
)

const FIELDS = [
  'id',
  'eventType',
  'timestamp',
  'assistant',
  'user',
  'cost',
  'inputTokens',
  'outputTokens',
  'model',
  'traceId',
  'metadata',
]

/** A proper event but for one field or two, which may also come twice or be no field at all. */
const eventText = fc
  .array(fc.tuple(fc.oneof(fc.constantFrom(...FIELDS), fc.constantFrom('__proto__', 'constructor', 'tenant'), text), json), {
    minLength: 1,
    maxLength: 2,
  })
  .map((odd) => {
    const proper = Object.entries(EVENT).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`)
    return `{${[...proper, ...odd.map(([name, value]) => `${JSON.stringify(name)}:${value}`)].join(',')}}`
  })

const JSON_TYPE = { 'Content-Type': 'application/json' }
const LINES_TYPE = { 'Content-Type': 'application/x-ndjson' }
const GZIP = { ...JSON_TYPE, 'Content-Encoding': 'gzip' }
const one = JSON.stringify([EVENT])
const MEBIBYTE = 1_048_576

/** Costly to make, and some to read: made once. */
const BODIES: Array<Pick<Attack, 'headers' | 'body'>> = [
  { headers: JSON_TYPE, body: '' },
  { headers: JSON_TYPE, body: '[]' },
  { headers: JSON_TYPE, body: 'null' },
  { headers: JSON_TYPE, body: '\ufeff[]' },
  { headers: JSON_TYPE, body: '['.repeat(100_000) },
  { headers: JSON_TYPE, body: '['.repeat(50_000) + ']'.repeat(50_000) },
  { headers: JSON_TYPE, body: `[{"metadata":${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}}]` },
  { headers: JSON_TYPE, body: `[${one.slice(1, -2)},"metadata":${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}}]` },
  { headers: JSON_TYPE, body: `[${Array.from({ length: 10_001 }, () => '{}').join(',')}]` },
  { headers: JSON_TYPE, body: `[{${Array.from({ length: 20_000 }, (_, n) => `"k${n}":1`).join(',')}}]` },
  { headers: JSON_TYPE, body: Buffer.from([0x5b, 0x22, 0xff, 0xfe, 0x22, 0x5d]) },
  { headers: LINES_TYPE, body: '\n\n \n' },
  { headers: LINES_TYPE, body: '{"a":1}\nnot json\n[]\n"x"\n' },
  { headers: LINES_TYPE, body: '\r'.repeat(10_000) },
  { headers: LINES_TYPE, body: Buffer.from([0x7b, 0xc3, 0x28, 0x7d]) },
  { headers: GZIP, body: one },
  { headers: GZIP, body: '' },
  { headers: GZIP, body: gzipSync(one).subarray(0, 20) },
  { headers: GZIP, body: Buffer.concat([gzipSync('[]'), Buffer.from('garbage')]) },
  { headers: GZIP, body: deflateSync(one) },
  { headers: GZIP, body: gzipSync(gzipSync(one)) },
  { headers: { ...GZIP, 'Content-Encoding': 'gzip, gzip' }, body: gzipSync(gzipSync(one)) },
  { headers: { ...GZIP, 'Content-Encoding': 'br' }, body: 'x' },
  { headers: { 'Content-Type': 'application/json; charset=utf-16' }, body: Buffer.from(one, 'utf16le') },
  { headers: { 'Content-Type': 'multipart/form-data; boundary=x' }, body: '--x\r\n\r\n--x--' },
  { headers: { 'Content-Type': 'application/x-www-form-urlencoded' }, body: 'eventType=x' },
  { headers: {}, body: one },
]

/** Large ones, which come now and then. */
const BOMBS: Array<Pick<Attack, 'headers' | 'body'>> = [
  { headers: GZIP, body: gzipSync(Buffer.alloc(64 * MEBIBYTE, 32), { level: 9 }) },
  { headers: GZIP, body: gzipSync(gzipSync(Buffer.alloc(64 * MEBIBYTE, 91), { level: 9 })) },
  { headers: { ...JSON_TYPE, 'Content-Length': String(2 ** 53) }, body: '[' },
  { headers: JSON_TYPE, body: Buffer.alloc(8 * MEBIBYTE + 1, 32) },
  { headers: JSON_TYPE, body: Buffer.alloc(2 * MEBIBYTE, 91) },
]

const post = (parts: Pick<Attack, 'headers' | 'body'>): Attack => ({
  method: 'POST',
  url: '/analytics/events',
  ...parts,
})

const body = fc.oneof(
  {
    weight: 20,
    arbitrary: fc
      .array(eventText, { minLength: 1, maxLength: 3 })
      .map((events) => post({ headers: JSON_TYPE, body: `[${events.join(',')}]` })),
  },
  {
    weight: 10,
    arbitrary: fc
      .array(fc.oneof(eventText, json, text), { maxLength: 4 })
      .map((lines) => post({ headers: LINES_TYPE, body: bytesOf(lines.join('\n')) })),
  },
  { weight: 10, arbitrary: json.map((value) => post({ headers: JSON_TYPE, body: value })) },
  {
    weight: 10,
    arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes) => post({ headers: JSON_TYPE, body: bytes })),
  },
  { weight: 5, arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes) => post({ headers: GZIP, body: bytes })) },
  {
    weight: 5,
    arbitrary: fc
      .nat(gzipSync(one).length)
      .map((at) => post({ headers: GZIP, body: gzipSync(one).map((byte, n) => (n === at ? byte ^ 0x55 : byte)) })),
  },
  { weight: 20, arbitrary: fc.constantFrom(...BODIES).map(post) },
  {
    weight: 5,
    arbitrary: headerText.map((key) => post({ headers: { ...JSON_TYPE, 'Idempotency-Key': key }, body: '[{}]' })),
  },
  {
    weight: 5,
    arbitrary: headerText.map((type) => post({ headers: { 'Content-Type': type, 'Content-Encoding': type }, body: one })),
  },
  { weight: 1, arbitrary: fc.constantFrom(...BOMBS).map(post) },
)

/** Mostly refused before ClickHouse is asked, so that there can be many. */
export const attack: fc.Arbitrary<Attack> = fc.oneof(
  { weight: 32, arbitrary: query },
  { weight: 8, arbitrary: lookUp },
  { weight: 14, arbitrary: rawQuery },
  { weight: 8, arbitrary: address },
  { weight: 10, arbitrary: header },
  { weight: 4, arbitrary: token },
  { weight: 16, arbitrary: body },
)
