/**
 * Makes rollups anew from the raw log, where a migration made or changed them in a database that has events already: a
 * file says so in its first lines, `-- rebuild: activity`, and the migrator puts that into the table `rebuilds`.
 *
 * Until a rollup is complete, questions leave it out and read the raw log (slow, and exact), and no span is sealed. Days
 * of tenants are written a few at a time in the writer's lane, between groups of events: what comes meanwhile is counted
 * by the views, and by the rewriting of a day that is still ahead. After each step the database knows how far it is, so
 * whoever comes next goes on from there: after a kill, or another instance, which then does every other step.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from '../clickhouse/store.ts'
import type { WriteGuard, WriteLock } from '../clickhouse/writer-lease.ts'
import type { TenantKey } from '../domain/tenant.ts'
import type { Log } from '../log.ts'
import { DAY, SEALED, SPLIT_DAY, type RollupTable } from '../rollups/granularities.ts'
import { sealFrom, splitDays, type Seals } from './compaction.ts'
import { MAX_DRIFT, type Place, reconcile, rewriteDays } from './reconcile.ts'
import { MAX_INSTANT, MIN_INSTANT, type Instant } from '../time/instant.ts'

/** The lane is held for so much at a time: a second or two. */
const STEP_EVENTS = 100_000
const STEP_DAYS = 100
/** Spans of coarse levels that are written together, and the rows of days that they are made of. */
const STEP_SPANS = 100
const STEP_ROWS = 10_000
/** Days are listed so many at a time, in one pass over what is left of the log. */
const LISTED_DAYS = 10_000
const RETRY_MS = 1_000

/**
 * `days`: all up to (tenant, day) are written; `spans`: all up to (level, start); `repair`: rows of it were lost, and those
 * that differ from the log are written again (broken-parts.ts). See clickhouse/000_migrations.sql.
 */
const PHASES = { days: 0, spans: 1, repair: 2, done: 3 } as const

/** Stands for no day: what was in the rollup is gone, and the first day is next. */
const BEGUN = 1

/** How far a rollup is; positions are ordered by these fields, one after the other. */
interface Position {
  version: number
  phase: number
  /**
   * In the phase of days the tenant, '' before the first. Tenants are ordered by the text of their keys, here and in SQL: of
   * UUIDs as such ClickHouse compares the second half first.
   */
  tenant: TenantKey | ''
  /** In the phase of spans the level, else 0. */
  level: number
  /** Epoch seconds. */
  start: number
}

interface Day extends Place {
  readonly events: number
}

const ALL_ROLLUPS: ReadonlySet<RollupTable> = new Set<RollupTable>(['activity', 'user_activity'])

const DAYS_OF_EVENTS = `
  SELECT tenant, toUInt32(intDiv(toUnixTimestamp(timestamp), ${DAY.seconds}) * ${DAY.seconds}) AS start, count() AS events
  FROM events GROUP BY tenant, start`

export class Rebuilds {
  readonly #store: Store
  readonly #log: Log
  #pending: ReadonlySet<RollupTable> = new Set()
  #positions = new Map<RollupTable, Position>()
  /** Days that are ahead, of the rollup that is made now. */
  #listed: { rollup: RollupTable; days: Day[] } | undefined
  #events = { done: 0, total: 0 }
  #stopped = false
  /** How many doubt the rollups at the moment. */
  #distrust = 0
  /** One run after the other. */
  #running: Promise<void> = Promise.resolve()

  constructor(store: Store, log: Log) {
    this.#store = store
    this.#log = log
  }

  /** Rollups that are not complete; a snapshot that may be kept for the length of a request. */
  get pending(): ReadonlySet<RollupTable> {
    return this.#distrust > 0 ? ALL_ROLLUPS : this.#pending
  }

  /** No rollup is read until `work` is done. */
  async distrustDuring(work: () => Promise<void>): Promise<void> {
    this.#distrust++
    try {
      await work()
    } finally {
      this.#distrust--
    }
  }

  /**
   * Asks for a rollup to be made complete again, since rows of it are lost or are about to be. From here on questions read
   * the log in its place, those of other instances after their next `load`. Runs under the writer lease; `run` does the work.
   */
  async request(rollup: RollupTable): Promise<void> {
    await this.load()
    const position = this.#positions.get(rollup)
    const isBackfilling = position && (position.phase === PHASES.days || position.phase === PHASES.spans)
    const phase = isBackfilling ? PHASES.days : PHASES.repair
    await this.#record(rollup, { version: (position?.version ?? 0) + 1, phase, tenant: '', level: 0, start: 0 })
    await this.load()
  }

