/** What operators and orchestrators ask: is it alive, is it ready, do the rollups still say what the raw log says. */
import { Hono } from 'hono'
import { badRequest } from './errors.ts'
import { readParameters, choice, moment } from '../analytics/parameters.ts'
import type { Store } from '../clickhouse/store.ts'
import { reconcile, type Reconciliation } from '../ingest/reconcile.ts'
import type { Seals } from '../ingest/seals.ts'
import type { Writer } from '../ingest/writer.ts'
import type { Log } from '../log.ts'
import type { Names } from '../names.ts'
import { MAX_INSTANT, MIN_INSTANT, toIso } from '../time/calendar.ts'
import { requireScope, type Verifier } from './auth.ts'

export interface OperationsParts {
  readonly store: Store
  readonly names: Names
  readonly seals: Seals
  readonly writer: Writer
  readonly verifier: Verifier
  readonly clock: () => number
  readonly log: Log
  /** Told which answers a repair may have changed. */
  readonly onRepaired?: (tenant: number, moments: readonly number[]) => void
}

/** The self-check compares this much; older days were compared when they were young. */
const SELF_CHECK_MS = 2 * 86_400_000

/** Compares the last days with the raw log every so often; the result is part of /health/ready. */
export class SelfCheck {
  readonly #parts: OperationsParts
  readonly #timer: NodeJS.Timeout | undefined
  /** Drifted days found last time, and when that was (epoch milliseconds); null before the first check. */
  last: { drift: number; at: number } | null = null

  /** @param minutes between two checks; 0 switches them off */
  constructor(parts: OperationsParts, minutes: number) {
    this.#parts = parts
    if (minutes > 0) this.#timer = setInterval(() => void this.run(), minutes * 60_000).unref()
  }

  async run(): Promise<void> {
    const { store, seals, writer, clock, log } = this.#parts
    try {
      const now = clock()
      const range = { from: now - SELF_CHECK_MS, to: now, repair: false }
      const { drift } = await reconcile(store, seals, (work) => writer.exclusive(work), range)
      this.last = { drift: drift.length, at: now }
      if (drift.length > 0) log('error', 'rollups differ from the raw log: run npm run reconcile', { days: drift.length })
    } catch (error) {
      log('warn', 'the self-check failed', { error: String(error) })
    }
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}

export const reconcileParameters = {
  startDate: moment('Compares from here on; from the first event where not given.', '2011-02-18'),
  endDate: moment('Compares up to here; up to the last event where not given.', '2011-02-25'),
  repair: choice(['false', 'true'], 'Whether to write anew what differs.'),
}

/** Routes under /health and /operations. */
export function operations(parts: OperationsParts, check: SelfCheck) {
  const app = new Hono()

  app.get('/health/live', (c) => c.json({ status: 'ok' }))

  app.get('/health/ready', async (c) => {
    const clickhouse = await parts.store.ping()
    const missing = clickhouse ? await parts.store.missingShards().catch(() => ['cannot be told']) : []
    const ready = clickhouse && missing.length === 0 && parts.writer.healthy
    return c.json(
      {
        status: ready ? 'ok' : 'unavailable',
        clickhouse: clickhouse ? 'ok' : 'out of reach',
        ...(missing.length > 0 ? { missingShards: missing } : {}),
        ingestion: parts.writer.healthy ? 'ok' : 'events cannot be stored',
        queuedEvents: parts.writer.queued,
        drift: check.last && { days: check.last.drift, checkedAt: toIso(check.last.at) },
      },
      ready ? 200 : 503,
    )
  })

  // Across all tenants, so it wants a scope that no tenant's token should have.
  app.post('/operations/reconcile', async (c) => {
    requireScope(await parts.verifier.verify(c.req.header('Authorization')), 'analytics:operate')
    const given = readParameters(reconcileParameters, new URL(c.req.url).search)
    const range = { from: given.startDate ?? MIN_INSTANT, to: given.endDate ?? MAX_INSTANT, repair: given.repair === 'true', onRepaired: parts.onRepaired }
    if (range.from >= range.to) throw badRequest([{ parameter: 'endDate', message: 'must be after startDate' }])
    const result = await reconcile(parts.store, parts.seals, (work) => parts.writer.exclusive(work), range)
    return c.json({ success: true, data: await readable(result, parts.names) })
  })
  return app
}

/** The result with names and dates in place of numbers. */
export async function readable({ days, drift, repaired }: Reconciliation, names: Names) {
  const tenants = await names.names(0, 'tenant', [...new Set(drift.map(({ tenant }) => tenant))])
  return {
    days,
    repaired,
    drift: drift.map(({ tenant, start, ...rest }) => ({
      tenant: tenants.get(tenant) ?? `#${tenant}`,
      start: toIso(start * 1000),
      ...rest,
    })),
  }
}
