/** Makes what the containers of a docker-compose file share, once: passwords of ClickHouse's users and the key of tokens. */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'

const secret = () => randomBytes(32).toString('base64url')
const admin = secret()
const reader = secret()
const writer = secret()
const lines = {
  ANALYTICS_ADMIN_PASSWORD: admin,
  ANALYTICS_READER_PASSWORD: reader,
  ANALYTICS_WRITER_PASSWORD: writer,
  ANALYTICS_CLUSTER_SECRET: secret(),
  CLICKHOUSE_USER: 'analytics_admin',
  CLICKHOUSE_PASSWORD: admin,
  CLICKHOUSE_READER_USER: 'analytics_reader',
  CLICKHOUSE_READER_PASSWORD: reader,
  CLICKHOUSE_WRITER_USER: 'analytics_writer',
  CLICKHOUSE_WRITER_PASSWORD: writer,
  JWT_SECRET: secret(),
}
try {
  const text = Object.entries(lines).map(([name, value]) => `${name}=${value}\n`)
  writeFileSync('/secrets/env', text.join(''), { flag: 'wx', mode: 0o444 })
} catch (error) {
  if (error.code !== 'EEXIST') throw error
}
