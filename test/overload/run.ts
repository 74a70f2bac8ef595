/**
 * `npm run test:overload [-- --seconds 60] [--short]`: four times the load that the service can sustain, for a minute.
 *
 * The service runs as a process of its own with its default settings, on a small fleet of seven companies. Callers who
 * wait for each answer find out what it sustains; then four times as many calls a second are sent without waiting. Of
 * those it has to answer some well and refuse the rest with a 429 or a 503 that says when to come back; memory stays
 * bounded; and when the load ends it is its old self within five seconds.
 *
 * How long an accepted call may take follows from the design. A question waits its turn for WAIT_MS at most
 * (src/limits/query-slots.ts) and has then to be answered while the other places are busy too, and the machine with refusing:
 * ANSWER_MS is what that may take. A batch of events waits for those before it and is given up after PATIENCE_MS
 * (src/ingest/batch-writer.ts).
 *
 * Exit code 1 where one of that does not hold. The load comes from this process, on the same machine: a service that
 * had the machine for itself would sustain more.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { WAIT_MS } from '../../src/limits/query-slots.ts'
import { callOf, COMPANIES, fleet, randomOf, type Call } from './fleet.ts'
import { Load, type Sample, type Target } from './load.ts'
import { startService, type RunningService } from './service.ts'

const FACTOR = 4
const ANSWER_MS = 1_000
const BOUND_MS = WAIT_MS + ANSWER_MS
const PATIENCE_MS = 10_000
const RECOVERY_MS = 5_000
/** Normal is a median within this of the one without load. */
const NORMAL = 1.5
/** The service without its ClickHouse. */
const RSS_BOUND = 1_024 * 1_048_576

const { values: options } = parseArgs({
  options: { seconds: { type: 'string' }, short: { type: 'boolean', default: false } },
})
const seconds = Number(options.seconds ?? (options.short ? 10 : 60))
const EVENTS = options.short ? 100_000 : 300_000
const PROBE_SECONDS = options.short ? 3 : 6

const say = (line: string) => void process.stderr.write(`${line}\n`)
const isAccepted = ({ status }: Sample) => status === 200 || status === 304
const isQuestion = ({ call }: Sample) => call.method === 'GET'
const isWrite = ({ call }: Sample) => call.method === 'POST'

function quantile(samples: readonly Sample[], share: number): number {
  const sorted = samples.map(({ ms }) => ms).sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
}

interface Phase {
  name: string
  seconds: number
  samples: Sample[]
  notSent: number
  rss: number
}

/** Runs a load and looks at the service's memory meanwhile. */
async function phase(name: string, service: RunningService, target: Target, work: (load: Load) => Promise<void>): Promise<Phase> {
  const load = new Load(target)
  let rss = service.rss()
  const watch = setInterval(() => (rss = Math.max(rss, service.rss())), 500)
  const started = performance.now()
  try {
    await work(load)
  } finally {
    clearInterval(watch)
    load.close()
  }
  return { name, seconds: (performance.now() - started) / 1_000, samples: load.samples, notSent: load.notSent, rss }
}

const shown = (samples: readonly Sample[], share: number) => (samples.length === 0 ? '' : quantile(samples, share).toFixed(1))

const COLUMNS = ['', 'offered/s', 'accepted/s', '429/s', '503/s', 'other', 'p50 ms', 'p99 ms', 'writes p99', 'RSS MiB']

function row({ name, seconds: took, samples, notSent, rss }: Phase): string[] {
  const rate = (wanted: (sample: Sample) => boolean) => (samples.filter(wanted).length / took).toFixed(0)
  const accepted = samples.filter(isAccepted)
  return [
    name,
    ((samples.length + notSent) / took).toFixed(0),
    rate(isAccepted),
    rate(({ status }) => status === 429),
    rate(({ status }) => status === 503),
    String(samples.filter(({ status }) => ![200, 304, 429, 503].includes(status)).length + notSent),
    shown(accepted.filter(isQuestion), 0.5),
    shown(accepted.filter(isQuestion), 0.99),
    shown(accepted.filter(isWrite), 0.99),
    (rss / 1_048_576).toFixed(0),
  ]
}

