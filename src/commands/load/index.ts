/**
 * `npm run load -- FILE...`: sends files of events, a JSON object a line, plain or gzip, to a running service, in constant
 * memory. Sending an event twice changes nothing, since every line has an id; so whatever fails is simply sent again, and
 * a stopped load goes on from the last line of which everything before is acknowledged.
 * Exit codes: 0 where every line is stored, 1 where some were refused or the load failed, 2 where the arguments cannot be
 * used, 130 and 143 after SIGINT and SIGTERM.
 */
import { setMaxListeners } from 'node:events'
import { appendFileSync, writeFileSync } from 'node:fs'
import type { Receipt } from '../../client.ts'
import { ConfigError, readConfig } from '../../config.ts'
import { formatBytes, formatCount, Progress } from '../progress.ts'
import { Checkpoint, nothing, type Tally } from './checkpoint.ts'
import { LoadError, UsageError } from './errors.ts'
import { credentials, type Options, readOptions, serviceUrl, USAGE } from './options.ts'
import { type Batch, type Input, type Line, openInput, readBatches, type Refusal } from './read-batches.ts'
import { Client } from './sender.ts'

const REASONS_SHOWN = 10

interface Job {
  readonly input: Input
  readonly checkpoint: Checkpoint
  readonly tally: Tally
}

/** Loads what of one file is not loaded yet; the job's tally tells how far it came, however it ends. */
async function loadFile({ input, checkpoint, tally }: Job, client: Client, options: Options, hooks: Hooks): Promise<number> {
  let position = 0
  let events = 0
  const progress = new Progress(input.name, () => ({ done: position, total: input.size, events }))
  hooks.note = (text) => progress.note(text)
  if (tally.lines > 0) progress.note(`${input.name}: going on after line ${formatCount(tally.lines)}`)

  const settle = (batch: Batch, { accepted, duplicates, rejected }: Receipt): void => {
    const refusals = rejected.map(({ index, message }) => ({ line: batch.lines[index] as Line, message }))
    const all = [...batch.refusals, ...refusals].sort((a, b) => a.line.number - b.line.number)
    // Before the checkpoint: killed in between, a refusal is told twice rather than not at all.
    hooks.onRefused(input, all)
    tally.lines = batch.lastLine
    tally.accepted += accepted
    tally.duplicates += duplicates
    tally.rejected += all.length
    for (const { line, message } of all) {
      if (tally.reasons.length < REASONS_SHOWN) tally.reasons.push({ line: line.number, message })
    }
    const problem = checkpoint.write(tally)
    if (problem) progress.note(`a stopped load could not be resumed: its place cannot be kept under DATA_DIR (${problem})`)
    position = batch.position
    events += batch.lines.length + batch.refusals.length
  }

  try {
    // Oldest first, and settled in that order: the checkpoint must not pass over a batch that is still under way.
    const underWay: Array<{ batch: Batch; receipt: Promise<Receipt> }> = []
    const settleOldest = async () => {
      const { batch, receipt } = underWay.shift() as (typeof underWay)[number]
      settle(batch, await receipt)
    }
    for await (const batch of readBatches(input, options.batch, tally.lines, hooks.signal)) {
      if (underWay.length >= options.connections) await settleOldest()
      const receipt = client.send(batch)
      receipt.catch(() => {}) // It is looked at in its turn, which does not come where an older one fails.
      underWay.push({ batch, receipt })
    }
    while (underWay.length > 0) await settleOldest()
    tally.finished = true
    checkpoint.write(tally)
    position = input.size ?? position
  } finally {
    progress.stop()
  }
  return events
}

interface Hooks {
  readonly signal: AbortSignal
  /** Where notes go right now: above the bar of the file being loaded. */
  note: (text: string) => void
  onRefused(input: Input, refusals: readonly Refusal[]): void
}

