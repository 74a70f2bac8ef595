/**
 * DELETE /analytics/users/{user}: a person leaves. Their events stay as counts of nobody, so that every sum stays what it
 * was: `user`, `trace_id` and `metadata` become '', the number stays where it was counted, and no name leads to it.
 *
 * In this order, so that whatever ends it half way, the same request goes on where it stopped:
 *   1. in the writer's lane, a row of `removals`: from here on nobody stores anything under the number (other instances
 *      look there before they store, see `learn`). If the person is sent again, they get a new one;
 *   2. beside the lane, since it rewrites every part of the log that holds them: the events;
 *   3. in the lane: the rows of the user's own rollups, at last the name, and a row that says it is done.
 */
import { randomUUID } from 'node:crypto'
import type { Store } from '../clickhouse/store.ts'
import { ApiError, unavailable } from '../domain/errors.ts'
import { tenantKey, type TenantKey } from '../domain/tenant.ts'
import type { Names } from '../ids/dictionary.ts'
import { toIso } from '../time/iso8601.ts'
import type { WriteLock } from '../clickhouse/writer-lease.ts'
import type { Instant } from '../time/instant.ts'
import { dateTime64, slices } from '../clickhouse/parameters.ts'
import { dropOrphanedClones } from './backup-clones.ts'

/** What was removed; dates are ISO 8601, null where there was no event. */
export interface RemovalReceipt {
  receiptId: string
  /** Events that are of nobody now. */
  events: number
  firstEventAt: string | null
  lastEventAt: string | null
  removedAt: string
}

interface Removal {
  tenant: TenantKey
  user: number
  receipt: string
  events: number
  firstAt: Instant
  lastAt: Instant
}

/** Tables with rows of single users, by tenant and user_no. */
const TABLES_OF_USERS = ['user_activity'] as const

/** A row counts as recorded when its insert began, at most so long before others can see it. */
const RECORDED_SLACK_MS = 60_000

const OF_USER = 'tenant = {tenant:UUID} AND user_no = {user:UInt32}'

export class Removals {
  readonly #store: Store
  readonly #names: Names
  /** Up to when, on ClickHouse's clock, this instance knows who was removed. */
  #seenUntil = 0
  /** One at a time: a second one of the same person waits for the first, and finds nobody. */
  #running: Promise<unknown> = Promise.resolve()

  readonly #onRemoved: (tenant: TenantKey) => void

  /** @param onRemoved told of a tenant whose answers may hold a name that is no more */
  constructor(store: Store, names: Names, onRemoved: (tenant: TenantKey) => void) {
    this.#store = store
    this.#names = names
    this.#onRemoved = onRemoved
  }

