/** What operators and orchestrators ask: is it alive, is it ready, what does it do, do the rollups still say what the log says. */
import { createHash, timingSafeEqual } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Hono } from 'hono'
import type { Registry } from 'prom-client'
import { readParameters, choice, moment, text } from '../../analytics/parameters.ts'
import { requireScope } from '../../auth/principal.ts'
import type { Verifier } from '../../auth/verifier.ts'
import type { Store } from '../../clickhouse/store.ts'
import type { TenantKey } from '../../domain/tenant.ts'
import { ApiError, badRequest, unavailable } from '../../domain/errors.ts'
import type { Tenants } from '../../ids/tenants.ts'
import type { Writer } from '../../ingest/batch-writer.ts'
import type { Rebuilds } from '../../maintenance/backfill.ts'
import type { BrokenParts } from '../../maintenance/broken-parts.ts'
import { BACKUP_NAME, BackupError, type Backups } from '../../maintenance/backup.ts'
import type { Seals } from '../../maintenance/compaction.ts'
import { reconcile, type Reconciliation } from '../../maintenance/reconcile.ts'
import type { Retention } from '../../maintenance/retention.ts'
import type { SelfCheck } from '../../maintenance/self-check.ts'
import { MAX_INSTANT, MIN_INSTANT } from '../../time/instant.ts'
import { toIso } from '../../time/iso8601.ts'

export interface OperationsParts {
  readonly store: Store
  readonly tenants: Tenants
  readonly seals: Seals
  readonly rebuilds: Rebuilds
  readonly retention: Retention
  readonly writer: Writer
  readonly verifier: Verifier
  readonly backups: Backups
  readonly broken: BrokenParts
  readonly clock: () => number
  /** Told which answers a repair may have changed. */
  readonly onRepaired?: (tenant: TenantKey, moments: readonly number[]) => void
}

export interface ProbeParts {
  readonly selfCheck: SelfCheck
  readonly registry: Registry
  /** Opens /metrics to whoever bears it. */
  readonly metricsToken: string | undefined
  /** /metrics is open to everybody who reaches the port: of a service that is for this machine alone. */
  readonly metricsOpen: boolean
  /** The last migration of this build. */
  readonly schemaVersion: number
  readonly draining: () => boolean
}

/** Whoever probes waits for seconds at most, and what does not answer in time is out of reach for callers too. */
const PROBE_MS = 2_000

export const reconcileParameters = {
  startDate: moment('Compares from here on; from the first event where not given.', '2011-02-18'),
  endDate: moment('Compares up to here; up to the last event where not given.', '2011-02-25'),
  repair: choice(['false', 'true'], 'Whether to write anew what differs.'),
}

export const backupParameters = {
  name: text(
    (name) => BACKUP_NAME.test(name),
    'wants 1 to 100 letters, digits and . _ -, a letter or digit first',
    'What it is kept as; by default analytics- and the present. Asking for the same name again waits for it.',
    'analytics-2011-02-25',
  ),
}

