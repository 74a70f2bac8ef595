/** GET /health/live and /health/ready: what orchestrators ask. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Handler } from 'hono'
import * as v from 'valibot'
import type { Verifier } from '../../auth/verifier.ts'
import type { Store } from '../../clickhouse/store.ts'
import { count, instant, orNull, text, whatIs } from '../../domain/response-fields.ts'
import type { Writer } from '../../ingest/batch-writer.ts'
import type { Rebuilds } from '../../maintenance/backfill.ts'
import type { SelfCheck } from '../../maintenance/self-check.ts'
import { toIso } from '../../time/iso8601.ts'
import type { Env } from '../environment.ts'

export interface ReadyDeps {
  readonly store: Store
  readonly writer: Writer
  readonly verifier: Verifier
  readonly rebuilds: Rebuilds
  readonly selfCheck: SelfCheck
  /** The last migration of this build. */
  readonly schemaVersion: number
  /** True once the service was told to stop. */
  readonly draining: () => boolean
}

/** Whoever probes waits for seconds at most, and what does not answer in time is out of reach for callers too. */
const PROBE_MS = 2_000

export const Liveness = v.strictObject({ status: v.literal('ok') })

export const Readiness = v.strictObject({
  status: whatIs(
    ['ok', 'unavailable', 'draining'],
    'Whether requests can be answered; draining once the service was told to stop.',
  ),
  clickhouse: whatIs(['ok', 'out of reach'], 'The store.'),
  schema: whatIs(['ok', 'missing', 'unknown'], 'The tables of this build; unknown where the store does not say.'),
  ingestion: whatIs(['ok', 'events cannot be stored'], 'The lane through which events are stored.'),
  keys: whatIs(['ok', 'never fetched'], 'The keys that tokens are verified with.'),
  idFilter: whatIs(['ok', 'loading'], 'Memory of the ids stored; while it loads, events are stored more slowly.'),
  queuedEvents: count('Events that wait to be stored.'),
  rebuilding: v.pipe(
    v.array(
      v.strictObject({
        rollup: text('Which.'),
        done: v.pipe(v.number(), v.minValue(0), v.maxValue(1), v.description('How much of it is.')),
      }),
    ),
    v.description('Rollups that are made anew from the log after an upgrade; until then answers are as exact, and slow.'),
  ),
  drift: orNull(
    v.strictObject({ days: count('Days that differ.'), checkedAt: instant('When they were compared.') }),
    'The last comparison of rollups with the log; null before the first.',
  ),
})

export const live: Handler<Env> = (c) => c.json({ status: 'ok' })

export const ready =
  ({ store, writer, verifier, rebuilds, selfCheck, schemaVersion, draining }: ReadyDeps): Handler<Env> =>
  async (c) => {
    const [clickhouse, version, keys, missing] = await Promise.all([
      inTime(store.ping(), false),
      inTime(store.schemaVersion(), null),
      inTime(verifier.hasKeys(), false),
      inTime(store.missingShards(), ['cannot be told']),
    ])
    const schema = version === null ? 'unknown' : version >= schemaVersion ? 'ok' : 'missing'
    const { last } = selfCheck
    const stores = writer.healthy && canWrite(store)
    const isReady = clickhouse && schema === 'ok' && missing.length === 0 && stores && keys
    return c.json(
      {
        status: draining() ? 'draining' : isReady ? 'ok' : 'unavailable',
        clickhouse: clickhouse ? 'ok' : 'out of reach',
        ...(missing.length > 0 ? { missingShards: missing } : {}),
        schema,
        ingestion: stores ? 'ok' : 'events cannot be stored',
        keys: keys ? 'ok' : 'never fetched',
        idFilter: writer.filterComplete ? 'ok' : 'loading',
        queuedEvents: writer.queued,
        rebuilding: rebuilds.progress,
        drift: last && { days: last.drift, checkedAt: toIso(last.at) },
      },
      isReady && !draining() ? 200 : 503,
    )
  }

function canWrite(store: Store): boolean {
  try {
    store.assertWritten()
    return true
  } catch {
    return false
  }
}

/** What `work` gives within PROBE_MS, else `fallback`. */
const inTime = <T, F>(work: Promise<T>, fallback: F): Promise<T | F> =>
  Promise.race([work.catch(() => fallback), sleep(PROBE_MS, fallback, { ref: false })])
