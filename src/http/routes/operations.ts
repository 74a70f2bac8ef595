/** POST /operations/…: for those who run the service, over all tenants, so they take a scope that no tenant's token should have. */
import type { Handler } from 'hono'
import * as v from 'valibot'
import { readParameters, choice, moment, text as textParameter } from '../../analytics/parameters.ts'
import type { Store } from '../../clickhouse/store.ts'
import type { WriteLock } from '../../clickhouse/writer-lease.ts'
import { ApiError, badRequest, unavailable } from '../../domain/errors.ts'
import { answerOf, count, instant, text, whatIs } from '../../domain/response-fields.ts'
import type { TenantKey } from '../../domain/tenant.ts'
import type { Tenants } from '../../ids/tenants.ts'
import type { BrokenParts } from '../../maintenance/broken-parts.ts'
import { BACKUP_NAME, BackupError, type Backups } from '../../maintenance/backup.ts'
import type { Seals } from '../../maintenance/compaction.ts'
import { reconcile, type Reconciliation as Outcome } from '../../maintenance/reconcile.ts'
import type { Retention } from '../../maintenance/retention.ts'
import { MAX_INSTANT, MIN_INSTANT } from '../../time/instant.ts'
import { toIso } from '../../time/iso8601.ts'
import type { Env } from '../environment.ts'

export interface ReconcileDeps {
  readonly store: Store
  readonly tenants: Tenants
  readonly seals: Seals
  readonly retention: Retention
  readonly broken: BrokenParts
  readonly exclusive: WriteLock
  /** Called after a repair with the repaired timestamps, so that cached responses covering them are invalidated. */
  readonly onRepaired?: (tenant: TenantKey, moments: readonly number[]) => void
}

export const reconcileParameters = {
  startDate: moment('Compares from here on; from the first event where not given.', '2011-02-18'),
  endDate: moment('Compares up to here; up to the last event where not given.', '2011-02-25'),
  repair: choice(['false', 'true'], 'Whether to write anew what differs.'),
}

export const backupParameters = {
  name: textParameter(
    (name) => BACKUP_NAME.test(name),
    'wants 1 to 100 letters, digits and . _ -, a letter or digit first',
    'What it is kept as; by default analytics- and the present. Asking for the same name again waits for it.',
    'analytics-2011-02-25',
  ),
}

export const Reconciliation = v.strictObject({
  days: count('Companies times days that were compared.'),
  repaired: count('Entries of `drift` that were written anew.'),
  drift: v.pipe(
    v.array(
      v.strictObject({
        tenant: text('The company.'),
        start: instant('First moment of the day or span.'),
        rollup: text('Which rollup.'),
        sourceEvents: count('Events by the source.'),
        rollupEvents: count('Events by the rollup.'),
      }),
    ),
    v.description('What differed, at most 10,000 entries.'),
  ),
})
export const reconcileResponse = answerOf(Reconciliation)

export const Backup = v.strictObject({
  name: text('What it is kept as.'),
  status: whatIs(['complete', 'running'], 'running where it takes longer than a request may: ask again.'),
  bytes: count('What it takes; 0 while it runs.'),
  files: count('0 while it runs.'),
})
export const backupResponse = answerOf(Backup)

/** Compares the rollups with the raw log, and repairs them where that is asked for. */
export const postReconcile =
  ({ store, tenants, seals, retention, broken, exclusive, onRepaired }: ReconcileDeps): Handler<Env> =>
  async (c) => {
    const given = readParameters(reconcileParameters, new URL(c.req.url).search)
    const range = { from: given.startDate ?? MIN_INSTANT, to: given.endDate ?? MAX_INSTANT, repair: given.repair === 'true', horizon: retention.horizon, onRepaired }
    if (range.from >= range.to) throw badRequest([{ parameter: 'endDate', message: 'must be after startDate' }])
    const compare = () => reconcile(store, seals, exclusive, range)
    const result = await (range.repair ? broken.healing(compare) : compare())
    return c.json({ success: true, data: await readable(result, tenants) })
  }

/** Makes a backup of the whole database, or waits for the one of that name. */
export const postBackup =
  ({ backups, clock }: { backups: Backups; clock: () => number }): Handler<Env> =>
  async (c) => {
    const given = readParameters(backupParameters, new URL(c.req.url).search)
    const name = given.name ?? `analytics-${toIso(clock()).replace(/[:.]/g, '-')}`
    try {
      const made = await backups.make(name)
      return c.json({ success: true, data: made ? { ...made, status: 'complete' } : { name, status: 'running', bytes: 0, files: 0 } })
    } catch (error) {
      if (!(error instanceof BackupError)) throw error
      if (/already exists|is under way|is being written already/i.test(error.message)) {
        const message = 'There is a backup of this name, or another one is under way.'
        throw new ApiError(409, 'backup_exists', message, { headers: { 'Retry-After': '60' } })
      }
      throw unavailable('The backup cannot be made: the log says why.', 60, error)
    }
  }

/** The result with names and dates in place of keys and numbers; a tenant that has no name has its key. */
export async function readable({ days, drift, repaired }: Outcome, tenants: Tenants) {
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
