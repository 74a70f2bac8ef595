/** The network between one instance and ClickHouse: an HTTP proxy that makes it slow, lets bodies stall, and breaks it. */
import { once } from 'node:events'
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * What happens to a request:
 * - `refuse`: the connection ends, and ClickHouse sees nothing of it
 * - `cut`: half of the body gets through, then the connection ends
 * - `lose`: ClickHouse does what it is asked to, and the connection ends without the answer
 * - `stall`: the body gets through a byte at a time, and whole after `ms`, also when whoever sent it has given up
 */
export type Fault = { kind: 'refuse' | 'cut' | 'lose' } | { kind: 'stall'; ms: number }

/** Between two bytes of a body that stalls; ClickHouse gives up a body of which nothing comes for 30 s. */
const DRIP_MS = 4_000

export interface Gateway {
  readonly url: string
  /** Added before each request. */
  latencyMs: number
  /** Asked about each request by the text of its statement; undefined where it gets through. */
  fault: (statement: string) => Fault | undefined
  /** Requests that a fault was put into. */
  readonly faults: number
  /** Bodies that stall now. */
  readonly stalled: number
  close(): void
}

/** @param target the address of ClickHouse */
export async function startGateway(target: string): Promise<Gateway> {
  let faults = 0
  let stalled = 0
  const closing = new AbortController()
  const server = createServer((incoming, response) => {
    handle(incoming, response).catch(() => response.destroy())
  })

  async function handle(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    const inUrl = new URL(incoming.url ?? '/', target).searchParams.get('query')
    const fault = gateway.fault(inUrl ?? body.toString('utf8', 0, 200))
    if (fault) faults++
    if (gateway.latencyMs > 0) await sleep(gateway.latencyMs)
    if (fault?.kind === 'refuse') {
      response.destroy()
      return
    }
    const { connection: _, 'transfer-encoding': __, ...headers } = incoming.headers
    const outgoing = request(new URL(incoming.url ?? '/', target), {
      method: incoming.method,
      headers: { ...headers, 'content-length': body.length },
      agent: false,
    })
    // Whoever asks may give up; a body that is on its way is on its way.
    if (fault?.kind !== 'stall') response.once('close', () => response.writableFinished || outgoing.destroy())
    const answered = new Promise<IncomingMessage>((resolve, reject) => outgoing.once('response', resolve).once('error', reject))
    answered.catch(() => {})
    if (fault?.kind === 'cut') {
      outgoing.write(body.subarray(0, body.length >> 1), () => outgoing.destroy())
      response.destroy()
      return
    }
    if (fault?.kind === 'stall') {
      stalled++
      await drip(outgoing, body, fault.ms).finally(() => stalled--)
    } else outgoing.end(body)
    const answer = await answered
    if (fault?.kind === 'lose') {
      answer.resume()
      await once(answer, 'close')
      response.destroy()
      return
    }
    const { connection: ___, 'keep-alive': ____, ...more } = answer.headers
    response.writeHead(answer.statusCode ?? 502, more)
    answer.on('error', () => response.destroy()).pipe(response)
  }

  async function drip(outgoing: ReturnType<typeof request>, body: Buffer, ms: number): Promise<void> {
    let at = Math.max(0, body.length - 50)
    outgoing.write(body.subarray(0, at))
    for (const until = performance.now() + ms; performance.now() < until && at < body.length - 1 && !outgoing.destroyed;) {
      outgoing.write(body.subarray(at, ++at))
      await sleep(Math.min(DRIP_MS, Math.max(0, until - performance.now())), undefined, { signal: closing.signal })
    }
    outgoing.end(body.subarray(at))
  }

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const gateway: Gateway = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    latencyMs: 0,
    fault: () => undefined,
    get faults() {
      return faults
    },
    get stalled() {
      return stalled
    },
    close() {
      closing.abort()
      server.close()
      server.closeAllConnections()
    },
  }
  return gateway
}