  /** Of each rollup that is not complete, how much is done, from 0 to 1; they are made one after the other. */
  get progress(): Array<{ rollup: string; done: number }> {
    const { done, total } = this.#events
    return [...this.#pending].map((rollup) => ({
      rollup,
      done: rollup === this.#listed?.rollup && total > 0 ? Math.min(1, Math.round((done / total) * 1_000) / 1_000) : 0,
    }))
  }

  /** Reads which rollups are not complete, and how far each is. */
  async load(): Promise<void> {
    const rows = await this.#store.readInternal<Position & { rollup: RollupTable }>(
      'rebuilds',
      `SELECT name AS rollup, furthest.1 AS version, furthest.2 AS phase, furthest.3 AS tenant, furthest.4 AS level,
         furthest.5 AS start
       FROM (SELECT name, max((version, phase, tenant, level, start)) AS furthest FROM rebuilds GROUP BY name) ORDER BY name`,
    )
    this.#positions = new Map(rows.map(({ rollup, ...position }) => [rollup, position]))
    this.#pending = new Set(rows.filter(({ phase }) => phase !== PHASES.done).map(({ rollup }) => rollup))
  }

  /**
   * Completes what is not complete, step by step; resolves when all is done or `stop` was called.
   * @param horizon gives the moment before which nothing is kept, epoch milliseconds
   */
  async run(seals: Seals, exclusive: WriteLock, horizon: () => Instant = () => 0): Promise<void> {
    this.#running = this.#running.then(() => this.#run(seals, exclusive, horizon))
    await this.#running
  }

  async #run(seals: Seals, exclusive: WriteLock, horizon: () => Instant): Promise<void> {
    const began = performance.now()
    const rollups = [...this.#pending].join(', ')
    if (rollups === '') return
    this.#log('info', 'rollups are made anew from the log; until then questions read the log alone', { rollups })
    while (this.#pending.size > 0 && !this.#stopped) {
      try {
        const isRepaired = await this.#repair(seals, exclusive, horizon())
        if (!isRepaired) await exclusive((guard) => this.#step(seals, guard))
      } catch (error) {
        if (this.#stopped) return
        this.#log('warn', 'a step of making rollups anew failed and is tried again', {
          error: String((error as Error).cause ?? error),
        })
        await sleep(RETRY_MS, undefined, { ref: false })
      }
    }
    if (this.#pending.size === 0)
      this.#log('info', 'rollups are complete', { rollups, ms: Math.round(performance.now() - began) })
  }

  stop(): void {
    this.#stopped = true
  }

  /** Beside the lane but for its stretches. @returns false where no rollup is to be repaired */
  async #repair(seals: Seals, exclusive: WriteLock, horizon: Instant): Promise<boolean> {
    await this.load()
    const [rollup] = this.#pending
    const position = rollup && this.#positions.get(rollup)
    if (!rollup || position?.phase !== PHASES.repair) return false
    const range = { from: MIN_INSTANT, to: MAX_INSTANT, repair: true, only: rollup, horizon }
    const { drift, repaired } = await reconcile(this.#store, seals, exclusive, range)
    await exclusive(async () => {
      await this.load()
      // Asked for again meanwhile: more was lost, perhaps of days that were compared already.
      if (this.#positions.get(rollup)?.version !== position.version) return
      const isHopeless = drift.length >= MAX_DRIFT
      await this.#record(
        rollup,
        isHopeless ? { ...position, version: position.version + 1, phase: PHASES.days } : { ...position, phase: PHASES.done },
      )
      await this.load()
      if (!isHopeless) this.#log('warn', 'a rollup was repaired from the log', { rollup, repaired })
    })
    return true
  }

  /** Runs in the lane. */
  async #step(seals: Seals, guard: WriteGuard): Promise<void> {
    if (this.#stopped) return
    await this.load()
    const [rollup] = this.#pending
    const position = rollup && this.#positions.get(rollup)
    if (!position) return
    if (position.phase === PHASES.days && position.tenant === '' && position.start === 0) {
      // Once, as a whole: to look for rows and delete them at every step takes several times as long.
      await this.#store.deleteRows(rollup, guard.condition())
      await this.#store.deleteRows('user_ranks', '1')
      return this.#record(rollup, { ...position, start: BEGUN })
    }
    if (position.phase === PHASES.days) return this.#writeDays(rollup, position, guard)
    return this.#writeSpan(rollup, position, seals, guard)
  }

  async #writeDays(rollup: RollupTable, position: Position, guard: WriteGuard): Promise<void> {
    const isAhead = ({ tenant, start }: Place) =>
      tenant > position.tenant || (tenant === position.tenant && start > position.start)
    if (this.#listed?.rollup !== rollup) await this.#count(rollup, position)
    // Another instance may have done some.
    let days = this.#listed?.rollup === rollup ? this.#listed.days.filter(isAhead) : []
    if (days.length === 0) days = await this.#daysAfter(position)
    if (days.length === 0) {
      await this.#record(rollup, { ...position, phase: PHASES.spans, tenant: '', level: 0, start: 0 })
      return
    }
    let events = 0
    let taken = 0
    while (taken < days.length && taken < STEP_DAYS && (taken === 0 || events + (days[taken] as Day).events <= STEP_EVENTS)) {
      events += (days[taken++] as Day).events
    }
    const now = days.slice(0, taken)
    await rewriteDays(this.#store, guard, rollup, now)
    const { tenant, start } = now.at(-1) as Day
    await this.#record(rollup, { ...position, tenant, start })
    this.#listed = { rollup, days: days.slice(taken) }
    this.#events.done += events
  }

  /** The next spans of a sealed level, written from their days; spans that are not sealed yet come with their seal. */
  async #writeSpan(rollup: RollupTable, position: Position, seals: Seals, guard: WriteGuard): Promise<void> {
    for (const level of SEALED.toSorted((a, b) => a.id - b.id)) {
      if (level.id < position.level || (level === SPLIT_DAY && rollup !== 'activity')) continue
      const next = await this.#store.readInternal<{ span: number; rows: number }>(
        'rebuild_spans',
        `SELECT toUInt32(intDiv(toUnixTimestamp(start), {seconds:UInt32}) * {seconds:UInt32}) AS span, count() AS rows FROM ${rollup}
         WHERE level = ${DAY.id} AND start >= fromUnixTimestamp({from:UInt32}) AND start < fromUnixTimestamp({until:UInt32})
         GROUP BY span ORDER BY span LIMIT ${STEP_SPANS}`,
        {
          seconds: level.seconds,
          from: level.id === position.level ? position.start + level.seconds : 0,
          until: seals.sealedUntil[SEALED.indexOf(level)] ?? 0,
        },
      )
      if (next.length === 0) continue
      let rows = 0
      const from: number[] = []
      for (const { span, rows: more } of next) {
        if (from.length > 0 && rows + more > STEP_ROWS) break
        rows += more
        from.push(span)
      }
      if (level === SPLIT_DAY) await splitDays(this.#store, guard, { from })
      else await sealFrom(this.#store, guard, { table: rollup, level: level.id, from, below: DAY.id })
      await this.#record(rollup, { ...position, level: level.id, start: from.at(-1) as number })
      return
    }
    await this.#record(rollup, { ...position, phase: PHASES.done, level: 0, start: 0 })
    await this.load()
  }

  #daysAfter({ tenant, start }: Position): Promise<Day[]> {
    return this.#store.readInternal<Day>(
      'rebuild_days',
      `${DAYS_OF_EVENTS} HAVING (toString(tenant), start) > ({tenant:String}, {start:UInt32})
       ORDER BY toString(tenant), start LIMIT ${LISTED_DAYS}`,
      { tenant, start },
    )
  }

  /** How much there is to do, for `progress`. */
  async #count(rollup: RollupTable, { tenant, start }: Position): Promise<void> {
    const [row] = await this.#store.readInternal<{ done: number; total: number }>(
      'rebuild_events',
      `SELECT sum(events) AS total, sumIf(events, (toString(tenant), start) <= ({tenant:String}, {start:UInt32})) AS done
       FROM (${DAYS_OF_EVENTS})`,
      { tenant, start },
    )
    this.#events = row ?? { done: 0, total: 0 }
    this.#listed = { rollup, days: [] }
  }

  async #record(rollup: RollupTable, position: Position): Promise<void> {
    await this.#store.admin.insert({
      table: 'rebuilds',
      values: [{ name: rollup, ...position }],
      format: 'JSONEachRow',
      clickhouse_settings: { async_insert: 0, insert_deduplicate: 0, wait_end_of_query: 1 },
    })
  }
}
