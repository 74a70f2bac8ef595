/** A service that does nothing but hold an embedded ClickHouse: `embedded.test.ts` forks and kills it. */
import { startEmbedded } from '../../../src/clickhouse/embedded/index.ts'

const server = await startEmbedded({ dataDir: process.argv[2] ?? '', log: () => {} })
process.send?.(server.url)
