/** Reads files of events in constant memory, and cuts them into batches of whole lines that all have an id. */
import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { formatCount } from '../progress.ts'
import { codeOf, LoadError } from './errors.ts'

/** No event is that long: ids have 256 characters, metadata 4,096 bytes. Longer lines are never held in memory. */
const MAX_LINE_BYTES = 1_048_576
/** A batch is closed here, well below the 8 MiB that a request may hold. */
const BATCH_BYTES = 4 * 1_048_576
const CHUNK_BYTES = 256 * 1024

/** A file to load, and what is known of it before it is read. */
export interface Input {
  readonly path: string
  readonly name: string
  /** Bytes on disk; absent for pipes, which have no known end and cannot be resumed. */
  readonly size?: number
  readonly modified?: number
}

export async function openInput(path: string): Promise<Input> {
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

export interface Line {
  /** From 1, blank ones counted, as editors count. */
  readonly number: number
  /** Without its line break; null where it was too long to keep. */
  readonly bytes: Buffer | null
}

export interface Refusal {
  readonly line: Line
  readonly message: string
}

export interface Batch {
  readonly lines: readonly Line[]
  /** Found here already; they are not sent. */
  readonly refusals: readonly Refusal[]
  /** The last line read, blank or not. */
  readonly lastLine: number
  /** Bytes of the file read by then. */
  readonly position: number
}

/** Cuts what follows line `after` of a file into batches. */
export async function* readBatches(input: Input, size: number, after: number, signal: AbortSignal): AsyncGenerator<Batch> {
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
