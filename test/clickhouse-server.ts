/**
 * The one ClickHouse of a test run; each test file makes databases of its own in it.
 *
 *     (nothing set)               the embedded one, on a temporary directory
 *     TEST_CLICKHOUSE=shards      two embedded ones, each with a part of the rows
 *     TEST_CLICKHOUSE=container   a container of IMAGE, through Docker
 *     CLICKHOUSE_URL=…            a running server with clickhouse/server.xml, with CLICKHOUSE_USER and CLICKHOUSE_PASSWORD, and the
 *                                 other CLICKHOUSE_… settings of the service; wants every right on analytics_test_*
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { TestProject } from 'vitest/node'
import { startEmbedded, type Log } from '../src/clickhouse/embedded/index.ts'
import { readConfig } from '../src/config.ts'
import { openClickHouse, type ClickHouse } from '../src/service.ts'
import { startShards } from './cluster/shards.ts'

/** How to reach it. */
export type Connection = Omit<ClickHouse, 'stop'>

declare module 'vitest' {
  export interface ProvidedContext {
    clickhouse: Connection
  }
}

/** A release of the branch that the embedded one is built from; any since 26.2 will do. */
const IMAGE = 'clickhouse/clickhouse-server:26.7.3.9'
const HTTP_PORT = 8123
/** The first run pulls the image. */
const CONTAINER_START_MS = 300_000

const STARTERS: Record<string, () => Promise<ClickHouse>> = { embedded, shards, container }

export default async function setup(project: TestProject) {
  const { TEST_CLICKHOUSE: wanted, CLICKHOUSE_URL: url } = process.env
  if (wanted && url) throw new Error('TEST_CLICKHOUSE and CLICKHOUSE_URL exclude each other: set one of them')
  const start = url ? running : STARTERS[wanted || 'embedded']
  if (!start) {
    throw new Error(`TEST_CLICKHOUSE=${wanted} is unknown: wants ${Object.keys(STARTERS).join(' or ')}, or CLICKHOUSE_URL`)
  }
  const { stop, ...connection } = await start()
  project.provide('clickhouse', connection)
  return stop
}

const complain: Log = (level, message) => {
  if (level !== 'info') console.error(message)
}

async function embedded(): Promise<ClickHouse> {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-test-server-'))
  // What a power cut leaves is tested in test/durability alone, and hundreds of databases are made here.
  const server = await startEmbedded({ dataDir, log: complain, syncWrites: false })
  return {
    url: server.url,
    admin: server.admin,
    reader: server.reader,
    writer: server.writer,
    async stop() {
      await server.stop()
      await rm(dataDir, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

async function shards(): Promise<ClickHouse> {
  const { servers: _, ...started } = await startShards({ log: complain })
  return started
}

const user = (role: string) => ({ username: `analytics_${role}`, password: randomBytes(24).toString('base64url') })

/** A server with the project's own users, as clickhouse/users.xml says to set them up. */
async function container(): Promise<ClickHouse> {
  // Loaded here alone: it takes a second, and no other way needs it.
  const { GenericContainer, Wait } = await import('testcontainers')
  const users = { admin: user('admin'), reader: user('reader'), writer: user('writer') }
  const server = await new GenericContainer(IMAGE)
    .withExposedPorts(HTTP_PORT)
    .withEnvironment({
      ANALYTICS_ADMIN_PASSWORD: users.admin.password,
      ANALYTICS_READER_PASSWORD: users.reader.password,
      ANALYTICS_WRITER_PASSWORD: users.writer.password,
    })
    .withCopyFilesToContainer([
      {
        source: fileURLToPath(new URL('../clickhouse/users.xml', import.meta.url)),
        target: '/etc/clickhouse-server/users.d/analytics.xml',
        mode: 0o644,
      },
      {
        source: fileURLToPath(new URL('../clickhouse/server.xml', import.meta.url)),
        target: '/etc/clickhouse-server/config.d/analytics.xml',
        mode: 0o644,
      },
    ])
    .withUlimits({ nofile: { soft: 262_144, hard: 262_144 } })
    .withWaitStrategy(Wait.forHttp('/ping', HTTP_PORT).forStatusCode(200))
    .withStartupTimeout(CONTAINER_START_MS)
    .start()
  return {
    url: `http://${server.getHost()}:${server.getMappedPort(HTTP_PORT)}`,
    ...users,
    async stop() {
      await server.stop()
    },
  }
}

/** Reached as the service itself would reach it. */
function running(): Promise<ClickHouse> {
  const settings = Object.entries(process.env).filter(([name]) => name.startsWith('CLICKHOUSE_'))
  return openClickHouse(readConfig(Object.fromEntries(settings)), () => {})
}