/** Routes under /health and /operations, and /metrics. */
export function operations(parts: OperationsParts, probe: ProbeParts) {
  const { store, writer, verifier } = parts
  const app = new Hono()

  app.get('/health/live', (c) => c.json({ status: 'ok' }))

  app.get('/health/ready', async (c) => {
    const [clickhouse, version, keys, missing] = await Promise.all([
      inTime(store.ping(), false),
      inTime(store.schemaVersion(), null),
      inTime(verifier.hasKeys(), false),
      inTime(store.missingShards(), ['cannot be told']),
    ])
    const schema = version === null ? 'unknown' : version >= probe.schemaVersion ? 'ok' : 'missing'
    const { last } = probe.selfCheck
    const stores = writer.healthy && canWrite(store)
    const ready = clickhouse && schema === 'ok' && missing.length === 0 && stores && keys
    return c.json(
      {
        status: probe.draining() ? 'draining' : ready ? 'ok' : 'unavailable',
        clickhouse: clickhouse ? 'ok' : 'out of reach',
        ...(missing.length > 0 ? { missingShards: missing } : {}),
        schema,
        ingestion: stores ? 'ok' : 'events cannot be stored',
        keys: keys ? 'ok' : 'never fetched',
        idFilter: writer.filterComplete ? 'ok' : 'loading',
        queuedEvents: writer.queued,
        rebuilding: parts.rebuilds.progress,
        drift: last && { days: last.drift, checkedAt: toIso(last.at) },
      },
      ready && !probe.draining() ? 200 : 503,
    )
  })

  // Totals over all tenants are no tenant's business, and even their growth tells something.
  app.get('/metrics', async (c) => {
    const authorization = c.req.header('Authorization')
    const open = probe.metricsOpen && probe.metricsToken === undefined
    if (!open && !isBearer(authorization, probe.metricsToken)) {
      requireScope(await verifier.verify(authorization), 'analytics:operate')
    }
    c.header('Content-Type', probe.registry.contentType)
    c.header('Cache-Control', 'no-store')
    return c.body(await probe.registry.metrics())
  })

  // Across all tenants, so it wants a scope that no tenant's token should have.
  app.post('/operations/reconcile', async (c) => {
    requireScope(await parts.verifier.verify(c.req.header('Authorization')), 'analytics:operate')
    const given = readParameters(reconcileParameters, new URL(c.req.url).search)
    const range = { from: given.startDate ?? MIN_INSTANT, to: given.endDate ?? MAX_INSTANT, repair: given.repair === 'true', horizon: parts.retention.horizon, onRepaired: parts.onRepaired }
    if (range.from >= range.to) throw badRequest([{ parameter: 'endDate', message: 'must be after startDate' }])
    const compare = () => reconcile(parts.store, parts.seals, (work) => parts.writer.exclusive(work), range)
    const result = await (range.repair ? parts.broken.healing(compare) : compare())
    return c.json({ success: true, data: await readable(result, parts.tenants) })
  })

  app.post('/operations/backup', async (c) => {
    requireScope(await parts.verifier.verify(c.req.header('Authorization')), 'analytics:operate')
    const given = readParameters(backupParameters, new URL(c.req.url).search)
    const name = given.name ?? `analytics-${toIso(parts.clock()).replace(/[:.]/g, '-')}`
    try {
      const made = await parts.backups.make(name)
      return c.json({ success: true, data: made ? { ...made, status: 'complete' } : { name, status: 'running', bytes: 0, files: 0 } })
    } catch (error) {
      if (!(error instanceof BackupError)) throw error
      if (/already exists|is under way|is being written already/i.test(error.message)) {
        const message = 'There is a backup of this name, or another one is under way.'
        throw new ApiError(409, 'backup_exists', message, { headers: { 'Retry-After': '60' } })
      }
      throw unavailable('The backup cannot be made: the log says why.', 60, error)
    }
  })
  return app
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

/** Digests are compared, which are equally long whatever was sent. */
function isBearer(authorization: string | undefined, token: string | undefined): boolean {
  const [, sent] = /^bearer +(\S+)$/i.exec(authorization ?? '') ?? []
  return token !== undefined && sent !== undefined && timingSafeEqual(digest(sent), digest(token))
}

const digest = (token: string) => createHash('sha256').update(token).digest()

/** The result with names and dates in place of keys and numbers; a tenant that has no name has its key. */
export async function readable({ days, drift, repaired }: Reconciliation, tenants: Tenants) {
  const names = await tenants.names([...new Set(drift.map(({ tenant }) => tenant))])
  return {
    days,
    repaired,
    drift: drift.map(({ tenant, start, ...rest }) => ({
      tenant: names.get(tenant) ?? tenant,
      start: toIso(start * 1000),
      ...rest,
    })),
  }
}
