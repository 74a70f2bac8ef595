/**
 * Whose turn it is to store events. Counting exactly once rests on groups of events following each other; where several
 * instances share one ClickHouse, the lane makes their groups follow each other too.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from './store.ts'

/** What `enter` found: `kept` where nobody else can have stored anything since this instance last entered. */
export interface Turn {
  readonly epoch: number
  readonly kept: boolean
}

export interface Lane {
  /**
   * Waits for a turn. It lasts long enough for one insert.
   * @throws where the store is out of reach or the turn does not come within a few seconds
   */
  enter(): Promise<Turn>
  /** Lets others have a turn. */
  leave(): Promise<void>
  /**
   * When, on ClickHouse's clock (epoch milliseconds), somebody else's turn began after the given one of this instance;
   * null where there was none. What this instance stored in its turn was received before that.
   */
  takenOver(epoch: number): Promise<number | null>
}

/** The lane of an instance that has its ClickHouse to itself. */
export const OWN_LANE: Lane = {
  enter: () => Promise.resolve({ epoch: 0, kept: true }),
  leave: () => Promise.resolve(),
  takenOver: () => Promise.resolve(null),
}

/** A turn ends by itself after this, when its holder has died. */
const LEASE_MS = 30_000
/** An insert that starts within a turn ends within it: the longest insert, with some slack. */
export const LONGEST_INSERT_MS = 15_000
/** After this, others get a chance. */
const TURN_MS = 500
const WAIT_MS = 8_000

interface LaneRow {
  epoch: number
  holder: string
  held: number
}

/** A name for this instance that outlives it, kept in its DATA_DIR. */
export async function instanceName(dataDir: string): Promise<string> {
  const path = join(dataDir, 'instance')
  await mkdir(dataDir, { recursive: true })
  await writeFile(path, randomUUID(), { flag: 'wx', mode: 0o600 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  return (await readFile(path, 'utf8')).trim()
}

/** The lane of instances that share a database; see clickhouse/007_lane.sql. */
export class SharedLane implements Lane {
  readonly #store: Store
  readonly #me: string
  #epoch = 0
  /** On the local monotonic clock, so that clocks need not agree. */
  #heldSince = -Infinity
  #heldUntil = -Infinity
  /**
   * The last epoch that nobody could get: a server that is killed while it stores a claim may keep the token and lose the
   * row (see complete.ts), and would refuse every later claim of that epoch.
   */
  #lostEpoch = 0

  /** @param instance a name that this instance keeps over restarts, and no other has */
  constructor(store: Store, instance: string) {
    this.#store = store
    this.#me = instance
  }

  async enter(): Promise<Turn> {
    const now = performance.now()
    if (now < this.#heldUntil - LONGEST_INSERT_MS && now < this.#heldSince + TURN_MS) {
      return { epoch: this.#epoch, kept: true }
    }
    await this.leave()
    let nobodySince = Infinity
    for (const deadline = now + WAIT_MS; ; ) {
      const last = await this.#last()
      if (!last.held || last.holder === this.#me) {
        const claimed = performance.now()
        const epoch = Math.max(last.epoch, this.#lostEpoch) + 1
        const winner = await this.#claim(epoch, LEASE_MS)
        nobodySince = winner === undefined ? Math.min(nobodySince, claimed) : Infinity
        if (winner === this.#me) {
          const kept = last.epoch === this.#epoch && this.#epoch > 0
          this.#epoch = epoch
          this.#heldSince = claimed
          this.#heldUntil = claimed + LEASE_MS
          return { epoch: this.#epoch, kept }
        }
      }
      if (performance.now() > deadline) {
        // Free for seconds, and still not to be had: long enough for any claim under way to show.
        if (performance.now() - nobodySince > WAIT_MS / 2) this.#lostEpoch = Math.max(last.epoch, this.#lostEpoch) + 1
        throw new Error('another instance holds the lane')
      }
      await sleep(10 + Math.random() * 40)
    }
  }

  async leave(): Promise<void> {
    if (performance.now() >= this.#heldUntil) return
    this.#heldUntil = -Infinity
    if ((await this.#claim(this.#epoch + 1, 0)) === this.#me) this.#epoch++
  }

  async takenOver(epoch: number): Promise<number | null> {
    const [row] = await this.#store.readInternal<{ at: number; turns: number }>(
      'lane_taken_over',
      `SELECT toUnixTimestamp64Milli(min(at)) AS at, count() AS turns FROM lane
       WHERE epoch > {epoch:UInt64} AND holder != {holder:String}`,
      { epoch, holder: this.#me },
    )
    return row && row.turns > 0 ? row.at : null
  }

  async #last(): Promise<LaneRow> {
    const [row] = await this.#store.readInternal<LaneRow>(
      'lane_last',
      `SELECT epoch, holder, until > now64(3) AS held FROM lane ORDER BY epoch DESC LIMIT 1`,
    )
    return row ?? { epoch: 0, holder: '', held: 0 }
  }

  /** Of all who claim an epoch, one gets it, and is returned. A claim of no length gives the lane up. */
  async #claim(epoch: number, ms: number): Promise<string | undefined> {
    await this.#store.writer.command({
      query: `INSERT INTO lane (epoch, holder, until)
        VALUES ({epoch:UInt64}, {holder:String}, now64(3) + toIntervalMillisecond({ms:UInt32}))`,
      query_params: { epoch, holder: this.#me, ms },
      clickhouse_settings: {
        async_insert: 0,
        insert_deduplicate: 1,
        insert_deduplication_token: `lane-${epoch}`,
        wait_end_of_query: 1,
      },
    })
    const [row] = await this.#store.readInternal<{ holder: string }>(
      'lane_winner',
      `SELECT holder FROM lane WHERE epoch = {epoch:UInt64}`,
      { epoch },
    )
    return row?.holder
  }
}
