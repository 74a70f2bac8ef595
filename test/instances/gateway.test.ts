/** The network of the suite does to a request what its fault says. */
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { startGateway, type Fault, type Gateway } from './gateway.ts'

const STATEMENT = 'INSERT INTO events VALUES'
const BODY = 'x'.repeat(1_000)

let server: Server
let gateway: Gateway
/** Bodies that came through whole. */
let bodies: string[]

beforeAll(async () => {
  server = createServer((incoming, response) => {
    let body = ''
    incoming
      .setEncoding('utf8')
      .on('data', (text: string) => (body += text))
      .on('error', () => {})
    incoming.on('end', () => {
      bodies.push(body)
      response.end('done')
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  gateway = await startGateway(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
beforeEach(() => {
  bodies = []
})
afterAll(() => {
  gateway.close()
  server.close()
})

/** The answer to a request that meets a fault; undefined where there is none. */
async function sent(fault?: Fault, timeoutMs = 5_000): Promise<string | undefined> {
  gateway.fault = (statement) => (statement === STATEMENT ? fault : undefined)
  const address = `${gateway.url}/?${new URLSearchParams({ query: STATEMENT })}`
  const signal = AbortSignal.timeout(timeoutMs)
  return fetch(address, { method: 'POST', body: BODY, signal }).then(
    (response) => response.text(),
    () => undefined,
  )
}

test('without a fault a request and its answer pass', async () => {
  expect(await sent()).toBe('done')
  expect(bodies).toEqual([BODY])
})

test('the statement is that of the address, or the body', async () => {
  const statements: string[] = []
  gateway.fault = (statement) => void statements.push(statement)
  await fetch(gateway.url, { method: 'POST', body: 'SELECT 1' })
  await fetch(`${gateway.url}/?query=SELECT+2`, { method: 'POST', body: 'rows' })
  expect(statements).toEqual(['SELECT 1', 'SELECT 2'])
})

test('of a request that is refused or cut nothing whole comes through', async () => {
  expect(await sent({ kind: 'refuse' })).toBeUndefined()
  expect(await sent({ kind: 'cut' })).toBeUndefined()
  expect(bodies).toEqual([])
})

test('a lost answer is that of a request which was served', async () => {
  expect(await sent({ kind: 'lose' })).toBeUndefined()
  expect(bodies).toEqual([BODY])
})

test('a body that stalls arrives whole after its time, also when its sender has given up', async () => {
  const begun = performance.now()
  expect(await sent({ kind: 'stall', ms: 600 }, 200)).toBeUndefined()
  expect(bodies).toEqual([])
  expect(gateway.stalled).toBe(1)
  await expect.poll(() => bodies, { timeout: 5_000 }).toEqual([BODY])
  expect(performance.now() - begun).toBeGreaterThanOrEqual(590)
  expect(await sent({ kind: 'stall', ms: 100 })).toBe('done')
  expect(gateway.stalled).toBe(0)
})
