/** The composition root: what a service starts, it ends. */
import { createHook } from 'node:async_hooks'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, inject, test, vi } from 'vitest'
import { Resources } from '../src/service/resources.ts'
import { createService } from '../src/service.ts'
import { readConfig } from '../src/config.ts'
import { dropDatabase } from './support.ts'

const DATABASE = 'analytics_test_restarted'
const clickhouse = { ...inject('clickhouse'), stop: () => Promise.resolve() }

/** Timers and sockets that the service's own code, or the client of ClickHouse, has made and that are still there, by id. */
const open = new Map<number, string>()
const hook = createHook({
  init(id, type) {
    if (type !== 'Timeout' && type !== 'TCPWRAP') return
    const stack = new Error('made here').stack?.split('\n').filter((line) => /\/(src|@clickhouse)\//.test(line)) ?? []
    if (stack.length > 0) open.set(id, [type, ...stack.slice(0, 2)].join('\n'))
  },
  destroy: (id) => void open.delete(id),
})
afterEach(() => {
  hook.disable()
  open.clear()
})

test('a service that is started and closed again and again leaves no timer and no connection', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-restarted-'))
  const listeners = new Set<() => void>()
  // Settings under which everything that runs by itself does: shared with other instances, days that go, self-checks.
  const config = readConfig({
    DATA_DIR: dataDir,
    CLICKHOUSE_URL: clickhouse.url,
    CLICKHOUSE_DATABASE: DATABASE,
    LOG_LEVEL: 'silent',
    RETENTION_DAYS: '30',
    SELF_CHECK_MINUTES: '1',
    JWT_SECRET: 'a-secret-of-at-least-32-characters',
  })
  hook.enable()
  try {
    for (let round = 0; round < 3; round++) {
      const service = await createService({
        config,
        clickhouse: {
          ...clickhouse,
          onExit(callback) {
            listeners.add(callback)
            return () => listeners.delete(callback)
          },
        },
        database: DATABASE,
        log: () => {},
      })
      expect(listeners.size).toBe(3)
      expect((await service.app.request('/health/ready')).status).toBe(200)
      // That the hook sees what there is.
      expect([...open.values()].filter((made) => made.includes('retention.ts'))).toHaveLength(1)
      await service.close()
      expect(listeners.size).toBe(0)
    }
    // The health check gives up on ClickHouse after two seconds by a timer that nothing waits for.
    await expect.poll(() => [...open.values()]).toEqual([])
  } finally {
    hook.disable()
    await dropDatabase(clickhouse, DATABASE)
    await rm(dataDir, { recursive: true, force: true })
  }
}, 60_000)

test('what was opened is closed where a later phase fails', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-failing-'))
  const config = readConfig({ DATA_DIR: dataDir, LOG_LEVEL: 'silent' })
  const start = () =>
    createService({
      config,
      clickhouse,
      database: DATABASE,
      log: () => {},
      makeCache() {
        throw new Error('no cache')
      },
    })
  // Twice: the second would find the data directory locked by the first.
  await expect(start()).rejects.toThrow('no cache')
  await expect(start()).rejects.toThrow('no cache')
  await dropDatabase(clickhouse, DATABASE)
  await rm(dataDir, { recursive: true, force: true })
})

test('resources are undone in reverse, all of them even where one fails', async () => {
  const resources = new Resources()
  const undone: string[] = []
  for (const name of ['first', 'second', 'third']) {
    resources.add(() => {
      undone.push(name)
      if (name === 'second') throw new Error('second cannot be undone')
    })
  }
  await expect(resources.close()).rejects.toThrow('second cannot be undone')
  expect(undone).toEqual(['third', 'second', 'first'])
  await resources.close()
  expect(undone).toHaveLength(3)
})

test('work that is repeated ends with its service', async () => {
  vi.useFakeTimers()
  try {
    const resources = new Resources()
    let calls = 0
    resources.every(1_000, async () => void calls++)
    vi.advanceTimersByTime(2_500)
    await resources.close()
    vi.advanceTimersByTime(5_000)
    expect(calls).toBe(2)
  } finally {
    vi.useRealTimers()
  }
})