async function main(): Promise<number> {
  const options = readOptions()
  if (!options) {
    process.stdout.write(USAGE)
    return 0
  }
  const config = readConfig()
  const url = serviceUrl(options.url, config)
  const inputs = await Promise.all(options.files.map(openInput))
  await Client.probe(url)
  const { token, org, made } = await credentials(options, url, config)

  const stop = new AbortController()
  setMaxListeners(0, stop.signal)
  let exitCode = 0
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.once(signal, () => {
      exitCode = code
      stop.abort()
    })
  }

  const jobs = inputs.map((input): Job => {
    const checkpoint = new Checkpoint(config.DATA_DIR, input, url, org)
    if (options.restart) checkpoint.remove()
    return { input, checkpoint, tally: checkpoint.read() ?? nothing() }
  })
  const resumed = jobs.some(({ tally }) => tally.lines > 0)
  if (options.rejects !== undefined && !resumed) writeFileSync(options.rejects, '')
  const hooks: Hooks = {
    signal: stop.signal,
    note: () => {},
    onRefused({ path }, refusals) {
      if (options.rejects === undefined || refusals.length === 0) return
      const lines = refusals.map(({ line: { number, bytes }, message }) =>
        JSON.stringify({ file: path, line: number, message, text: bytes?.toString() ?? null }),
      )
      appendFileSync(options.rejects, `${lines.join('\n')}\n`)
    },
  }
  const client = new Client({
    url,
    token,
    tokenHint: made ? ' It may run on another DATA_DIR than this command: set DATA_DIR, or give --token.' : '',
    patienceMs: options.patienceMs,
    signal: stop.signal,
    onNote: (text) => hooks.note(text),
  })

  process.stderr.write(`loading into ${url.origin} for ${org}\n`)
  const started = performance.now()
  let events = 0
  try {
    for (const job of jobs) {
      if (job.tally.finished) process.stderr.write(`${job.input.name}: loaded already, by a command that was stopped later\n`)
      else events += await loadFile(job, client, options, hooks)
    }
    for (const { checkpoint } of jobs) checkpoint.remove()
  } catch (error) {
    if (!stop.signal.aborted && !(error instanceof LoadError)) throw error
    process.stderr.write(stop.signal.aborted ? 'stopped\n' : `the load failed: ${(error as Error).message}\n`)
    const keepsPlace = jobs.some(({ input, tally }) => tally.lines > 0 && input.size !== undefined)
    if (keepsPlace) process.stderr.write('run the same command again to go on from there, or with --restart from the beginning\n')
    exitCode ||= 1
  }
  const rejected = summarize(jobs, events, client.bytesSent, (performance.now() - started) / 1000)
  return exitCode || (rejected > 0 ? 1 : 0)
}

/** Prints the totals. @returns how many lines were refused */
function summarize(jobs: readonly Job[], events: number, bytesSent: number, seconds: number): number {
  const sum = (pick: (tally: Tally) => number) => jobs.reduce((total, { tally }) => total + pick(tally), 0)
  const accepted = sum((tally) => tally.accepted)
  const duplicates = sum((tally) => tally.duplicates)
  const rejected = sum((tally) => tally.rejected)
  const bytes = jobs.reduce((total, { input }) => total + (input.size ?? 0), 0)
  const lines = accepted + duplicates + rejected
  const earlier = lines - events
  const rows = [
    ['lines', formatCount(lines), earlier > 0 ? `${formatCount(earlier)} of them in an earlier run` : ''],
    ['accepted', formatCount(accepted), ''],
    ['duplicates', formatCount(duplicates), ''],
    ['rejected', formatCount(rejected), ''],
    ['bytes', formatBytes(bytes), `${formatBytes(bytesSent)} sent`],
    ['seconds', seconds.toFixed(1), `${formatCount(events / Math.max(seconds, 0.001))} lines/s`],
  ] as const
  const width = Math.max(...rows.map(([, value]) => value.length))
  for (const [name, value, remark] of rows) {
    process.stdout.write(`${`${name.padEnd(11)}${value.padStart(width)}  ${remark}`.trimEnd()}\n`)
  }
  let shown = 0
  for (const { input, tally } of jobs) {
    for (const { line, message } of tally.reasons) {
      if (shown++ < REASONS_SHOWN) process.stdout.write(`  ${input.name}:${line}: ${message}\n`)
    }
  }
  if (rejected > shown) process.stdout.write(`  and ${formatCount(rejected - Math.min(shown, REASONS_SHOWN))} more\n`)
  return rejected
}

let code = 1
try {
  code = await main()
} catch (error) {
  if (error instanceof UsageError) {
    process.stderr.write(`${error.message}\n\n${USAGE}`)
    code = 2
  } else if (error instanceof LoadError || error instanceof ConfigError) {
    process.stderr.write(`${error.message}\n`)
  } else {
    throw error
  }
}
// Not left to the event loop: standard input may be held open by whoever writes to it.
process.exit(code)
