import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Minutes each: `npx vitest run --exclude '' test/long/…` names one.
    exclude: ['test/long/**', 'node_modules/**'],
    globalSetup: ['test/clickhouse-server.ts'],
    // ClickHouse works beside the tests, so more workers than this only wait for it.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
