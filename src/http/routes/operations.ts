/** POST /operations/…: for those who run the service, over all tenants, so they take a scope that no tenant's token should have. */
import type { Handler } from 'hono'
import * as v from 'valibot'
import { readParameters, choice, moment, text as textParameter } from '../../analytics/parameters.ts'
import type { Store } from '../../clickhouse/store.ts'
import type { WriteLock } from '../../clickhouse/writer-lease.ts'
import { ApiError, badRequest, unavailable } from '../../domain/errors.ts'
import { answerOf, count, instant, text, whatIs } from '../../domain/response-fields.ts'
import type { TenantKey } from '../../domain/tenant.ts'
import type { Names } from '../../ids/dictionary.ts'
import type { Tenants } from '../../ids/tenants.ts'
import type { BrokenParts } from '../../maintenance/broken-parts.ts'
import { BACKUP_NAME, BackupError, type Backups } from '../../maintenance/backup.ts'
import type { Seals } from '../../maintenance/compaction.ts'
import { reconcileAll, ReconcileJobs, type Reconciled } from '../../maintenance/reconcile-job.ts'
import type { Retention } from '../../maintenance/retention.ts'
import { MAX_INSTANT, MIN_INSTANT } from '../../time/instant.ts'
import { toIso } from '../../time/iso8601.ts'
import type { Env } from '../environment.ts'

export interface ReconcileDeps {
  readonly store: Store
  readonly names: Names
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
    'must be 1 to 100 letters, digits and . _ -, a letter or digit first',
    'What it is kept as; by default analytics- and the present. Asking for the same name again waits for it.',
    'analytics-2011-02-25',
  ),
}

export const Reconciliation = v.strictObject({
  status: whatIs(['complete', 'running'], 'running where it takes longer than a request may: ask again.'),
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
  identitiesRepaired: count('Entries of the three lists below that were put right.'),
  duplicateIds: v.pipe(
    v.array(
      v.strictObject({
        tenant: text('The company.'),
        id: text('Of an event.'),
        copies: count('How often it is stored.'),
        contents: count('How many of the copies are different events; a repair keeps the one that was stored first.'),
      }),
    ),
    v.description('Ids that are stored more than once, at most 10,000.'),
  ),
  sharedNumbers: v.pipe(
    v.array(
      v.strictObject({
        tenant: text('The company.'),
        kind: whatIs(['assistant', 'user'], 'What the names are of.'),
        number: count('The number.'),
        names: v.pipe(v.array(text('A name.')), v.description('At most 10 of those that have it.')),
      }),
    ),
    v.description('Numbers that several names share, at most 10,000.'),
  ),
  splitNames: v.pipe(
    v.array(
      v.strictObject({
        tenant: text('The company.'),
        kind: whatIs(['assistant', 'user'], 'What the name is of.'),
        name: text('The name.'),
        numbers: v.pipe(v.array(count('A number.')), v.description('At most 10 of its numbers.')),
      }),
    ),
    v.description('Names with several numbers, at most 10,000.'),
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
export const postReconcile = (deps: ReconcileDeps): Handler<Env> => {
  const { tenants, retention, onRepaired } = deps
  // A repair also sets aside what cannot be read.
  const jobs = new ReconcileJobs((range) =>
    range.repair ? deps.broken.healing(() => reconcileAll(deps, range)) : reconcileAll(deps, range),
  )
  return async (c) => {
    const given = readParameters(reconcileParameters, new URL(c.req.url).search)
    const range = {
      from: given.startDate ?? MIN_INSTANT,
      to: given.endDate ?? MAX_INSTANT,
      repair: given.repair === 'true',
      horizon: retention.horizon,
      onRepaired,
    }
    if (range.from >= range.to) throw badRequest([{ parameter: 'endDate', message: 'must be after startDate' }])
    const result = await jobs.ask(JSON.stringify([range.from, range.to, range.repair]), range)
    if (result === 'busy') {
      throw new ApiError(409, 'in_progress', 'Another reconciliation is under way.', { headers: { 'Retry-After': '20' } })
    }
    return c.json({ success: true, data: result === 'running' ? STILL_RUNNING : await readable(result, tenants) })
  }
}

/** Makes a backup of the whole database, or waits for the one of that name. */
export const postBackup =
  ({ backups, clock }: { backups: Backups; clock: () => number }): Handler<Env> =>
  async (c) => {
    const given = readParameters(backupParameters, new URL(c.req.url).search)
    const name = given.name ?? `analytics-${toIso(clock()).replace(/[:.]/g, '-')}`
    try {
      const made = await backups.make(name)
      return c.json({
        success: true,
        data: made ? { ...made, status: 'complete' } : { name, status: 'running', bytes: 0, files: 0 },
      })
    } catch (error) {
      if (!(error instanceof BackupError)) throw error
      if (/already exists|is under way|is being written already/i.test(error.message)) {
        const message = 'There is a backup of this name, or another one is under way.'
        throw new ApiError(409, 'backup_exists', message, { headers: { 'Retry-After': '60' } })
      }
      throw unavailable('The backup cannot be made: the log says why.', 60, error)
    }
  }

const STILL_RUNNING = {
  status: 'running',
  days: 0,
  repaired: 0,
  drift: [],
  identitiesRepaired: 0,
  duplicateIds: [],
  sharedNumbers: [],
  splitNames: [],
} as const

/** The result with names and dates in place of keys and numbers; a tenant that has no name has its key. */
export async function readable(
  { days, drift, repaired, duplicateIds, sharedNumbers, splitNames, identitiesRepaired }: Reconciled,
  tenants: Tenants,
) {
  const lists = [drift, duplicateIds, sharedNumbers, splitNames]
  const names = await tenants.names([...new Set(lists.flatMap((list) => list.map(({ tenant }) => tenant)))])
  const named = <Entry extends { tenant: TenantKey }>({ tenant, ...rest }: Entry) => ({
    tenant: names.get(tenant) ?? tenant,
    ...rest,
  })
  return {
    status: 'complete' as const,
    days,
    repaired,
    drift: drift.map((entry) => ({ ...named(entry), start: toIso(entry.start * 1000) })),
    identitiesRepaired,
    duplicateIds: duplicateIds.map(named),
    sharedNumbers: sharedNumbers.map(named),
    splitNames: splitNames.map(named),
  }
}