  /**
   * Removes a user of a tenant.
   * @param tenant the name of the organization
   * @param exclusive runs a step in the writer's lane
   * @returns null where nobody has this name
   * @throws ApiError 503 where ClickHouse cannot be reached; what was begun is completed by the same request, or by the
   * next service that starts
   */
  remove(tenant: string, user: string, exclusive: WriteLock): Promise<RemovalReceipt | null> {
    return this.#inTurn(async () => {
      const removals = await exclusive(() => this.#begin(tenantKey(tenant), user))
      for (const removal of removals) await this.#complete(removal, exclusive)
      return removals.length === 0 ? null : this.#receiptOf(removals)
    }).catch((error: unknown) => {
      throw error instanceof ApiError ? error : unavailable('The removal is not complete yet: ask for it again.', 1, error)
    })
  }

  /** Completes what an earlier run, or another instance, did not see through. */
  async resume(exclusive: WriteLock): Promise<number> {
    return this.#inTurn(async () => {
      const begun = await this.#store.readInternal<Removal>(
        'removals_begun',
        `SELECT ${FIELDS} FROM removals
         WHERE (tenant, user_no) NOT IN (SELECT tenant, user_no FROM removals WHERE state = 'done')
         ORDER BY at LIMIT 1 BY tenant, user_no`,
      )
      for (const removal of begun) await this.#complete(removal, exclusive)
      return begun.length
    })
  }

  /** Learns who was removed since this instance last looked: in the lane, before anything is stored, and now and then. */
  async learn(): Promise<void> {
    const now = await this.#store.now()
    const rows = await this.#store.readInternal<{ tenant: TenantKey; user: number }>(
      'removals_since',
      `SELECT DISTINCT tenant, user_no AS user FROM removals WHERE at >= {since:DateTime64(3, 'UTC')}`,
      { since: dateTime64(Math.max(0, this.#seenUntil - RECORDED_SLACK_MS)) },
    )
    const byTenant = new Map<TenantKey, number[]>()
    for (const { tenant, user } of rows) byTenant.set(tenant, [...(byTenant.get(tenant) ?? []), user])
    for (const [tenant, users] of byTenant) {
      this.#names.removed(tenant, users)
      this.#onRemoved(tenant)
    }
    this.#seenUntil = now
  }

  /** Which of these users of a tenant were removed, by number. */
  async among(tenant: TenantKey, users: readonly number[]): Promise<Set<number>> {
    const found = new Set<number>()
    for (const slice of slices(users)) {
      const rows = await this.#store.readInternal<{ user: number }>(
        'removals_among',
        `SELECT DISTINCT user_no AS user FROM removals WHERE tenant = {tenant:UUID} AND user_no IN {users:Array(UInt32)}`,
        { tenant, users: slice },
      )
      for (const { user } of rows) found.add(user)
    }
    return found
  }

  /**
   * In the lane: says that the user is being removed, unless it is said already. A name has several numbers where a removal
   * was cut off and the person came back.
   */
  async #begin(tenant: TenantKey, user: string): Promise<Removal[]> {
    const named = await this.#store.readInternal<{ number: number }>(
      'removal_numbers',
      `SELECT DISTINCT number FROM names
       WHERE tenant = {tenant:UUID} AND kind = 'user' AND name = {user:String} ORDER BY number`,
      { tenant, user },
    )
    const removals: Removal[] = []
    for (const { number } of named) {
      const params = { tenant, user: number }
      const [begun] = await this.#store.readInternal<Removal>(
        'removal_begun',
        `SELECT ${FIELDS} FROM removals WHERE ${OF_USER} AND state = 'started' ORDER BY at LIMIT 1`,
        params,
      )
      if (begun) {
        // What began it may not have come this far.
        this.#names.removed(tenant, [number])
        removals.push(begun)
        continue
      }
      const [found] = await this.#store.readInternal<Pick<Removal, 'events' | 'firstAt' | 'lastAt'>>(
        'removal_events',
        `SELECT count() AS events, toUnixTimestamp64Milli(min(timestamp)) AS firstAt,
           toUnixTimestamp64Milli(max(timestamp)) AS lastAt
         FROM events WHERE ${OF_USER} AND user != ''`,
        params,
      )
      const receipt = removals[0]?.receipt ?? randomUUID()
      const removal = { ...params, events: 0, firstAt: 0, lastAt: 0, ...found, receipt }
      await this.#record(removal, 'started')
      this.#names.removed(tenant, [number])
      removals.push(removal)
    }
    return removals
  }

  async #complete(removal: Removal, exclusive: WriteLock): Promise<void> {
    const params = { tenant: removal.tenant, user: removal.user }
    do {
      await this.#store.updateRows('events', `user = '', trace_id = '', metadata = ''`, `${OF_USER} AND user != ''`, params)
      // A turn in the lane that ended before its time may have let a last event through.
    } while (!(await exclusive(() => this.#finish(removal))))
  }

  async #receiptOf(removals: readonly Removal[]): Promise<RemovalReceipt> {
    const [{ tenant, user, receipt }] = removals.slice(-1) as [Removal]
    const [done] = await this.#store.readInternal<{ at: Instant }>(
      'removal_done',
      `SELECT toUnixTimestamp64Milli(min(at)) AS at FROM removals WHERE ${OF_USER} AND state = 'done'`,
      { tenant, user },
    )
    const withEvents = removals.filter(({ events }) => events > 0)
    const none = withEvents.length === 0
    return {
      receiptId: receipt,
      events: withEvents.reduce((sum, { events }) => sum + events, 0),
      firstEventAt: none ? null : toIso(Math.min(...withEvents.map(({ firstAt }) => firstAt))),
      lastEventAt: none ? null : toIso(Math.max(...withEvents.map(({ lastAt }) => lastAt))),
      removedAt: toIso(done?.at ?? 0),
    }
  }

  /** In the lane: removes what is left once no event has the name any more; false where one still does. */
  async #finish(removal: Removal): Promise<boolean> {
    const params = { tenant: removal.tenant, user: removal.user }
    const [left] = await this.#store.readInternal<{ events: number }>(
      'removal_left',
      `SELECT count() AS events FROM events WHERE ${OF_USER} AND user != ''`,
      params,
    )
    if (!left || left.events > 0) return false
    // They hold the name too. Those of a backup that is under way are dropped when it ends.
    await dropOrphanedClones(this.#store)
    // Lists without the user are made when they are next asked for.
    await this.#store.deleteRows('user_ranks', 'tenant = {tenant:UUID}', params)
    for (const table of TABLES_OF_USERS) await this.#store.deleteRows(table, OF_USER, params)
    await this.#store.deleteRows('names', `tenant = {tenant:UUID} AND kind = 'user' AND number = {user:UInt32}`, params)
    await this.#record(removal, 'done')
    this.#onRemoved(removal.tenant)
    return true
  }

  async #record({ tenant, user, receipt, events, firstAt, lastAt }: Removal, state: 'started' | 'done'): Promise<void> {
    await this.#store.admin.insert({
      table: 'removals',
      values: [{ tenant, user_no: user, state, receipt, events, first_at: dateTime64(firstAt), last_at: dateTime64(lastAt) }],
      format: 'JSONEachRow',
      // The same again would be harmless; a token that ClickHouse kept without its row would not (see complete.ts).
      clickhouse_settings: { async_insert: 0, insert_deduplicate: 0, wait_end_of_query: 1 },
    })
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#running.then(work)
    this.#running = result.catch(() => {})
    return result
  }
}

const FIELDS = `tenant, user_no AS user, toString(receipt) AS receipt, events, toUnixTimestamp64Milli(first_at) AS firstAt,
  toUnixTimestamp64Milli(last_at) AS lastAt`
