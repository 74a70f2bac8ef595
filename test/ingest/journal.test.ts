/** The journal: what was written is read back, and what is damaged is set aside and keeps nothing else from being stored. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Journal, type Insert } from '../../src/ingest/journal.ts'
import type { Log } from '../../src/log.ts'
import { startService, type TestService } from '../support.ts'
import { someEvents } from './events.ts'

vi.setConfig({ testTimeout: 120_000 })

const INSERTS: Insert[] = [
  { token: 'a-token', table: 'events', rows: '["first","Zoë"]\n["second",2]' },
  { token: 'a-token', table: 'answers', rows: '["answer"]' },
]
const WHOLE: Insert[] = [{ token: 'whole', table: 'events', rows: '["another"]' }]

let dataDir: string
let messages: Array<Record<string, unknown>>
const log: Log = (level, message, fields) => void messages.push({ level, message, ...fields })

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'analytics-journal-'))
  messages = []
})
afterEach(() => rm(dataDir, { recursive: true, force: true }))

const directory = () => join(dataDir, 'journal')
const quarantined = () => readdir(join(directory(), 'quarantine')).catch(() => [])

/** An entry that is written, and its bytes. */
async function written() {
  const journal = await Journal.open(dataDir, { log })
  const { name } = await journal.write(INSERTS)
  return { journal, name, path: join(directory(), name), bytes: await readFile(join(directory(), name)) }
}

test('entries are read back in the order they were written', async () => {
  const { journal, name } = await written()
  await new Promise((done) => setTimeout(done, 2))
  const whole = await journal.write(WHOLE)
  expect(await journal.pending()).toEqual([
    { name, inserts: INSERTS },
    { name: whole.name, inserts: WHOLE },
  ])
  await journal.remove(name)
  expect(await journal.pending()).toEqual([{ name: whole.name, inserts: WHOLE }])
  expect(messages).toEqual([])
})

describe('an entry', () => {
  test('that is cut off at any byte, empty included, is set aside and the others are read', async () => {
    const { journal, name, path, bytes } = await written()
    const whole = await journal.write(WHOLE)
    for (let length = 0; length < bytes.length; length++) {
      await writeFile(path, bytes.subarray(0, length))
      messages = []
      expect(await journal.pending(), `cut to ${length}`).toEqual([{ name: whole.name, inserts: WHOLE }])
      expect(messages).toMatchObject([{ level: 'error', file: path, reason: expect.stringMatching(/^it /) as string }])
      const [aside = ''] = await quarantined()
      expect(aside.startsWith(name)).toBe(true)
      expect(await readFile(join(directory(), 'quarantine', aside))).toEqual(bytes.subarray(0, length))
      await rm(join(directory(), 'quarantine', aside))
    }
  })

  test('with any flipped bit is set aside', async () => {
    const { journal, path, bytes } = await written()
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7))
      await writeFile(path, flipped)
      expect(await journal.pending(), `bit ${bit}`).toEqual([])
    }
    expect(messages).toHaveLength(bytes.length * 8)
  })

  test.each<[what: string, damaged: (bytes: Buffer) => Buffer]>([
    ['of zeros', (bytes) => Buffer.alloc(bytes.length)],
    [
      'with zeros at its end, as pages that were never written',
      (bytes) => Buffer.concat([bytes.subarray(0, 40), Buffer.alloc(bytes.length - 40)]),
    ],
    ['of something else', () => Buffer.from('%PDF-1.7 and so on')],
    [
      'of an older build, without a checksum',
      () => Buffer.from('{"inserts":[{"token":"t","table":"events","lines":1}]}\n["row"]'),
    ],
    ['with more at its end', (bytes) => Buffer.concat([bytes, Buffer.from('x')])],
    ['twice in one file', (bytes) => Buffer.concat([bytes, bytes])],
  ])('%s is set aside with a message that names it', async (_, damaged) => {
    const { journal, name, path, bytes } = await written()
    await writeFile(path, damaged(bytes))
    expect(await journal.pending()).toEqual([])
    expect(messages).toMatchObject([{ level: 'error', file: path }])
    expect(await quarantined()).toHaveLength(1)
    // Said once: the next start has nothing to say.
    messages = []
    expect(await (await Journal.open(dataDir, { log })).pending()).toEqual([])
    expect(messages).toEqual([])
    expect((await quarantined())[0]).toContain(name)
  })

  test('that is a directory is set aside; half-written files are removed', async () => {
    const { journal, path } = await written()
    await rm(path)
    await mkdir(path)
    await writeFile(join(directory(), '1-x.json.part'), 'half')
    await mkdir(join(directory(), '2-y.json.part'))
    expect(await journal.pending()).toEqual([])
    expect((await readdir(directory())).filter((file) => file !== 'quarantine')).toEqual([])
    expect(messages).toHaveLength(2)
  })
})

describe('a service', () => {
  let service: TestService
  const NOW = '2026-03-01T12:00:00.000Z'

  test('starts on damaged entries and entries that cannot be stored, and stores events', async () => {
    service = await startService({ now: NOW })
    try {
      const { database, dataDir: ofService } = service
      await service.stop()
      const journal = await Journal.open(ofService)
      await writeFile(join(ofService, 'journal', '1-empty.json'), '')
      await writeFile(join(ofService, 'journal', '2-zeros.json'), Buffer.alloc(500))
      // Whole, and yet nothing that can be stored: rows that are no JSON, and rows that ClickHouse does not take.
      await journal.write([{ token: 'no-json', table: 'events', rows: '["cut' }])
      await journal.write([{ token: 'no-event', table: 'events', rows: '["acme"]' }])
      await journal.write([
        {
          token: 'no-row',
          table: 'events',
          rows: '["00000000-0000-0000-0000-000000000001","2026-02-01 00:00:00.000","an id","no type"]',
        },
      ])
      await journal.write([{ token: 'no-answer', table: 'answers', rows: '["acme"]' }])
      await journal.write([{ token: 'no-table', table: 'nothing' as 'events', rows: '["acme"]' }])
      service = await startService({ now: NOW, from: { database, dataDir: ofService } })
      expect((await readdir(join(ofService, 'journal', 'quarantine'))).length).toBe(7)
      expect(await readdir(join(ofService, 'journal'))).toEqual(['quarantine'])
      const said = service.logged.filter(({ message }) => message.includes('was set aside'))
      expect(said).toHaveLength(7)
      await service.store(someEvents({ count: 10, from: '2026-02-01', to: '2026-03-01', seed: 1 }))
      expect(await service.rows('SELECT toUInt32(count()) AS n FROM events')).toEqual([{ n: 10 }])
    } finally {
      await service.close()
    }
  })
})
