/** `npm run load` as a process of its own, against a service as another one, on a file with everything that goes wrong. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { loadLocalKey, signLocalToken } from '../../src/auth/local-key.ts'

const pathOf = (file: string) => fileURLToPath(new URL(`../../src/${file}`, import.meta.url))

let directory: string
let dataDir: string
const children = new Set<ChildProcess>()

/** Runs a file of src/ in an environment of its own. */
function start(file: string, args: string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, ['--import', 'tsx', pathOf(file), ...args], {
    env: { PATH: process.env['PATH'], DATA_DIR: dataDir, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  children.add(child)
  const output = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text))
  const ended = once(child, 'close').then(([code]) => {
    children.delete(child)
    return { code: code as number | null, ...output }
  })
  return { child, output, ended }
}

async function load(args: string[], { env = {}, input = '' }: { env?: Record<string, string>; input?: string } = {}) {
  const { child, ended } = start('commands/load/index.ts', args, env)
  child.stdin.end(input)
  return ended
}

/** Waits until something is there; a test that waits too long fails by its own limit. */
async function until<T>(find: () => T | undefined | Promise<T | undefined>): Promise<T> {
  for (;;) {
    const found = await find()
    if (found !== undefined) return found
    await sleep(10)
  }
}

/** Waits until the checkpoint of the only load under way says that so many lines are through. */
const untilLine = (count: number) =>
  until(async () => {
    for (const name of await readdir(join(dataDir, 'load')).catch(() => [])) {
      // The next state is written beside it, and may be cut off.
      if (!name.endsWith('.json')) continue
      const { lines: done } = JSON.parse(await readFile(join(dataDir, 'load', name), 'utf8').catch(() => '{}')) as {
        lines?: number
      }
      if (done !== undefined && done >= count) return done
    }
    return undefined
  })

/** The first numbers of the totals that a load prints. */
const totals = (stdout: string) =>
  Object.fromEntries(
    [...stdout.matchAll(/^(lines|accepted|duplicates|rejected) +([\d,]+)/gm)].map(([, name, count]) => [
      name,
      Number(count?.replaceAll(',', '')),
    ]),
  )

const START = Date.parse('2026-02-01T00:00:00.000Z')

/** Event number n as a line; `id` false leaves it to be made up. */
const line = (n: number, id = true) =>
  JSON.stringify({
    ...(id ? { id: `event-${n}` } : {}),
    eventType: ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted'][n % 4],
    timestamp: new Date(START + n * 60_000).toISOString(),
    assistant: `assistant-${n % 3}`,
    user: `user-${n % 50}`,
  })

const lines = (count: number) => Array.from({ length: count }, (_, n) => line(n))

async function write(name: string, content: string | Buffer): Promise<string> {
  const path = join(directory, name)
  await writeFile(path, content)
  return path
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'analytics-load-'))
  dataDir = join(directory, 'data')
})

afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  // An embedded ClickHouse follows its service; it may be writing until then.
  await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
})

