/** Embedded ClickHouse servers as the shards of one cluster, without replicas and Keeper. */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbedded, type EmbeddedServer, type Log } from '../../src/clickhouse/embedded/index.ts'
import type { Cluster } from '../../src/clickhouse/cluster-config.ts'
import type { ClickHouse } from '../../src/service.ts'

const CLUSTER = 'shards'

export interface Shards extends ClickHouse {
  readonly cluster: Cluster
  readonly servers: readonly EmbeddedServer[]
}

/** Starts them on a temporary directory; the service is to ask the first. All have the same users and passwords. */
export async function startShards({ count = 2, log = () => {} }: { count?: number; log?: Log } = {}): Promise<Shards> {
  const dataDir = await mkdtemp(join(tmpdir(), 'analytics-shards-'))
  const tcpPorts = await freePorts(count)
  const secret = randomBytes(24).toString('base64url')
  const servers: EmbeddedServer[] = []
  const stop = async () => {
    await Promise.all(servers.map((server) => server.stop()))
    await rm(dataDir, { recursive: true, force: true, maxRetries: 5 })
  }
  try {
    for (let index = 0; index < count; index++) {
      const shard = { cluster: CLUSTER, tcpPorts, index, secret, ...(servers[0] ? { users: servers[0] } : {}) }
      servers.push(await startEmbedded({ dataDir: join(dataDir, String(index + 1)), log, shard }))
    }
  } catch (error) {
    await stop()
    throw error
  }
  const [{ url, admin, reader, writer }] = servers as [EmbeddedServer]
  return { url, admin, reader, writer, cluster: { name: CLUSTER, urls: servers.map((server) => server.url) }, servers, stop }
}

/** Ports that nobody listens on just now. */
async function freePorts(count: number): Promise<number[]> {
  const listeners = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(listeners.map((listener) => new Promise((resolve) => listener.once('listening', resolve))))
  const ports = listeners.map((listener) => (listener.address() as AddressInfo).port)
  await Promise.all(listeners.map((listener) => new Promise((resolve) => listener.close(resolve))))
  return ports
}
