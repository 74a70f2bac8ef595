/** Ending a server: what is under way gets its whole answer. */
import { Agent, get, type IncomingMessage, type Server } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { drain, listen } from '../../src/http/server.ts'

/** More than the buffers of both ends of a loopback connection hold. */
const LARGE = 16 * 1_048_576

async function answer(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url)
  if (pathname === '/slow') await sleep(400)
  if (pathname === '/hanging') await sleep(60_000, undefined, { ref: false })
  if (pathname === '/large') return new Response('x'.repeat(LARGE))
  if (pathname === '/export') return new Response(rows(), { headers: { 'Content-Type': 'text/csv' } })
  return Response.json({ data: pathname })
}

const rows = () => {
  let sent = 0
  return new ReadableStream({
    async pull(controller) {
      await sleep(50)
      if (sent++ < 10) controller.enqueue(new TextEncoder().encode('row\r\n'))
      else controller.close()
    },
  })
}

const closing: Array<() => void> = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

async function start() {
  const server = await listen(answer, { host: '127.0.0.1', port: 0 })
  const agent = new Agent({ keepAlive: true })
  closing.push(() => {
    agent.destroy()
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const ask = (path: string) =>
    new Promise<{ text: string; connection: string | undefined }>((resolve, reject) => {
      get({ port, path, agent }, (response: IncomingMessage) => {
        let text = ''
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
        response.on('end', () => resolve({ text, connection: response.headers.connection })).on('error', reject)
      }).on('error', reject)
    })
  return { server, port, ask }
}

const open = (server: Server) =>
  new Promise<number>((resolve, reject) => server.getConnections((error, n) => (error ? reject(error) : resolve(n))))

test('requests under way are answered, say that their connection ends, and no new one gets in', async () => {
  const { server, port, ask } = await start()
  await ask('/kept')
  const asked = [ask('/slow'), ask('/slow'), ask('/export')]
  await sleep(100)
  const drained = drain(server, { delayMs: 0, patienceMs: 5_000 })
  await expect(ask('/late')).rejects.toThrow(/ECONNREFUSED|ECONNRESET/)
  const answers = await Promise.all(asked)
  expect(answers.map(({ text }) => text)).toEqual(['{"data":"/slow"}', '{"data":"/slow"}', 'row\r\n'.repeat(10)])
  // Of an answer that has begun, it is too late to say so.
  expect(answers.slice(0, 2).map(({ connection }) => connection)).toEqual(['close', 'close'])
  const waited = performance.now()
  expect(await drained).toBe(true)
  expect(performance.now() - waited).toBeLessThan(500)
  expect(await open(server)).toBe(0)
  expect(await new Promise((resolve) => connect(port, '127.0.0.1').once('error', () => resolve('refused')))).toBe('refused')
})

test('an answer that is ended, and not read yet, is not cut off', async () => {
  const { server, port } = await start()
  const reader: Socket = connect(port, '127.0.0.1')
  reader.write('GET /large HTTP/1.1\r\nHost: x\r\n\r\n')
  reader.pause()
  await sleep(300)
  const drained = drain(server, { delayMs: 0, patienceMs: 10_000 })
  await sleep(200)
  let bytes = 0
  reader.on('data', (chunk) => (bytes += chunk.length)).resume()
  await new Promise((resolve) => reader.once('close', resolve))
  expect(bytes).toBeGreaterThan(LARGE)
  expect(await drained).toBe(true)
})

test('for a while requests are still taken, each on its last connection, while others learn of it', async () => {
  const { server, ask } = await start()
  const drained = drain(server, { delayMs: 500, patienceMs: 5_000 })
  await sleep(100)
  expect(await ask('/late')).toEqual({ text: '{"data":"/late"}', connection: 'close' })
  expect(await ask('/later')).toEqual({ text: '{"data":"/later"}', connection: 'close' })
  expect(await drained).toBe(true)
  await expect(ask('/last')).rejects.toThrow('ECONNREFUSED')
})

test('what takes too long is cut off', async () => {
  const { server, ask } = await start()
  const hanging = expect(ask('/hanging')).rejects.toThrow('socket hang up')
  await sleep(100)
  const begun = performance.now()
  expect(await drain(server, { delayMs: 0, patienceMs: 500 })).toBe(false)
  expect(performance.now() - begun).toBeLessThan(1_500)
  await hanging
})
