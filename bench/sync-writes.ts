/**
 * What SYNC_WRITES costs: `npx tsx bench/sync-writes.ts [seconds]`. Services with and without it take turns, each on an empty
 * directory of its own; of three turns the median counts. How long this disk takes for an fsync is printed beside it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const SECONDS = Number(process.argv[2] ?? 8)
const WARM_UP_MS = 2_000
const TURNS = 3
const LOADS = [
  { callers: 8, size: 1_000 },
  { callers: 100, size: 10 },
] as const

type Load = (typeof LOADS)[number]
interface Rate {
  perSecond: number
  p50: number
  p99: number
}

const at = (sorted: readonly number[], share: number) => Math.round(sorted[Math.floor(sorted.length * share)] ?? 0)

async function measure(syncWrites: string, { callers, size }: Load): Promise<Rate> {
  const dataDir = mkdtempSync(join(tmpdir(), 'analytics-sync-'))
  const env = {
    ...process.env,
    PORT: '0',
    DATA_DIR: dataDir,
    SYNC_WRITES: syncWrites,
    LOG_LEVEL: 'warn',
    RATE_LIMIT_PER_SECOND: '1000000',
    SELF_CHECK_MINUTES: '0',
  }
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/main.ts'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  const [url, token] = await new Promise<[string, string]>((done) =>
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      const [found, signed] = [/ready at (\S+)/.exec(output)?.[1], /TOKEN=(\S+)/.exec(output)?.[1]]
      if (found && signed) done([found, signed])
    }),
  )
  const from = performance.now() + WARM_UP_MS
  const until = from + SECONDS * 1_000
  const waited: number[] = []
  const now = Date.now()
  let made = 0
  const eventOf = () => {
    made++
    const timestamp = new Date(now - (made % 3_600_000)).toISOString()
    return {
      id: `event ${made}`,
      eventType: 'incomingMessages',
      timestamp,
      assistant: `assistant ${made % 50}`,
      user: `user ${(made * 7_919) % 20_000}`,
      cost: 0.001,
      inputTokens: 5,
    }
  }
  async function call(): Promise<void> {
    while (performance.now() < until) {
      const body = JSON.stringify(Array.from({ length: size }, eventOf))
      const sentAt = performance.now()
      const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' }
      const response = await fetch(`${url}/analytics/events`, { method: 'POST', headers, body })
      await response.text()
      if (response.status !== 200) throw new Error(`POST: ${response.status}`)
      if (sentAt > from) waited.push(performance.now() - sentAt)
    }
  }
  await Promise.all(Array.from({ length: callers }, call))
  const seconds = (performance.now() - from) / 1_000
  child.kill('SIGTERM')
  await once(child, 'exit')
  rmSync(dataDir, { recursive: true, force: true })
  waited.sort((a, b) => a - b)
  return { perSecond: Math.round((waited.length * size) / seconds), p50: at(waited, 0.5), p99: at(waited, 0.99) }
}

function fsyncMs(): number {
  const directory = mkdtempSync(join(tmpdir(), 'analytics-sync-'))
  const times = Array.from({ length: 200 }, (_, n) => {
    const file = openSync(join(directory, String(n)), 'w')
    writeSync(file, Buffer.alloc(4_000))
    const began = performance.now()
    fsyncSync(file)
    closeSync(file)
    return performance.now() - began
  }).sort((a, b) => a - b)
  rmSync(directory, { recursive: true })
  return times[100] as number
}

console.log(`an fsync of 4 kB takes ${fsyncMs().toFixed(1)} ms (median of 200)`)
for (const load of LOADS) {
  const rates: Record<string, Rate[]> = { off: [], on: [] }
  for (let turn = 0; turn < TURNS; turn++) for (const mode of ['off', 'on']) rates[mode]?.push(await measure(mode, load))
  for (const [mode, all] of Object.entries(rates)) {
    const sorted = all.toSorted((a, b) => a.perSecond - b.perSecond)
    const { perSecond, p50, p99 } = sorted[TURNS >> 1] as Rate
    const turns = all.map((rate) => rate.perSecond).join(', ')
    console.log(
      `${load.callers} x ${load.size}, SYNC_WRITES=${mode}: ${perSecond} events/s (turns: ${turns}), p50 ${p50} ms, p99 ${p99} ms`,
    )
  }
}
