/** The socket side: what is no proper HTTP, too large or too slow gets an answer in the usual form and is cut off. */
import { randomUUID } from 'node:crypto'
import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { Server as NetServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import { ApiError, errorBody } from '../domain/errors.ts'

export interface ListenOptions {
  host: string
  /** 0 takes a free one. */
  port: number
  /** A connection on which nothing moves for so long is closed, so it has to be longer than a query may take. */
  quietMs?: number
  headersMs?: number
  requestMs?: number
}

const MAX_HEADER_BYTES = 16_384
/** How often slow connections are looked for: a limit is kept to within this. */
const CHECK_MS = 2_000

/** Serves `fetch`, and resolves when the port is open. */
export function listen(
  fetch: (request: Request) => Response | Promise<Response>,
  { host, port, quietMs = 120_000, headersMs = 10_000, requestMs = 60_000 }: ListenOptions,
): Promise<Server> {
  const serve = getRequestListener(fetch, { hostname: host, errorHandler: unreadable })
  const server = createServer(
    {
      headersTimeout: headersMs,
      requestTimeout: requestMs,
      // Longer than the minute for which load balancers keep connections: they should be the ones to close.
      keepAliveTimeout: 65_000,
      maxHeaderSize: MAX_HEADER_BYTES,
      connectionsCheckingInterval: Math.min(CHECK_MS, headersMs),
      // Checked below: Node's own answer has no body.
      requireHostHeader: false,
    },
    (request, response) => {
      if (request.headers.host !== undefined || request.httpVersion === '1.0') void serve(request, response)
      else refuse(response, NO_HTTP)
    },
  )
  server.timeout = quietMs
  /** The answer under way on a connection: nothing may be written into the middle of it. */
  const answers = new WeakMap<Duplex, ServerResponse>()
  server.on('request', (request: IncomingMessage, response) => answers.set(request.socket, response))
  server.on('checkExpectation', (_request, response: ServerResponse) => refuse(response, EXPECTATION))
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const answer = answers.get(socket)
    const busy = answer?.headersSent === true && !answer.writableFinished
    if (!socket.writable || busy || error.code === 'ECONNRESET') socket.destroy()
    else socket.end(rawAnswer(FAULTS[error.code ?? ''] ?? NO_HTTP), () => socket.destroy())
  })
  const open = { sockets: new Set<Socket>(), answers }
  OPEN.set(server, open)
  server.on('connection', (socket) => {
    open.sockets.add(socket)
    socket.once('close', () => open.sockets.delete(socket))
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => resolve(server))
  })
}

/** Of each server: its connections, and the last answer on each. */
const OPEN = new WeakMap<Server, { sockets: Set<Socket>; answers: WeakMap<Duplex, ServerResponse> }>()

/**
 * Ends a server that `listen` made: each request under way gets its whole answer and closes its connection.
 * @param delayMs for so long requests are still taken on new connections, while load balancers learn to send none
 * @param patienceMs how long requests under way may take after that; what is not through by then is cut off
 * @returns whether all were
 */
export async function drain(server: Server, { delayMs, patienceMs }: { delayMs: number; patienceMs: number }): Promise<boolean> {
  const { sockets, answers } = OPEN.get(server) ?? { sockets: new Set<Socket>(), answers: new WeakMap() }
  const isIdle = (socket: Socket) => answers.get(socket)?.writableFinished !== false
  // From here on each answer says that it is the last one of its connection.
  server.prependListener('request', (_request, response) => (response.shouldKeepAlive = false))
  for (const socket of sockets) {
    const answer = answers.get(socket)
    if (!answer || answer.writableFinished) continue
    if (answer.headersSent) answer.once('finish', () => socket.destroySoon())
    else answer.shouldKeepAlive = false
  }
  if (delayMs > 0) await sleep(delayMs)
  // Not http's own close(): it destroys connections whose answer has ended and is not sent yet (Node 20.20: a slow reader
  // got 4 of 16 MB).
  const closed = new Promise<true>((resolve) => NetServer.prototype.close.call(server, () => resolve(true)))
  for (const socket of sockets) if (isIdle(socket)) socket.destroySoon()
  const all = await Promise.race([closed, sleep(patienceMs, false, { ref: false })])
  server.closeAllConnections()
  return all
}

const NO_HTTP = new ApiError(400, 'bad_request', 'The request cannot be read.')
const EXPECTATION = new ApiError(417, 'expectation_failed', 'Expect may say 100-continue.')

/** By the error codes of Node's HTTP server. */
const FAULTS: Record<string, ApiError> = {
  HPE_HEADER_OVERFLOW: new ApiError(431, 'headers_too_large', `Headers may hold ${MAX_HEADER_BYTES} bytes together.`),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: new ApiError(413, 'too_large', 'The extensions of a chunk are too large.'),
  ERR_HTTP_REQUEST_TIMEOUT: new ApiError(408, 'too_slow', 'The request took too long to arrive.'),
}

/** For requests that the parser lets through and that name no address, such as `Host: ?`. */
const unreadable = () =>
  Response.json(errorBody(NO_HTTP, randomUUID()), { status: NO_HTTP.status, headers: { Connection: 'close' } })

function refuse(response: ServerResponse, error: ApiError): void {
  response.writeHead(error.status, { 'Content-Type': 'application/json', Connection: 'close' })
  response.end(JSON.stringify(errorBody(error, randomUUID())))
}

function rawAnswer(error: ApiError): string {
  const body = JSON.stringify(errorBody(error, randomUUID()))
  return [
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    '',
    body,
  ].join('\r\n')
}
