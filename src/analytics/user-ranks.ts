/**
 * Who may be among the most active users of a range, from lists of the most active of each of its spans
 * (clickhouse/010_user_ranks.sql) instead of all users: a threshold algorithm (Fagin, Lotem, Naor 2001), and exact.
 *
 * What a user did in a span is known where the user is listed, and else at most the list's `bound`. Events that came after
 * a list was made are at most as many as the fleet's total has grown since. At a ragged end of the range a user did at most
 * what the list of the whole day says. So for every user there is a least and a most;
 * whoever's most is below the least of the user on the last place is not on the ranking. For the few that are left, the
 * exact figures are read. Where the lists do not decide it (too old, missing, or users too alike), the answer is null.
 */
import { LRUCache } from 'lru-cache'
import type { Store } from '../clickhouse/store.ts'
import type { WriteLock } from '../clickhouse/writer-lease.ts'
import type { TenantKey } from '../domain/tenant.ts'
import { seldom, type Log } from '../log.ts'
import { LATE_SECONDS } from '../maintenance/compaction.ts'
import { DAY, secondsOf } from '../rollups/granularities.ts'
import type { Parts } from '../rollups/plan.ts'
import type { Scope } from '../rollups/scope.ts'
import type { Instant } from '../time/instant.ts'
import { EVENTS, FLEET, LISTS, type ShortlistRow, userShortlist } from './queries/user-shortlist.ts'

/** Users on a list. With 300,000 users of a long tail, the rest have some 4 events a day at most. */
const LISTED = 4_096
/** Rows beside the ranking that are looked at. */
const MARGIN = 1_000
/** A list is made anew this often at most. */
const REFRESH_MS = 60_000
/** Lists that wait to be made; what is beyond is made when it is asked for again. */
const MAX_WANTED = 1_000

type Span = Parts['spans'][number]

/** With fewer whole days than these, what may have been done at the ragged ends decides too often, and is read. */
const DAYS_WITH_ENDS = 20

export class UserRanks {
  readonly #store: Store
  readonly #exclusive: WriteLock
  readonly #log: Log
  readonly #made = new LRUCache<string, true>({ max: 100_000, ttl: REFRESH_MS })
  #wanted = 0
  #stopped = false
  /** One list after the other, whoever wants it. */
  #making: Promise<void> = Promise.resolve()

  /** @param exclusive runs work between two groups of events, so that a list and the fleet's total say the same */
  constructor(store: Store, exclusive: WriteLock, log: Log) {
    this.#store = store
    this.#exclusive = exclusive
    this.#log = seldom(log)
  }

  /**
   * The numbers of all users who may be among the first `places`, ties included, in no order; null where the lists cannot
   * tell. Lists that are missing or too old are then made for the next question.
   * @param parts of the range, cut into the levels of `user_activity`
   */
  async shortlist(scope: Scope, parts: Parts, places: number, now: Instant): Promise<number[] | null> {
    const whole = parts.spans.filter((span) => isOver(span, now))
    if (whole.length === 0 || scope.pending.has('activity')) return null
    const isLong = whole.reduce((sum, [level]) => sum + secondsOf(level), 0) >= DAYS_WITH_ENDS * DAY.seconds
    const ends = isLong ? parts.raw.map(({ from }) => dayOf(from)).filter((span) => isOver(span, now)) : []
    const listed = [...whole, ...ends]
    const rest = {
      spans: parts.spans.filter((span) => !isOver(span, now)),
      raw: parts.raw.filter(({ from }) => !ends.some(([, start]) => start === dayOf(from)[1])),
    }
    const limit = 2 * places + MARGIN
    const rows = await this.#store.read(scope, userShortlist(rest, listed, ends, limit))
    const lists = rows.find(({ user }) => user === LISTS)
    const fleet = rows.find(({ user }) => user === FLEET)
    const users = rows.filter((row) => row !== lists && row !== fleet)
    const bounds = lists?.credit ?? 0
    const grown = (fleet?.least ?? 0) - (lists?.least ?? 0)
    const needed = users.map(({ least }) => least).sort((a, b) => b - a)[places - 1] ?? 0
    /** The most that a user can have who is on no list. */
    const unseen = bounds + grown
    const mostOf = ({ least, credit }: ShortlistRow) => least - credit + unseen
    const last = users.at(-1)
    const decided =
      grown >= 0 && (unseen === 0 || unseen < needed) && (rows.length < limit || last === undefined || mostOf(last) < needed)
    if (decided) return users.filter((row) => mostOf(row) >= needed).map(({ user }) => user)
    if (grown !== 0) void this.refresh(scope.tenant, listed)
    return null
  }