function table(rows: readonly string[][]): string {
  const widths = COLUMNS.map((_, at) => Math.max(...[COLUMNS, ...rows].map((cells) => (cells[at] ?? '').length)))
  const line = (cells: readonly string[]) =>
    cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join('  ')
  return [line(COLUMNS), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}

/** Fills the service with the fleet. */
async function fill(target: Target): Promise<void> {
  const load = new Load(target)
  for (const call of fleet(EVENTS, Date.now())) {
    const { status, text } = await load.send(call)
    if (status !== 200) throw new Error(`the fleet was refused: ${status} ${text}`)
  }
  load.close()
}

/** One caller after another until the median of a second's answers is normal; milliseconds since the load ended. */
async function recovery(target: Target, next: () => Call, normal: number): Promise<number> {
  const started = performance.now()
  while (performance.now() - started < 4 * RECOVERY_MS) {
    const load = new Load(target)
    await load.closed(1, 0.5, next)
    load.close()
    const ok = load.samples.filter(isAccepted)
    if (ok.length === load.samples.length && quantile(ok, 0.5) <= NORMAL * normal) return performance.now() - started
  }
  return Infinity
}

async function run(service: RunningService): Promise<string[]> {
  const tokens = new Map<string, string>()
  for (const company of COMPANIES) tokens.set(company, await service.tokenFor(company))
  const target = { host: service.host, port: service.port, tokens }

  say(`filling: ${EVENTS} events of ${COMPANIES.length} companies`)
  await fill(target)
  const random = randomOf(11)
  const next = () => callOf(random, Date.now())
  const warm = new Load(target)
  await warm.closed(4, PROBE_SECONDS / 2, next)
  warm.close()

  const alone = await phase('one caller', service, target, (load) => load.closed(1, PROBE_SECONDS, next))
  const normal = quantile(alone.samples.filter(isAccepted), 0.5)
  const phases = [alone]
  let sustained = 0
  for (const callers of [4, 8, 16, 32]) {
    say(`${callers} callers who wait`)
    const probe = await phase(`${callers} callers`, service, target, (load) => load.closed(callers, PROBE_SECONDS, next))
    phases.push(probe)
    if (probe.samples.every(isAccepted)) sustained = Math.max(sustained, probe.samples.length / probe.seconds)
  }
  await sleep(1_000)

  say(`${FACTOR} × ${sustained.toFixed(0)} calls a second for ${seconds} s`)
  const over = await phase(`${FACTOR} × sustained`, service, target, (load) => load.steady(FACTOR * sustained, seconds, next))
  const back = await recovery(target, next, normal)
  phases.push(over, await phase('one caller, after', service, target, (load) => load.closed(1, PROBE_SECONDS, next)))

  const accepted = over.samples.filter(isAccepted)
  const p99 = quantile(accepted.filter(isQuestion), 0.99)
  const writes = quantile(accepted.filter(isWrite), 0.99)
  const refused = over.samples.filter(({ status }) => status === 429 || status === 503)
  process.stdout.write(`${table(phases.map(row))}\n\n`)
  const offered = FACTOR * sustained
  const bound = `bound ${BOUND_MS} ms: ${WAIT_MS} waiting, ${ANSWER_MS} being answered`
  process.stdout.write(`sustained     ${sustained.toFixed(0)} calls a second; ${offered.toFixed(0)} for ${seconds} s\n`)
  process.stdout.write(`questions     p99 of accepted ${p99.toFixed(0)} ms (${bound})\n`)
  process.stdout.write(`writes        p99 of accepted ${writes.toFixed(0)} ms (bound ${PATIENCE_MS} ms)\n`)
  process.stdout.write(`normal again  after ${(back / 1_000).toFixed(1)} s (bound ${RECOVERY_MS / 1_000} s)\n`)
  process.stdout.write(`logged        ${service.logged.length} lines\n\n`)

  const faults: string[] = []
  for (const { name, samples, notSent } of phases) {
    const odd = samples.filter(({ status }) => ![200, 304, 429, 503].includes(status))
    if (odd.length > 0)
      faults.push(`${name}: ${odd.length} answers that should not be, such as ${odd[0]?.status} ${odd[0]?.text}`)
    if (notSent > 0) faults.push(`${name}: ${notSent} calls were not sent, as too many were under way`)
  }
  const silent = refused.filter(({ retryAfter }) => !retryAfter)
  if (silent.length > 0) faults.push(`${silent.length} refusals without Retry-After`)
  if (sustained === 0) faults.push('no load was sustained')
  if (accepted.length < (sustained * seconds) / 2) faults.push('under overload less than half of what it can was answered')
  if (!(p99 <= BOUND_MS)) faults.push(`p99 of accepted questions is ${p99.toFixed(0)} ms`)
  if (!(writes <= PATIENCE_MS)) faults.push(`p99 of accepted writes is ${writes.toFixed(0)} ms`)
  if (!(back <= RECOVERY_MS)) faults.push('not back to normal in time')
  if (over.rss > RSS_BOUND) faults.push(`RSS of ${(over.rss / 1_048_576).toFixed(0)} MiB`)
  for (const company of COMPANIES) {
    if (!accepted.some(({ call }) => call.company === company)) faults.push(`${company} got no answer at all`)
  }
  return faults
}

const service = await startService()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void service.stop().finally(() => process.exit(1)))
}
try {
  const faults = await run(service)
  for (const fault of faults) process.stdout.write(`FAULT: ${fault}\n`)
  if (faults.length > 0) {
    for (const line of service.logged.slice(-5)) say(line)
    process.exitCode = 1
  } else process.stdout.write('All of it held.\n')
} finally {
  await service.stop()
}
