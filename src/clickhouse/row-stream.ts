/** Answers of ClickHouse: rows from text, and bytes as they come. */
import type { Readable } from 'node:stream'
import type { FinishedQuery } from './query-log.ts'

/**
 * The bytes of an answer. ClickHouse 26.7 writes what goes wrong half way into it, behind a tag that the headers name,
 * and cuts the connection: that text is the log's and never the caller's.
 */
export function bytesOf(
  stream: Readable,
  tag: string,
  signal: AbortSignal | undefined,
  onEnd: (outcome: FinishedQuery['outcome']) => void,
): AsyncIterableIterator<Uint8Array> {
  let stopped = false
  let whole = false
  let told = false
  const tell = (outcome: FinishedQuery['outcome']) => {
    if (!told) onEnd(outcome)
    told = true
  }
  const stop = () => {
    stopped = true
    stream.destroy()
  }
  signal?.addEventListener('abort', stop, { once: true })
  if (signal?.aborted) stop()
  const mark = Buffer.from(`\r\n__exception__\r\n${tag}`)
  async function* all(): AsyncGenerator<Uint8Array> {
    // The end of a chunk may be the beginning of the mark.
    let held: Buffer = Buffer.alloc(0)
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        const bytes = held.length > 0 ? Buffer.concat([held, chunk]) : chunk
        const at = tag === '' ? -1 : bytes.indexOf(mark)
        if (at !== -1) throw new Error(bytes.subarray(at, at + 2_000).toString())
        const begin = bytes.indexOf(mark[0] as number, Math.max(0, bytes.length - mark.length))
        const safe = begin === -1 ? bytes.length : begin
        if (safe > 0) yield bytes.subarray(0, safe)
        held = bytes.subarray(safe)
      }
      whole = !stopped
      if (held.length > 0 && !stopped) yield held
    } catch (error) {
      // To be stopped is no failure: nobody is there to be told.
      if (!stopped) throw error
    } finally {
      signal?.removeEventListener('abort', stop)
      stream.destroy()
      tell(whole ? 'ok' : stopped ? 'cancelled' : 'failed')
    }
  }
  const chunks = all()
  return {
    [Symbol.asyncIterator]() {
      return this
    },
    next: () => chunks.next(),
    // A generator would finish the step it is in first, and ClickHouse may be long about that.
    return() {
      stop()
      // One that never began to be read has no `finally` to go through.
      tell(whole ? 'ok' : 'cancelled')
      return chunks.return(undefined)
    },
  }
}

export function parseRows<Row>(text: string): Row[] {
  const lines = text.split('\n')
  const names = JSON.parse(lines[0] ?? '[]') as string[]
  const rows: Row[] = []
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i]
    if (!line) continue
    const values = JSON.parse(line) as unknown[]
    rows.push(Object.fromEntries(names.map((name, at) => [name, values[at]])) as Row)
  }
  return rows
}