describe('npm run load into a service', { timeout: 60_000 }, () => {
  let service: ReturnType<typeof start>
  let url: string

  async function startService(port = '0') {
    service = start('main.ts', [], { PORT: port, LOG_LEVEL: 'error' })
    const { output, ended } = service
    await Promise.race([
      until(() => (output.stdout.includes('export TOKEN=') ? true : undefined)),
      ended.then(({ stderr }) => Promise.reject(new Error(`the service ended: ${stderr}`))),
    ])
    url = /at (http:\S+)/.exec(output.stdout)?.[1] as string
  }

  beforeAll(() => startService(), 60_000)

  afterAll(async () => {
    service.child.kill('SIGTERM')
    await service.ended
  })

  /** How many events of a company the service counts. */
  async function stored(org: string): Promise<number> {
    const config = readConfig({ DATA_DIR: dataDir })
    const token = await signLocalToken(await loadLocalKey(dataDir), { org, scope: 'analytics:read' }, config)
    const response = await fetch(`${url}/analytics/events?startDate=2026-01-01&endDate=2027-01-01&limit=1`, {
      headers: { Authorization: `Bearer ${token}` },
    })
    return ((await response.json()) as { pagination: { total: number } }).pagination.total
  }

  it('stores every good line of a gzip file, tells the bad ones by line, and counts nothing twice', async () => {
    const content = [...lines(3_000), 'not JSON', '', line(3_001, false), ` ${line(3_002, false)}\r`]
    content[9] = '{"id":"x","eventType":"messages"}'
    content[1_234] = '  \t'
    const bytes = Buffer.concat([
      Buffer.from(`\uFEFF${content.join('\n')}\n`),
      Buffer.from([0x7b, 0xff, 0x7d, 10]),
      Buffer.from(`"${'x'.repeat(1_100_000)}"\n`),
      Buffer.from(line(3_003, false)),
    ])
    const file = await write('events.ndjson.gz', gzipSync(bytes))
    const rejects = join(directory, 'rejects.ndjson')
    const first = await load([file, '--url', url, '--org', 'gzip', '--batch', '700', '--rejects', rejects])
    expect(totals(first.stdout), first.stderr).toEqual({ lines: 3_005, accepted: 3_001, duplicates: 0, rejected: 4 })
    expect(first.code).toBe(1)
    expect(first.stdout).toContain('events.ndjson.gz:3001: is not JSON\n')
    const told = (await readFile(rejects, 'utf8'))
      .trimEnd()
      .split('\n')
      .map((text) => JSON.parse(text) as unknown)
    expect(told).toEqual([
      { file, line: 10, message: expect.stringContaining('eventType must be'), text: '{"id":"x","eventType":"messages"}' },
      { file, line: 3_001, message: 'is not JSON', text: 'not JSON' },
      { file, line: 3_005, message: 'is not UTF-8', text: '{\uFFFD}' },
      { file, line: 3_006, message: 'is longer than 1048576 bytes', text: null },
    ])
    expect(await stored('gzip')).toBe(3_001)

    // The same as plain text, in other batches: made-up ids must not depend on either.
    const plain = await write('events.ndjson', bytes)
    const second = await load([plain, '--url', url, '--org', 'gzip', '--connections', '4', '--rejects', rejects])
    expect(totals(second.stdout), second.stderr).toEqual({ lines: 3_005, accepted: 0, duplicates: 3_001, rejected: 4 })
    expect((await readFile(rejects, 'utf8')).trimEnd().split('\n')).toHaveLength(4)
    expect(await stored('gzip')).toBe(3_001)
  })

  it('exits 0 where every line is stored, from several files and standard input', async () => {
    const file = await write('good.ndjson', lines(20).join('\n'))
    const { code, stdout } = await load([file, '-', '--url', url, '--org', 'good'], { input: `${line(19)}\n${line(20)}\n` })
    expect({ code, ...totals(stdout) }).toEqual({ code: 0, lines: 22, accepted: 21, duplicates: 1, rejected: 0 })
    expect(await readdir(join(dataDir, 'load'))).toEqual([])
  })

  const slow = ['--batch', '100', '--connections', '1']

  it.each([
    ['SIGINT', 130],
    ['SIGKILL', null],
  ] as const)('goes on where it was after %s', async (signal, code) => {
    const file = await write(`resumed-${signal}.ndjson`, lines(3_000).join('\n'))
    const args = [file, '--url', url, '--org', signal]
    const { child, ended } = start('commands/load/index.ts', [...args, ...slow])
    await untilLine(500)
    child.kill(signal)
    const stopped = await ended
    expect(stopped.code).toBe(code)
    if (signal === 'SIGINT') expect(stopped.stderr).toContain('run the same command again to go on from there')

    const resumed = await load(args)
    expect(resumed.code, resumed.stderr).toBe(0)
    const after = /going on after line ([\d,]+)/.exec(resumed.stderr)?.[1]?.replace(',', '')
    expect(Number(after)).toBeGreaterThanOrEqual(500)
    expect(Number(after)).toBeLessThan(3_000)
    expect(resumed.stdout).toContain('of them in an earlier run')
    const { accepted, duplicates, ...rest } = totals(resumed.stdout)
    expect(rest).toEqual({ lines: 3_000, rejected: 0 })
    // What was under way when it was stopped may have been stored.
    expect(duplicates).toBeLessThanOrEqual(100)
    expect(accepted! + duplicates!).toBe(3_000)
    expect(await stored(signal)).toBe(3_000)

    const again = await load(args)
    expect(again.stderr).not.toContain('going on')
    expect(totals(again.stdout)).toEqual({ lines: 3_000, accepted: 0, duplicates: 3_000, rejected: 0 })
  })

  it('waits for a service that was killed and started again, and loses nothing', async () => {
    const file = await write('outage.ndjson', lines(3_000).join('\n'))
    const { ended } = start('commands/load/index.ts', [file, '--url', url, '--org', 'outage', ...slow])
    await untilLine(500)
    service.child.kill('SIGKILL')
    await service.ended
    await startService(new URL(url).port)
    const { code, stdout, stderr } = await ended
    expect(code, stderr).toBe(0)
    const { accepted, duplicates } = totals(stdout)
    expect(accepted! + duplicates!).toBe(3_000)
    expect(await stored('outage')).toBe(3_000)
  })

  it('says what may be wrong where the key of its DATA_DIR does not fit', async () => {
    const file = await write('one.ndjson', line(1))
    const { code, stderr } = await load([file, '--url', url], { env: { DATA_DIR: join(directory, 'other') } })
    expect(code).toBe(1)
    expect(stderr).toMatch(/answered 401: .* It may run on another DATA_DIR than this command: set DATA_DIR, or give --token\n/)
  })
})

