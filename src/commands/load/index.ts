/**
 * `npm run load -- FILE...`: sends files of events, a JSON object a line, plain or gzip, to a running service, in constant
 * memory. Sending an event twice changes nothing, since every line has an id; so whatever fails is simply sent again, and
 * a stopped load goes on from the last line of which everything before is acknowledged.
 * Exit codes: 0 where every line is stored, 1 where some were refused or the load failed, 2 where the arguments cannot be
 * used, 130 and 143 after SIGINT and SIGTERM.
 */
import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { appendFileSync, createReadStream, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { pipeline, Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { createGunzip, gzip } from 'node:zlib'
import { decodeJwt } from 'jose'
import { AnalyticsError, createAnalyticsClient, type AnalyticsClient, type Receipt } from '../../client.ts'
import { ConfigError, readConfig, type Config } from '../../config.ts'
import { loadLocalKey, signLocalToken } from '../../auth/local-key.ts'
import { formatBytes, formatCount, Progress } from '../progress.ts'

const USAGE = `usage: npm run load -- FILE... [options]

  FILE                 events, a JSON object a line, plain or gzip; - is standard input
  --org NAME           the company whose events they are; default demo. A token that is given must be of this company
  --url URL            the service; default http://HOST:PORT of the settings, http://127.0.0.1:8787
  --token TOKEN        with the scope analytics:write; default $TOKEN, else made with the key of the service under DATA_DIR
  --batch N            events a request, 1 to 10000; default 5000
  --connections N      requests under way at once, 1 to 64; default 2
  --rejects FILE       writes refused lines there, as {"file","line","message","text"}, one a line
  --patience SECONDS   gives up after so long without progress; default 300
  --restart            forgets where a stopped load was
  --help               prints this

A load that was stopped goes on where it was when the same file is loaded again into the same company of the same service.
An event without an id gets one made from the file's name (without .gz), the line's number and the line, so that loading
it again, with other batches too, does not count it twice.
`

class UsageError extends Error {}

/** The load cannot go on; `message` says why. */
class LoadError extends Error {}

/** No event is that long: ids have 256 characters, metadata 4,096 bytes. Longer lines are never held in memory. */
const MAX_LINE_BYTES = 1_048_576
/** A batch is closed here, well below the 8 MiB that a request may hold. */
const BATCH_BYTES = 4 * 1_048_576
const CHUNK_BYTES = 256 * 1024

const PROBE_MS = 10_000
/** The service answers within 10 s, if only to say that it cannot store anything right now. */
const ATTEMPT_MS = 60_000
const NEWS_MS = 2_000
const BACK_OFF_MS = { first: 250, most: 10_000 }
/** What the service, or a proxy in front of it, says when it may be better later. */
const RETRIED_STATUS = new Set([429, 502, 503, 504])

const REASONS_SHOWN = 10

const compress = promisify(gzip)

// --------------------------------------------------------------------------------------------------------- options

function readOptions() {
  let parsed
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        org: { type: 'string' },
        url: { type: 'string' },
        token: { type: 'string' },
        batch: { type: 'string', default: '5000' },
        connections: { type: 'string', default: '2' },
        rejects: { type: 'string' },
        patience: { type: 'string', default: '300' },
        restart: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
  const { values, positionals } = parsed
  if (values.help) return undefined
  if (positionals.length === 0) throw new UsageError('a FILE is needed')
  if (values.org === '') throw new UsageError('--org wants a name')
  if (values.url !== undefined && !/^https?:\/\/./.test(values.url)) throw new UsageError('--url wants http(s)://host:port')
  // npm runs commands in the project's directory; a path is meant from where it was typed.
  const typedIn = (process.env['npm_lifecycle_event'] === 'load' && process.env['INIT_CWD']) || process.cwd()
  return {
    ...values,
    files: [...new Set(positionals)].map((file) => (file === '-' ? file : resolve(typedIn, file))),
    rejects: values.rejects === undefined ? undefined : resolve(typedIn, values.rejects),
    batch: whole('--batch', values.batch, 10_000),
    connections: whole('--connections', values.connections, 64),
    patienceMs: whole('--patience', values.patience, 86_400) * 1000,
  }
}

type Options = Exclude<ReturnType<typeof readOptions>, undefined>

function whole(option: string, text: string, max: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > max) throw new UsageError(`${option} wants a whole number from 1 to ${max}`)
  return value
}

function serviceUrl(given: string | undefined, { HOST, PORT }: Config): URL {
  const host = ['0.0.0.0', '::'].includes(HOST) ? '127.0.0.1' : HOST
  const url = given ?? `http://${host.includes(':') ? `[${host}]` : host}:${PORT}`
  return new URL(url.endsWith('/') ? url : `${url}/`)
}

const isLoopback = ({ hostname }: URL) => /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname)

