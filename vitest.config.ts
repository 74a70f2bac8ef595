import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/clickhouse-server.ts'],
    // ClickHouse works beside the tests, so more workers than this only wait for it.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // By default a second, which a busy machine takes for a page.
    expect: { poll: { timeout: 10_000 } },
  },
})