describe('npm run load and what it is told', { timeout: 30_000 }, () => {
  let server: Server | undefined
  afterEach(() => server?.close())

  /** A server that answers as it likes; returns its address. */
  async function answering(listener: RequestListener): Promise<string> {
    server = createServer((request, response) => {
      request.resume().on('end', () => listener(request, response))
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  const receipt = JSON.stringify({ success: true, data: { accepted: 1, duplicates: 0, rejected: [] } })

  it('comes back when it is asked to, not before', async () => {
    const times: number[] = []
    const url = await answering(({ method }, response) => {
      if (method === 'HEAD') return response.end()
      times.push(performance.now())
      if (times.length > 2) return response.end(receipt)
      return response.writeHead(times.length === 1 ? 503 : 429, { 'Retry-After': '1' }).end('{}')
    })
    const { code, stdout } = await load([await write('one.ndjson', line(1)), '--url', url])
    expect({ code, ...totals(stdout) }).toEqual({ code: 0, lines: 1, accepted: 1, duplicates: 0, rejected: 0 })
    expect(times).toHaveLength(3)
    expect(times[1]! - times[0]!).toBeGreaterThanOrEqual(990)
    expect(times[2]! - times[1]!).toBeGreaterThanOrEqual(990)
  })

  it('gives up after its patience, with the last reason', async () => {
    const url = await answering((_, response) => response.writeHead(503).end('{"error":{"message":"Out of disk."}}'))
    const { code, stderr } = await load([await write('one.ndjson', line(1)), '--url', url, '--patience', '1'])
    expect(code).toBe(1)
    expect(stderr).toContain('the load failed: no progress for 1 s: the service answered 503: Out of disk\n')
  })

  it('never repeats what was refused for good', async () => {
    let posts = 0
    const url = await answering(({ method }, response) => {
      if (method === 'POST') posts++
      response.writeHead(403).end('{"error":{"message":"The token lacks analytics:write."}}')
    })
    const { code, stderr } = await load([await write('one.ndjson', line(1)), '--url', url])
    expect({ code, posts }).toEqual({ code: 1, posts: 1 })
    expect(stderr).toContain('the load failed: the service answered 403: The token lacks analytics:write\n')
  })

  it('is not fooled by something else at the address', async () => {
    const url = await answering((_, response) => response.end('<h1>It works!</h1>'))
    const { code, stderr } = await load([await write('one.ndjson', line(1)), '--url', url])
    expect(code).toBe(1)
    expect(stderr).toContain(`${url} answered 200: is it an AGNT Analytics service?`)
  })

  it('tells a damaged file from one that is through', async () => {
    const url = await answering((_, response) => response.end(receipt))
    const file = await write('cut.ndjson.gz', gzipSync(lines(5_000).join('\n')).subarray(0, 5_000))
    const { code, stderr } = await load([file, '--url', url])
    expect(code).toBe(1)
    expect(stderr).toMatch(/the load failed: \S+cut\.ndjson\.gz is damaged or cut off, after line [\d,]+\n/)
  })

  it('says how to start a service where there is none', async () => {
    const { code, stdout, stderr } = await load([await write('one.ndjson', line(1)), '--url', 'http://127.0.0.1:1'])
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toBe(
      'no service answers at http://127.0.0.1:1: start one with npm start in another terminal, or name another with --url\n',
    )
  })

  it('does not put events into another company than the token is for', async () => {
    const url = await answering((_, response) => response.end(receipt))
    const key = new TextEncoder().encode('x'.repeat(32))
    const token = await signLocalToken(key, { org: 'acme', scope: 'analytics:write' }, readConfig({}))
    const file = await write('one.ndjson', line(1))
    const { code, stderr } = await load([file, '--url', url, '--org', 'beta'], { env: { TOKEN: token } })
    expect(code).toBe(2)
    expect(stderr).toMatch(/^the token is for acme, not for beta\n\nusage: /)
    const given = await load([file, '--url', url], { env: { TOKEN: token } })
    expect(given.code).toBe(0)
    expect(given.stderr).toContain('for acme\n')
  })

  it('prints its usage when it is asked to', async () => {
    const { code, stdout } = await load(['--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^usage: npm run load -- FILE\.\.\./)
  })

  it.each([
    [[], 'a FILE is needed'],
    [['x', '--batch', '10001'], '--batch must be an integer from 1 to 10000'],
    [['x', '--retry'], "Unknown option '--retry'"],
  ])('exits 2 with its usage for %j', async (args, message) => {
    const { code, stdout, stderr } = await load(args)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr.startsWith(message)).toBe(true)
    expect(stderr).toContain('\n\nusage: npm run load -- FILE...')
  })
})