/** The token to send, and the company it is for. */
async function credentials({ token, org }: Options, url: URL, config: Config) {
  // Not a setting of the service, so not in config.ts: it is what the README tells callers to export.
  const given = token ?? (process.env['TOKEN'] || undefined)
  if (given !== undefined) {
    const tenant = claimOf(given, config.JWT_ORG_CLAIM)
    // Events in another company's books are worse than no events: --org must not be silently overruled.
    if (org !== undefined && tenant !== org) throw new UsageError(`the token is for ${tenant}, not for ${org}`)
    return { token: given, org: tenant, made: false }
  }
  if (!isLoopback(url)) throw new UsageError(`${url.origin} wants a token: give --token or set TOKEN`)
  if (!config.localKey && config.JWT_SECRET === undefined) {
    throw new UsageError('with JWT_JWKS_URL or JWT_PUBLIC_KEY tokens come from the issuer: give --token or set TOKEN')
  }
  const key =
    config.JWT_SECRET === undefined ? await loadLocalKey(config.DATA_DIR) : new TextEncoder().encode(config.JWT_SECRET)
  const tenant = org ?? 'demo'
  return { token: await signLocalToken(key, { org: tenant, scope: 'analytics:write' }, config), org: tenant, made: true }
}

function claimOf(token: string, claim: string): string {
  try {
    return String(decodeJwt(token)[claim] ?? 'nobody')
  } catch {
    throw new UsageError('the token is no JWT')
  }
}

// --------------------------------------------------------------------------------------------------------- reading

/** A file to load, and what is known of it before it is read. */
interface Input {
  readonly path: string
  readonly name: string
  /** Bytes on disk; absent for pipes, which have no known end and cannot be resumed. */
  readonly size?: number
  readonly modified?: number
}

async function openInput(path: string): Promise<Input> {
  if (path === '-') return { path, name: 'stdin' }
  try {
    const found = await stat(path)
    if (found.isDirectory()) throw new LoadError(`${path} is a directory`)
    const name = basename(path)
    return found.isFile() ? { path, name, size: found.size, modified: found.mtimeMs } : { path, name }
  } catch (error) {
    throw error instanceof LoadError ? error : new LoadError(`${path} cannot be read: ${codeOf(error)}`)
  }
}

interface Line {
  /** From 1, blank ones counted, as editors count. */
  readonly number: number
  /** Without its line break; null where it was too long to keep. */
  readonly bytes: Buffer | null
}

interface Refusal {
  readonly line: Line
  readonly message: string
}

interface Batch {
  readonly lines: readonly Line[]
  /** Found here already; they are not sent. */
  readonly refusals: readonly Refusal[]
  /** The last line read, blank or not. */
  readonly lastLine: number
  /** Bytes of the file read by then. */
  readonly position: number
}

