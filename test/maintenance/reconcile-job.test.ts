/** A reconciliation that takes longer than a request may. */
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { askService } from '../../src/commands/operator.ts'
import { readConfig } from '../../src/config.ts'
import { ReconcileJobs, type Reconciled } from '../../src/maintenance/reconcile-job.ts'

const RESULT: Reconciled = {
  days: 3,
  drift: [],
  repaired: 0,
  duplicateIds: [],
  sharedNumbers: [],
  splitNames: [],
  identitiesRepaired: 0,
}
const RANGE = { from: 0, to: 1, repair: false }

/** Jobs that end when they are told to. */
function jobs() {
  const runs: Array<{ end: (result: Reconciled) => void; fail: (error: Error) => void }> = []
  const all = new ReconcileJobs(() => new Promise((end, fail) => runs.push({ end, fail })), 20)
  return { all, runs }
}

describe('a reconciliation', () => {
  test('that takes long is asked for again, runs once, and its result is given out once', async () => {
    const { all, runs } = jobs()
    expect(await all.ask('a', RANGE)).toBe('running')
    expect(await all.ask('a', RANGE)).toBe('running')
    expect(runs).toHaveLength(1)
    // It ends while nobody asks.
    runs[0]?.end(RESULT)
    await new Promise(setImmediate)
    expect(await all.ask('a', RANGE)).toBe(RESULT)
    expect(await all.ask('a', RANGE)).toBe('running')
    expect(runs).toHaveLength(2)
  })

  test('that fails while nobody asks says so to whoever asks next, and can be asked for again', async () => {
    const { all, runs } = jobs()
    expect(await all.ask('a', RANGE)).toBe('running')
    runs[0]?.fail(new Error('out of reach'))
    await new Promise(setImmediate)
    await expect(all.ask('a', RANGE)).rejects.toThrow('out of reach')
    expect(await all.ask('a', RANGE)).toBe('running')
  })

  test('of another range waits until the first one has ended', async () => {
    const { all, runs } = jobs()
    expect(await all.ask('a', RANGE)).toBe('running')
    expect(await all.ask('b', RANGE)).toBe('busy')
    expect(runs).toHaveLength(1)
    runs[0]?.end(RESULT)
    await new Promise(setImmediate)
    expect(await all.ask('b', RANGE)).toBe('running')
  })
})

describe('a command', () => {
  let server: Server | undefined
  let dataDir: string
  afterEach(async () => {
    server?.closeAllConnections()
    await new Promise((done) => (server ? server.close(done) : done(undefined)))
    await rm(dataDir, { recursive: true, force: true })
  })

  async function listening(answer: Parameters<typeof createServer>[1]) {
    server = createServer({}, answer as never)
    await new Promise<void>((done) => server?.listen(0, '127.0.0.1', done))
    const { port } = server.address() as AddressInfo
    dataDir = await mkdtemp(join(tmpdir(), 'analytics-command-'))
    return { port, config: readConfig({ DATA_DIR: dataDir, PORT: String(port) }) }
  }

  test('does not take a service that breaks off for one that does not run', async () => {
    const { config } = await listening(((request: { socket: { destroy(): void } }) => request.socket.destroy()) as never)
    await expect(askService(config, '/operations/reconcile', {})).rejects.toThrow(/does not answer/)
  })

  test('opens the database itself only where nothing listens, and not where an address was given', async () => {
    const { config, port } = await listening((() => {}) as never)
    await new Promise((done) => server?.close(done))
    server = undefined
    expect(await askService(config, '/operations/reconcile', {})).toBeUndefined()
    await expect(askService(config, '/operations/reconcile', { url: `http://127.0.0.1:${port}` })).rejects.toThrow(/ECONNREFUSED/)
  })
})