  /** Makes the lists of some spans, with traffic going on in between; those of the last minute are left as they are. */
  refresh(tenant: TenantKey, spans: readonly Span[]): Promise<void> {
    for (const span of spans) {
      const key = `${tenant}/${span.join('/')}`
      if (this.#stopped || this.#made.has(key) || this.#wanted >= MAX_WANTED) continue
      this.#made.set(key, true)
      this.#wanted++
      this.#making = this.#making
        .then(() => this.#exclusive(() => this.#make(tenant, span)))
        .catch((error: unknown) => {
          if (!this.#stopped) this.#log('warn', 'a list of active users could not be made', { error: String(error) })
        })
        .finally(() => this.#wanted--)
    }
    return this.#making
  }

  /** Makes no further list; resolves when the one under way is made, or refused by `exclusive`. */
  stop(): Promise<void> {
    this.#stopped = true
    return this.#making
  }

  async #make(tenant: TenantKey, [level, start]: Span): Promise<void> {
    await this.#store.admin.command({
      query: MAKE,
      query_params: { tenant, level, start },
      clickhouse_settings: {
        max_execution_time: 60,
        max_threads: 1,
        insert_deduplicate: 0,
        wait_end_of_query: 1,
        // On a cluster a list is of all shards together.
        parallel_distributed_insert_select: '0',
      },
    })
  }
}

/** Rows of a day are still written for a while after it; coarse spans are asked for only when they are sealed. */
const isOver = ([level, start]: Span, now: Instant): boolean =>
  level !== DAY.id || start + DAY.seconds + LATE_SECONDS <= now / 1000

/** The UTC day of an instant, as a span. */
const dayOf = (at: Instant): Span => [DAY.id, Math.floor(at / 1000 / DAY.seconds) * DAY.seconds]

/** One list. A span in which nothing happened gets none. */
const MAKE = `
  INSERT INTO user_ranks (tenant, level, start, users, events, bound, total)
  SELECT
    {tenant:UUID} AS of_tenant,
    {level:UInt8} AS of_level,
    toDateTime({start:UInt32}, 'UTC') AS of_start,
    arrayMap(ranked -> ranked.2, top) AS listed_users,
    arrayMap(ranked -> toUInt64(-ranked.1), top) AS listed_events,
    if(how_many > ${LISTED}, toUInt64(-top[${LISTED}].1), 0) AS listed_bound,
    (SELECT sum(${EVENTS}) FROM activity
     WHERE tenant = {tenant:UUID} AND level = {level:UInt8} AND bucket = toDateTime(0, 'UTC') AND assistant_no = 0
       AND start = toDateTime({start:UInt32}, 'UTC')) AS listed_total
  FROM
  (
    SELECT groupArraySorted(${LISTED})((-toInt64(did), user_no)) AS top, count() AS how_many
    FROM
    (
      SELECT user_no, sum(events) AS did
      FROM user_activity
      WHERE tenant = {tenant:UUID} AND level = {level:UInt8} AND start = toDateTime({start:UInt32}, 'UTC')
      GROUP BY user_no
    )
  )
  WHERE how_many > 0`