/** Cuts what follows line `after` of a file into batches. */
async function* readBatches(input: Input, size: number, after: number, signal: AbortSignal): AsyncGenerator<Batch> {
  const source = input.path === '-' ? process.stdin : createReadStream(input.path, { highWaterMark: CHUNK_BYTES })
  const stop = () => source.destroy(new Error('stopped'))
  signal.addEventListener('abort', stop)
  const name = input.name.replace(/\.gz$/i, '')
  let number = 0
  let lines: Line[] = []
  let refusals: Refusal[] = []
  let bytes = 0
  const take = (content: Buffer | null): void => {
    number++
    if (number <= after) return
    if (!content) {
      refusals.push({ line: { number, bytes: null }, message: `is longer than ${MAX_LINE_BYTES} bytes` })
      return
    }
    const line = { number, bytes: withId(number === 1 ? withoutBom(content) : content, name, number) }
    if (line.bytes.length === 0) return
    // One such byte would make the service refuse its whole batch.
    if (!isUtf8(line.bytes)) {
      refusals.push({ line, message: 'is not UTF-8' })
      return
    }
    lines.push(line)
    bytes += line.bytes.length + 1
  }
  const cut = (): Batch => {
    const batch = { lines, refusals, lastLine: number, position: 'bytesRead' in source ? source.bytesRead : 0 }
    lines = []
    refusals = []
    bytes = 0
    return batch
  }
  try {
    for await (const found of splitLines(await decompressed(source))) {
      for (const content of found) {
        take(content)
        if (lines.length + refusals.length >= size || bytes >= BATCH_BYTES) yield cut()
      }
    }
    if (lines.length + refusals.length > 0) yield cut()
  } catch (error) {
    if (signal.aborted) throw error
    const reason = codeOf(error).startsWith('Z_') ? 'is damaged or cut off' : `cannot be read: ${codeOf(error)}`
    throw new LoadError(`${input.path} ${reason}, after line ${formatCount(number)}`)
  } finally {
    signal.removeEventListener('abort', stop)
    source.destroy()
  }
}

/** Looks at the first two bytes: a name ending in .gz proves nothing. */
async function decompressed(source: Readable): Promise<AsyncIterable<Buffer>> {
  const chunks = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  let start: Buffer = Buffer.alloc(0)
  while (start.length < 2) {
    const next = await chunks.next()
    if (next.done) break
    start = Buffer.concat([start, next.value])
  }
  async function* all() {
    yield start
    yield* { [Symbol.asyncIterator]: () => chunks }
  }
  if (start[0] !== 0x1f || start[1] !== 0x8b) return all()
  return pipeline(Readable.from(all()), createGunzip({ chunkSize: CHUNK_BYTES }), () => {})
}

/** The complete lines of each chunk; one that grows beyond MAX_LINE_BYTES is passed over and told as null. */
async function* splitLines(chunks: AsyncIterable<Buffer>): AsyncGenerator<Array<Buffer | null>> {
  let open: Buffer[] = []
  let length = 0
  const close = (): Buffer | null => {
    const line = length > MAX_LINE_BYTES ? null : open.length === 1 ? (open[0] as Buffer) : Buffer.concat(open)
    open = []
    length = 0
    return line
  }
  for await (const chunk of chunks) {
    const lines: Array<Buffer | null> = []
    let from = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
      length += end - from
      open.push(chunk.subarray(from, end))
      lines.push(close())
      from = end + 1
    }
    length += chunk.length - from
    if (length > MAX_LINE_BYTES) open = []
    else if (from < chunk.length) open.push(chunk.subarray(from))
    yield lines
  }
  if (length > 0) yield [close()]
}

const ID_FIRST = Buffer.from('{"id":"')
const OPENING_BRACE = 0x7b

/**
 * The line with an id, so that sending it again is harmless; empty where the line is blank. What is no JSON object goes
 * as it is: the service says what is wrong with it.
 */
