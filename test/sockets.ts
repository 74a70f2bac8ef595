/** HTTP by hand, for what no client would send. */
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import type { Server } from 'node:http'

export interface RawAnswer {
  status: number
  /** By lower-case name. */
  headers: Record<string, string>
  body: string
}

/** What came back: whole answers, and bytes that make up none. */
export interface Heard {
  answers: RawAnswer[]
  rest: string
  /** Milliseconds until the server closed the connection; null where it did not. */
  closedAfter: number | null
}

/**
 * Sends bytes as they are, and listens until the server closes the connection or nothing has come for a while.
 * @param options.hangUp ends the sending side after the payload
 * @param options.patienceMs how long nothing may come
 */
export function talk(
  server: Server,
  payload: string | Uint8Array,
  { hangUp = false, patienceMs = 500 }: { hangUp?: boolean; patienceMs?: number } = {},
): Promise<Heard> {
  return new Promise((resolve) => {
    const started = performance.now()
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
    const chunks: Buffer[] = []
    let closed = false
    let patience: NodeJS.Timeout
    const done = () => {
      clearTimeout(patience)
      socket.destroy()
      resolve({ ...parse(Buffer.concat(chunks)), closedAfter: closed ? performance.now() - started : null })
    }
    const wait = () => {
      clearTimeout(patience)
      patience = setTimeout(done, patienceMs)
    }
    socket.on('data', (chunk) => {
      chunks.push(chunk)
      wait()
    })
    // A reset is how a connection with unread bytes is closed; what was read before it counts.
    socket.on('error', () => {})
    socket.on('close', () => {
      closed = true
      done()
    })
    socket.on('connect', () => {
      if (hangUp) socket.end(payload)
      else if (payload.length > 0) socket.write(payload)
      wait()
    })
  })
}

function parse(bytes: Buffer): { answers: RawAnswer[]; rest: string } {
  const answers: RawAnswer[] = []
  let at = 0
  while (at < bytes.length) {
    const end = bytes.indexOf('\r\n\r\n', at)
    const [first = '', ...lines] = bytes
      .subarray(at, end === -1 ? at : end)
      .toString('latin1')
      .split('\r\n')
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1])
    if (!status) break
    const headers = Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
    )
    const from = end + 4
    const content = status === 100 || status === 304 ? { body: '', end: from } : contentOf(bytes, from, headers)
    if (!content) break
    answers.push({ status, headers, body: content.body })
    at = content.end
  }
  return { answers, rest: bytes.subarray(at).toString('latin1') }
}

/** The body that begins at `from`, or null where it is not all there. */
function contentOf(bytes: Buffer, from: number, headers: Record<string, string>): { body: string; end: number } | null {
  if (headers['transfer-encoding'] !== 'chunked') {
    const length = headers['content-length']
    // Without a length it lasts until the connection ends, as it does for HTTP/1.0.
    const end = length === undefined && headers['connection'] === 'close' ? bytes.length : from + Number(length ?? 0)
    return end <= bytes.length ? { body: bytes.subarray(from, end).toString(), end } : null
  }
  const parts: Buffer[] = []
  for (let at = from; ;) {
    const line = bytes.indexOf('\r\n', at)
    if (line === -1) return null
    const size = Number.parseInt(bytes.subarray(at, line).toString('latin1'), 16)
    const end = line + 2 + size
    if (!(end + 2 <= bytes.length)) return null
    parts.push(bytes.subarray(line + 2, end))
    at = end + 2
    if (size === 0) return { body: Buffer.concat(parts).toString(), end: at }
  }
}
