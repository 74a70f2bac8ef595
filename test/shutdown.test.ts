/**
 * The service as a process, told to stop while posts, questions and an export are under way: every request that was let
 * in gets a whole answer, and every event that was acknowledged is there after the next start.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { authorization } from './tokens.ts'
import { loadLocalKey } from '../src/auth/local-key.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href
const EXPORTED = 60_000

let dataDir: string
const processes: ChildProcess[] = []
beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'analytics-shutdown-'))
})
afterAll(async () => {
  for (const child of processes) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
  await rm(dataDir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 })
})

/** Starts a service on a port of its choice, and resolves when it is ready. */
async function start(settings: Record<string, string> = {}) {
  const { PATH, HOME, TMPDIR } = process.env
  const child = spawn(process.execPath, ['--import', TSX, 'src/main.ts'], {
    cwd: ROOT,
    env: { PATH, HOME, TMPDIR, DATA_DIR: dataDir, PORT: '0', LOG_LEVEL: 'info', SELF_CHECK_MINUTES: '0', ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  processes.push(child)
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text))
  const ended = new Promise<string>((resolve) => child.once('exit', (code, signal) => resolve(signal ?? String(code))))
  const url = await new Promise<string>((resolve, reject) => {
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      const [, found] = /ready at (\S+)/.exec(text) ?? []
      if (found) resolve(found)
    })
    void ended.then((how) => reject(new Error(`it ended (${how}) before it was ready: ${log}`)))
  })
  const localKey = await loadLocalKey(dataDir)
  const headers = { Authorization: await authorization({ localKey }) }
  return {
    url,
    ended,
    log: () => log,
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    running: () => child.exitCode === null && child.signalCode === null,
    get: (path: string, init: RequestInit = {}) => fetch(`${url}${path}`, { headers, ...init }),
    post: (events: readonly object[]) =>
      fetch(`${url}/analytics/events`, {
        method: 'POST',
        headers: { ...headers, 'Content-Type': 'application/json' },
        body: JSON.stringify(events),
      }),
  }
}

const RANGE = 'startDate=2026-02-01&endDate=2026-02-02'
const event = (id: string) => ({
  id,
  eventType: 'incomingMessages',
  timestamp: '2026-02-01T10:00:00Z',
  assistant: 'support',
  user: 'u',
  model: 'a model with a name that makes the export long enough to be under way for a while',
})

test('SIGTERM: readiness first, then whole answers, then nothing is lost', { timeout: 120_000 }, async () => {
  const service = await start({ DRAIN_DELAY_SECONDS: '1', RATE_LIMIT_PER_SECOND: '100000' })
  const acknowledged = new Set<string>()
  for (let at = 0; at < EXPORTED; at += 10_000) {
    const events = Array.from({ length: 10_000 }, (_, i) => event(`before ${at + i}`))
    expect((await service.post(events)).status).toBe(200)
    for (const { id } of events) acknowledged.add(id)
  }

  // An export whose reader is in no hurry: it is still being sent when the signal comes.
  const exported = await service.get(`/analytics/events?${RANGE}&format=csv`)
  const reader = (exported.body as ReadableStream<Uint8Array>).getReader()
  const first = await reader.read()
  let lines =
    Buffer.from(first.value ?? [])
      .toString()
      .split('\n').length - 1

  const outcomes: string[] = []
  /** Posts until nobody takes any more. */
  const writer = async (name: number) => {
    for (let n = 0; ; n++) {
      const events = Array.from({ length: 20 }, (_, i) => event(`writer ${name} ${n} ${i}`))
      const response = await service.post(events).catch(() => null)
      if (!response) return
      const body = (await response.json()) as { data?: { accepted: number } }
      outcomes.push(`${response.status}`)
      if (response.status === 200) {
        expect(body.data?.accepted).toBe(20)
        for (const { id } of events) acknowledged.add(id)
      }
    }
  }
  const asker = async () => {
    for (;;) {
      const response = await service.get(`/analytics/metrics?period=day&${RANGE}`).catch(() => null)
      if (!response) return
      const body = (await response.json()) as { success: boolean }
      outcomes.push(`${response.status} ${body.success}`)
    }
  }
  const probe = async () => {
    const seen: string[] = []
    for (;;) {
      const response = await service.get('/health/ready').catch(() => null)
      if (!response) return seen
      const { status } = (await response.json()) as { status: string }
      if (seen.at(-1) !== `${response.status} ${status}`) seen.push(`${response.status} ${status}`)
      await sleep(50)
    }
  }
  const busy = [writer(1), writer(2), writer(3), asker()]
  const probed = probe()
  await sleep(1_000)
  service.kill('SIGTERM')
  await sleep(300)
  // Whoever reads slowly has the time of the drain.
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    lines += Buffer.from(next.value).toString().split('\n').length - 1
    await sleep(5)
  }
  await Promise.all(busy)
  expect(await service.ended).toBe('0')
  expect(await probed).toEqual(['200 ok', '503 draining'])
  expect(new Set(outcomes)).toEqual(new Set(['200', '200 true']))
  // A line of names, and all that was stored when it began.
  expect(lines).toBe(EXPORTED + 1)
  expect(service.log()).not.toMatch(/"level":"(warn|error)"/)

  const again = await start()
  const response = await again.get(`/analytics/events?${RANGE}&format=ndjson`)
  const stored = (await response.text())
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { id: string }).id)
  const ids = new Set(stored)
  expect(stored).toHaveLength(ids.size)
  expect([...acknowledged].filter((id) => !ids.has(id))).toEqual([])
  expect(acknowledged.size).toBeGreaterThan(EXPORTED)

  // A second signal does not wait for anything; one that follows at once is the first one, handed on by tsx.
  const hanging = await again.get(`/analytics/events?${RANGE}&format=csv`)
  await (hanging.body as ReadableStream<Uint8Array>).getReader().read()
  again.kill('SIGTERM')
  await sleep(100)
  again.kill('SIGTERM')
  await sleep(900)
  expect(again.running()).toBe(true)
  again.kill('SIGTERM')
  const waited = performance.now()
  expect(await again.ended).toBe('143')
  expect(performance.now() - waited).toBeLessThan(2_000)
})