function withId(line: Buffer, name: string, number: number): Buffer {
  if (line.length > ID_FIRST.length && ID_FIRST.compare(line, 0, ID_FIRST.length) === 0) return line
  const text = line.toString()
  // As the service tells blank lines: one that only one side counts would shift the index of every refusal after it.
  if (text.trim() === '') return Buffer.alloc(0)
  let event: unknown
  try {
    event = JSON.parse(text)
  } catch {
    return line
  }
  if (typeof event !== 'object' || event === null || Array.isArray(event)) return line
  if (Object.hasOwn(event, 'id') || Object.keys(event).length === 0) return line
  const content = line.at(-1) === 13 ? line.subarray(0, -1) : line
  const id = createHash('sha256').update(`${name}\0${number}\0`).update(content).digest('hex').slice(0, 32)
  return Buffer.concat([Buffer.from(`{"id":"${id}",`), content.subarray(content.indexOf(OPENING_BRACE) + 1)])
}

const withoutBom = (line: Buffer) => (line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf ? line.subarray(3) : line)

// --------------------------------------------------------------------------------------------------------- sending

interface ClientOptions {
  readonly url: URL
  readonly token: string
  /** Added to the answer where the service does not accept the token. */
  readonly tokenHint: string
  readonly patienceMs: number
  readonly signal: AbortSignal
  readonly onNote: (text: string) => void
}

/** The service as seen from here. */
class Client {
  readonly #options: ClientOptions
  readonly #service: AnalyticsClient
  #lastProgress = 0
  #troubled = false
  bytesSent = 0

  constructor(options: ClientOptions) {
    this.#options = options
    this.#service = createAnalyticsClient(options)
  }

  /** @throws LoadError where nothing speaks HTTP at the address */
  static async probe(url: URL): Promise<void> {
    try {
      await fetch(new URL('analytics/events', url), { method: 'HEAD', redirect: 'manual', signal: AbortSignal.timeout(PROBE_MS) })
    } catch (error) {
      const advice = isLoopback(url)
        ? ': start one with npm start in another terminal, or name another with --url'
        : ` (${codeOf(error)})`
      throw new LoadError(`no service answers at ${url.origin}${advice}`)
    }
  }

  /** Sends a batch until it is acknowledged. */
  async send({ lines }: Batch): Promise<Receipt> {
    if (lines.length === 0) return { accepted: 0, duplicates: 0, rejected: [] }
    const { patienceMs, signal, onNote } = this.#options
    const newline = Buffer.from('\n')
    const body = await compress(Buffer.concat(lines.flatMap(({ bytes }) => [bytes as Buffer, newline])), { level: 1 })
    const started = performance.now()
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted()
      const result = await this.#attempt(body)
      if ('receipt' in result) {
        const { accepted, duplicates, rejected } = result.receipt
        if (accepted + duplicates + rejected.length !== lines.length) {
          throw new LoadError(`the service answered for ${accepted + duplicates + rejected.length} of ${lines.length} events`)
        }
        this.#lastProgress = performance.now()
        if (this.#troubled) onNote('the service answers again')
        this.#troubled = false
        return result.receipt
      }
      const stalled = performance.now() - Math.max(this.#lastProgress, started)
      const left = patienceMs - stalled
      if (left <= 0) throw new LoadError(`no progress for ${patienceMs / 1000} s: ${result.trouble}`)
      // To be asked to wait a moment is how a busy service sets the pace; it is no news.
      if (stalled > NEWS_MS && !this.#troubled) {
        this.#troubled = true
        onNote(`${result.trouble}: trying again for up to ${patienceMs / 1000} s`)
      }
      const backOff = Math.min(BACK_OFF_MS.first * 2 ** attempt, BACK_OFF_MS.most)
      // Spread out, or everyone who was turned away would come back at once.
      const wait = Math.max(backOff * (0.5 + Math.random() / 2), result.retryAfterMs * (1 + Math.random() / 4))
      await sleep(Math.min(wait, left), undefined, { signal })
    }
  }

  async #attempt(body: Uint8Array<ArrayBuffer>): Promise<{ receipt: Receipt } | { trouble: string; retryAfterMs: number }> {
    const { signal, url } = this.#options
    // Not AbortSignal.any: on Node 20 the long-lived signal would keep every signal derived from it.
    const attempt = new AbortController()
    const abort = () => attempt.abort()
    signal.addEventListener('abort', abort)
    const timer = setTimeout(abort, ATTEMPT_MS)
    try {
      const receipt = await this.#service.postEvents(body, {
        contentType: 'application/x-ndjson',
        contentEncoding: 'gzip',
        signal: attempt.signal,
      })
      this.bytesSent += body.length
      return { receipt }
    } catch (error) {
      if (error instanceof AnalyticsError) {
        if (!RETRIED_STATUS.has(error.status)) throw new LoadError(this.#said(error))
        return { trouble: this.#said(error), retryAfterMs: 1000 * (error.retryAfterSeconds ?? 0) }
      }
      signal.throwIfAborted()
      const reason = attempt.signal.aborted ? `does not answer within ${ATTEMPT_MS / 1000} s` : `is out of reach (${codeOf(error)})`
      return { trouble: `the service at ${url.origin} ${reason}`, retryAfterMs: 0 }
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
  }

  #said({ status, code, message, details }: AnalyticsError): string {
    if (code === 'unknown') {
      const why = status < 300 ? '' : ' without a reason'
      return `${this.#options.url.origin} answered ${status}${why}: is it an AGNT Analytics service?`
    }
    const all = details.map((detail) => ` ${detail.parameter} ${detail.message}.`).join('')
    const hint = status === 401 ? this.#options.tokenHint : status === 413 ? ' Try a smaller --batch.' : ''
    return `the service answered ${status}: ${message}${all}${hint}`.replace(/\.$/, '')
  }
}

