/**
 * Every setting of the service, read from the environment here and nowhere else.
 * The table in docs/settings.md documents the same names; `test/config.test.ts` keeps the two equal.
 */
import * as v from 'valibot'

const LOOPBACK_HOSTS = new Set(['127.0.0.1', '::1', 'localhost'])

/** A whole number in [min, max], written in decimal. */
const integer = (fallback: number, min: number, max: number) =>
  v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d+$/, 'must be an integer'),
      v.transform(Number),
      v.minValue(min, `must be at least ${min}`),
      v.maxValue(max, `must be at most ${max}`),
    ),
    String(fallback),
  )

const list = v.pipe(
  v.string(),
  v.transform((text) =>
    text
      .split(',')
      .map((item) => item.trim())
      .filter(Boolean),
  ),
)

const IDENTIFIER = v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_]{0,63}$/, 'must be an identifier'))

const Environment = v.object({
  HOST: v.optional(v.string(), '127.0.0.1'),
  PORT: integer(8787, 0, 65_535),
  DATA_DIR: v.optional(v.string(), './data'),

  CLICKHOUSE_URL: v.optional(v.pipe(v.string(), v.url('must be http(s)://host:port'))),
  CLICKHOUSE_DATABASE: v.optional(IDENTIFIER, 'analytics'),
  CLICKHOUSE_CLUSTER: v.optional(IDENTIFIER),
  CLICKHOUSE_CLUSTER_URLS: v.optional(
    v.pipe(
      list,
      v.everyItem((url) => /^https?:\/\/[^/\s]+$/.test(url), 'must be http(s)://host:port, separated by commas'),
    ),
    '',
  ),
  CLICKHOUSE_USER: v.optional(v.string(), 'default'),
  CLICKHOUSE_PASSWORD: v.optional(v.string(), ''),
  CLICKHOUSE_READER_USER: v.optional(v.string()),
  CLICKHOUSE_READER_PASSWORD: v.optional(v.string(), ''),
  CLICKHOUSE_WRITER_USER: v.optional(v.string()),
  CLICKHOUSE_WRITER_PASSWORD: v.optional(v.string(), ''),

  SYNC_WRITES: v.optional(v.picklist(['on', 'off'], 'must be on or off'), 'on'),
  BACKUP_DISK: v.optional(v.pipe(v.string(), v.regex(/^\w{0,64}$/, 'must be the name of a disk')), ''),

  JWT_JWKS_URL: v.optional(v.pipe(v.string(), v.url('must be a URL'))),
  JWT_PUBLIC_KEY: v.optional(v.string()),
  JWT_SECRET: v.optional(
    v.pipe(
      v.string(),
      v.check((s) => Buffer.byteLength(s) >= 32, 'must be at least 32 bytes (256 bits)'),
    ),
  ),
  JWT_ALGORITHMS: v.optional(list),
  JWT_ISSUER: v.optional(v.string()),
  JWT_AUDIENCE: v.optional(v.string(), 'agnt-analytics'),
  JWT_ORG_CLAIM: v.optional(v.string(), 'org'),

  CORS_ORIGINS: v.optional(list, ''),
  FUTURE_TOLERANCE_SECONDS: integer(300, 0, 86_400 * 365),
  RATE_LIMIT_PER_SECOND: integer(1_000, 1, 1_000_000),
  MAX_CONCURRENT_QUERIES: integer(16, 1, 10_000),
  QUERY_TIMEOUT_SECONDS: integer(20, 1, 3_600),
  QUERY_MEMORY_MB: integer(4_096, 64, 1_048_576),
  INGEST_QUEUE_MB: integer(64, 1, 65_536),
  ID_FILTER_MB: integer(32, 1, 4_096),
  CACHE_MB: integer(32, 0, 65_536),
  RETENTION_DAYS: integer(0, 0, 36_500),
  SELF_CHECK_MINUTES: integer(60, 0, 10_080),
  METRICS_TOKEN: v.optional(v.pipe(v.string(), v.minLength(16, 'must be at least 16 characters long'))),
  SLOW_REQUEST_MS: integer(1_000, 0, 3_600_000),
  DRAIN_DELAY_SECONDS: integer(0, 0, 300),
  DRAIN_SECONDS: integer(15, 0, 3_600),
  OTEL_EXPORTER_OTLP_ENDPOINT: v.optional(v.pipe(v.string(), v.url('must be http(s)://host:port'))),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: v.optional(v.pipe(v.string(), v.url('must be a URL'))),
  LOG_LEVEL: v.optional(
    v.picklist(['debug', 'info', 'warn', 'error', 'silent'], 'must be debug, info, warn, error or silent'),
    'info',
  ),
})

/** The settings after validation; names are those of the environment. */
export type Config = v.InferOutput<typeof Environment> & {
  /** True where no JWT_… key is set and HOST is loopback: the service signs with a key of its own under DATA_DIR. */
  readonly localKey: boolean
}

export const SETTING_NAMES = Object.keys(Environment.entries)

/** A setting that cannot be used; `message` names every bad one. */
export class ConfigError extends Error {
  override name = 'ConfigError'
}

/**
 * Reads and checks all settings.
 * @throws ConfigError naming every bad setting at once; also where HOST is not loopback and no JWT key is set,
 * since an open service must not mint its own tokens.
 */
export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''))
  const result = v.safeParse(Environment, given)
  if (!result.success) {
    const lines = result.issues.map((issue) => `${v.getDotPath(issue)} ${issue.message}`)
    throw new ConfigError(`bad settings: ${lines.join('; ')}`)
  }
  const settings = result.output
  if (settings.CLICKHOUSE_CLUSTER !== undefined && settings.CLICKHOUSE_URL === undefined) {
    throw new ConfigError('bad settings: CLICKHOUSE_CLUSTER goes with CLICKHOUSE_URL')
  }
  if (settings.CLICKHOUSE_CLUSTER === undefined && settings.CLICKHOUSE_CLUSTER_URLS.length > 0) {
    throw new ConfigError('bad settings: CLICKHOUSE_CLUSTER_URLS goes with CLICKHOUSE_CLUSTER')
  }
  const keys = [settings.JWT_JWKS_URL, settings.JWT_PUBLIC_KEY, settings.JWT_SECRET].filter((key) => key !== undefined)
  if (keys.length > 1) throw new ConfigError('bad settings: set one of JWT_JWKS_URL, JWT_PUBLIC_KEY and JWT_SECRET, not several')
  if (keys.length === 0 && !LOOPBACK_HOSTS.has(settings.HOST)) {
    throw new ConfigError(
      `HOST=${settings.HOST} is reachable from outside: set JWT_JWKS_URL, JWT_PUBLIC_KEY or JWT_SECRET, or keep HOST on 127.0.0.1`,
    )
  }
  return Object.freeze({ ...settings, localKey: keys.length === 0 })
}
