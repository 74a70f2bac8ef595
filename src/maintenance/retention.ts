/**
 * RETENTION_DAYS: what is older goes, in whole UTC days, from the log and all rollups. Nothing goes unless it is set.
 *
 * The horizon is a row in the database (clickhouse/009_horizons.sql), written in the writer's lane: from then on events of
 * before are refused, and every question begins there, in whatever instance. What is below it is then removed from disk
 * beside the lane, as nobody reads it any more. The horizon never moves back: what is gone is gone.
 */
import { DAY } from '../rollups/granularities.ts'
import type { Store } from '../clickhouse/store.ts'
import type { Log } from '../log.ts'
import { toIso } from '../time/iso8601.ts'
import type { WriteLock } from '../clickhouse/writer-lease.ts'
import type { Instant } from '../time/instant.ts'
import { dateTime64 } from '../clickhouse/parameters.ts'

const DAY_MS = DAY.seconds * 1000

/** Between two looks whether another day has become too old; the first is so long after the start. */
const EVERY_MS = 3_600_000

/** Everything with a time. A span that begins before the horizon is not read, so it goes as a whole. */
const TABLES = { events: 'timestamp', activity: 'start', user_activity: 'start', user_ranks: 'start' } as const

export class Retention {
  readonly #store: Store
  readonly #log: Log
  readonly #clock: () => Instant
  readonly #days: number
  readonly #onMoved: () => void
  #horizon: Instant = 0
  #timer: NodeJS.Timeout | undefined

  /**
   * @param days 0 keeps everything
   * @param onMoved told when the horizon has moved: answers about what was before are wrong
   */
  constructor(store: Store, log: Log, clock: () => Instant, days: number, onMoved: () => void) {
    this.#store = store
    this.#log = log
    this.#clock = clock
    this.#days = days
    this.#onMoved = onMoved
  }

  /** Epoch milliseconds, the beginning of a UTC day; nothing of before is kept. 0: everything is. */
  get horizon(): Instant {
    return this.#horizon
  }

  /** Reads the horizon, which another instance may have moved. */
  async load(): Promise<void> {
    const [row] = await this.#store.readInternal<{ horizon: number }>(
      'horizon',
      `SELECT toUnixTimestamp(max(horizon)) AS horizon FROM horizons`,
    )
    this.#moveTo((row?.horizon ?? 0) * 1000)
  }

  /** Says what will be deleted, and deletes it from an hour later on, every hour what has become too old. */
  async start(exclusive: WriteLock): Promise<void> {
    if (this.#days === 0) return
    const wanted = this.#wanted()
    const [row] = await this.#store.readInternal<{ events: number }>(
      'retention_events',
      `SELECT count() AS events FROM events WHERE timestamp < {wanted:DateTime64(3, 'UTC')}`,
      { wanted: dateTime64(wanted) },
    )
    this.#log(
      'warn',
      `RETENTION_DAYS=${this.#days}: events of before ${toIso(wanted)} are deleted for good in an hour, and every day the next`,
      {
        events: row?.events ?? 0,
      },
    )
    this.#timer = setInterval(() => {
      this.advance(exclusive).catch((error: unknown) =>
        this.#log('error', 'what is too old could not be deleted yet', { error: String(error) }),
      )
    }, EVERY_MS).unref()
  }

  /** Moves the horizon to where it is to be, and removes what is below it; does nothing where there is nothing to do. */
  async advance(exclusive: WriteLock): Promise<void> {
    if (this.#days === 0) return
    await exclusive(async () => {
      await this.load()
      const wanted = this.#wanted()
      if (wanted <= this.#horizon) return
      await this.#store.admin.insert({
        table: 'horizons',
        values: [{ horizon: wanted / 1000 }],
        format: 'JSONEachRow',
        clickhouse_settings: { async_insert: 0, insert_deduplicate: 0, wait_end_of_query: 1 },
      })
      this.#moveTo(wanted)
    })
    const params = { horizon: dateTime64(this.#horizon) }
    for (const [table, time] of Object.entries(TABLES)) {
      const below = `${time} < {horizon:DateTime64(3, 'UTC')}`
      const [old] = await this.#store.readInternal<{ rows: number }>(
        'retention_rows',
        `SELECT count() AS rows FROM ${table} WHERE ${below}`,
        params,
      )
      if (!old || old.rows === 0) continue
      await this.#store.deleteRows(table, below, params)
      this.#log('info', 'deleted what is older than RETENTION_DAYS', { table, rows: old.rows, horizon: toIso(this.#horizon) })
    }
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #wanted(): Instant {
    return Math.max(0, Math.floor(this.#clock() / DAY_MS - this.#days) * DAY_MS)
  }

  #moveTo(horizon: Instant): void {
    if (horizon <= this.#horizon) return
    this.#horizon = horizon
    this.#onMoved()
  }
}