/** The code of a system or network error, or what else there is to say. */
function codeOf(error: unknown): string {
  const { cause, code, message } = error as { cause?: unknown; code?: unknown; message?: unknown }
  if (typeof code === 'string') return code
  return cause instanceof Error ? codeOf(cause) : String(message ?? error)
}

// ----------------------------------------------------------------------------------------------------- checkpoints

/** What is known about the lines up to `lines`, all of which are acknowledged; over all runs of a load. */
interface Tally {
  lines: number
  accepted: number
  duplicates: number
  rejected: number
  /** The first few refusals. */
  reasons: Array<{ line: number; message: string }>
  /** Kept until every file of the command is through, so that a stopped command does not begin at its first file. */
  finished: boolean
}

const nothing = (): Tally => ({ lines: 0, accepted: 0, duplicates: 0, rejected: 0, reasons: [], finished: false })

/**
 * Where a load of one file into one company of one service is. Acknowledged batches become a new file under DATA_DIR/load,
 * named after everything that must be the same for it to hold: a file that changed has another name.
 */
class Checkpoint {
  readonly #path: string | undefined
  #broken = false

  constructor(dataDir: string, { path, size, modified }: Input, url: URL, org: string) {
    if (size === undefined) return
    const key = createHash('sha256').update(JSON.stringify([path, size, modified, url.href, org])).digest('hex')
    this.#path = join(resolve(dataDir), 'load', `${key.slice(0, 32)}.json`)
  }

  read(): Tally | undefined {
    if (!this.#path) return undefined
    try {
      return JSON.parse(readFileSync(this.#path, 'utf8')) as Tally
    } catch {
      return undefined
    }
  }

  /** @returns why it cannot be kept, the first time that is so; the load goes on without */
  write(tally: Tally): string | undefined {
    if (!this.#path || this.#broken) return undefined
    try {
      mkdirSync(join(this.#path, '..'), { recursive: true, mode: 0o700 })
      writeFileSync(`${this.#path}.part`, JSON.stringify(tally), { mode: 0o600 })
      renameSync(`${this.#path}.part`, this.#path)
      return undefined
    } catch (error) {
      this.#broken = true
      return codeOf(error)
    }
  }

  remove(): void {
    if (this.#path) rmSync(this.#path, { force: true })
  }
}

// --------------------------------------------------------------------------------------------------------- loading

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
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
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
