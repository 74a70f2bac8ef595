/**
 * `npm run demo`: the service on a DATA_DIR of its own, with a month of made-up traffic up to now in the company "demo",
 * and more as time passes. A later start goes on where the last one was: the ids tell what is there (traffic.ts).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { ApiError } from '../../domain/errors.ts'
import { tenantKey } from '../../domain/tenant.ts'
import { checkEvent } from '../../ingest/check-event.ts'
import type { Batch } from '../../ingest/deduplicate.ts'
import { run, type Service } from '../../run.ts'
import { formatCount, Progress } from '../progress.ts'
import { eventsOfHour, FINDINGS, HISTORY_HOURS, HOUR_MS, readDemoId, type DemoEvent, type Hour } from './traffic.ts'

const ORG = 'demo'
const BATCH_EVENTS = 20_000
const TICK_MS = 2_000
/** A store that is away for a moment is waited for. */
const ATTEMPTS = 10

const hourOf = (instant: number): Hour => Math.floor(instant / HOUR_MS)
const isoOf = (hour: Hour): string => new Date(hour * HOUR_MS).toISOString().replace(':00.000Z', 'Z')

/** Where the demo is: all of its events up to and including `until`, an instant, are stored. */
interface State {
  anchor: Hour
  until: number
}

async function findState({ store }: Service, now: number): Promise<State> {
  const tenant = tenantKey(ORG)
  // Asked of the events, so that what is stored and what is believed to be stored cannot differ.
  const [row] = await store.readInternal<{ id: string }>(
    'demo_last',
    `SELECT id FROM events WHERE tenant = {tenant:UUID} AND match(id, '^demo-[0-9]+-[0-9]+-[0-9]+$')
     ORDER BY timestamp DESC LIMIT 1`,
    { tenant },
  )
  const last = row && readDemoId(row.id)
  // A conversation goes on for an hour at most, so what is stored reaches into this hour or the next one.
  if (last) return { anchor: last.anchor, until: last.hour * HOUR_MS - 1 }
  return { anchor: hourOf(now), until: (hourOf(now) - HISTORY_HOURS) * HOUR_MS - 1 }
}

/** The events of (after, until], oldest first, an hour at a time. */
function* hoursBetween(anchor: Hour, after: number, until: number): Generator<DemoEvent[]> {
  for (let hour = hourOf(after + 1); hour <= hourOf(until); hour++) {
    yield eventsOfHour(anchor, hour).filter(({ timestamp }) => {
      const instant = Date.parse(timestamp)
      return instant > after && instant <= until
    })
  }
}

function batchOf(events: readonly DemoEvent[], now: number): Batch {
  const checked = events.map((value, index) => {
    const event = checkEvent(value, now, () => value.id)
    if (typeof event === 'string') throw new Error(`the demo made an event that is refused: ${event}`)
    return { index, event }
  })
  return { tenant: ORG, events: checked, rejected: [] }
}

/** Stores what is missing up to now. */
async function fill({ writer }: Service, state: State): Promise<void> {
  const now = Date.now()
  const first = hourOf(state.until + 1)
  let hours = 0
  let stored = 0
  const progress = new Progress('made-up traffic', () => ({ done: hours, total: hourOf(now) - first + 1, events: stored }))
  const store = async (events: DemoEvent[]): Promise<void> => {
    const batch = batchOf(events, now)
    for (let attempt = 1; ; attempt++) {
      try {
        await writer.submit(batch)
        break
      } catch (error) {
        if (!(error instanceof ApiError) || attempt === ATTEMPTS) throw error
        await sleep(1_000)
      }
    }
    stored += events.length
  }
  try {
    // One batch is made while the one before is stored; in order, so that after a crash nothing is missing before `until`.
    let underWay = Promise.resolve()
    let waiting: DemoEvent[] = []
    const flush = async () => {
      const batch = waiting
      waiting = []
      await underWay
      underWay = store(batch)
      underWay.catch(() => {}) // It is looked at when the next one is ready.
    }
    for (const events of hoursBetween(state.anchor, state.until, now)) {
      hours++
      waiting.push(...events)
      if (waiting.length < BATCH_EVENTS) continue
      await flush()
      await sleep(0) // Lets the service work on: making events blocks it.
    }
    if (waiting.length > 0) await flush()
    await underWay
  } finally {
    progress.stop()
  }
  state.until = now
}

/** Stores what has happened since, every few seconds, until the process ends. */
async function goOn({ writer }: Service, state: State): Promise<never> {
  for (;;) {
    await sleep(TICK_MS)
    const now = Date.now()
    try {
      for (const events of hoursBetween(state.anchor, state.until, now)) {
        if (events.length > 0) await writer.submit(batchOf(events, now))
      }
      state.until = now
    } catch (error) {
      // The same events come with the next tick. The writer has logged what is wrong.
      if (!(error instanceof ApiError)) throw error
    }
  }
}

function describe({ anchor }: State): string {
  const { idle, regression, newcomer, retryLoop } = FINDINGS
  const at = (from: number) => isoOf(anchor + from)
  return `What there is to find in the made-up traffic:

  ${idle.assistant.padEnd(15)} idle since ${at(idle.from)}
  ${regression.assistant.padEnd(15)} completes far fewer tasks since ${at(regression.from)}
  ${newcomer.assistant.padEnd(15)} new on ${at(newcomer.from)}
  ${retryLoop.assistant.padEnd(15)} ${formatCount(retryLoop.hours * retryLoop.messagesPerHour)} messages of ${retryLoop.user} from ${at(retryLoop.from)}

`
}

const dataDir = process.env['DATA_DIR'] || './data/demo'
let state: State | undefined
const service = await run({
  env: { ...process.env, DATA_DIR: dataDir },
  async beforeReady(ready) {
    state = await findState(ready, Date.now())
    await fill(ready, state)
  },
})
if (state) {
  process.stdout.write(describe(state))
  await goOn(service, state)
}
