/**
 * How fast events are taken in, against the same bytes sent to ClickHouse by its own client. Every contender gets a fresh
 * database, the same load generator process, the same seconds, and is checked for having stored what it acknowledged.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { ClickHouseClient } from '@clickhouse/client'
import { createLog } from '../src/log.ts'
import { migrateDatabase } from '../src/service.ts'
import { load } from './load.ts'
import { startService } from './service.ts'
import { connect, say, type Connection } from './support.ts'
import type { Rate } from './worker.ts'

const BATCH = 1_000
const CONNECTIONS = 8
const CALLERS = 100
const CALLERS_BATCH = 10

export interface Ingested {
  readonly name: string
  readonly eventsPerSecond: number
  readonly rate: Rate
  /** Of the service, MB; absent for the client. */
  readonly memory?: { readonly first: number; readonly last: number; readonly peak: number }
}

export interface Ingestion {
  readonly service: Ingested
  readonly callers: Ingested
  /** Through the client: into the tables with all views, and into the raw table alone; each insert a part, or grouped. */
  readonly views: Ingested
  readonly viewsGrouped: Ingested
  readonly raw: Ingested
  readonly rawGrouped: Ingested
}

interface Place {
  readonly connection: Connection
  readonly dataDir: string
}

/** Contenders take turns, and of each the middle one of its runs counts: a machine is not equally fast for minutes. */
const RUNS = 3

/** @param secs how long each contender is measured, in all its runs together */
export async function measureIngestion(place: Place, secs: number): Promise<Ingestion> {
  const seconds = secs / RUNS
  const through = (name: string, withViews: boolean, asynchronous: boolean) => () =>
    inFreshDatabase(place.connection, name, withViews, async (connection) => {
      const rate = await load({ kind: 'insert', connection, asynchronous, size: BATCH, connections: CONNECTIONS, seconds })
      return { result: told({ name, rate, eventsPerSecond: rate.events / rate.seconds }), stored: rate.eventsInAll }
    })
  const contenders = {
    views: through('client, all views', true, false),
    service: () => throughService(place, 'service, 8 connections x 1,000', CONNECTIONS, BATCH, seconds),
    callers: () => throughService(place, 'service, 100 callers x 10', CALLERS, CALLERS_BATCH, seconds),
    raw: through('client, raw table alone', false, false),
    viewsGrouped: through('client, all views, async_insert', true, true),
    rawGrouped: through('client, raw table alone, async_insert', false, true),
  }
  const runs = new Map<string, Ingested[]>()
  for (let run = 0; run < RUNS; run++) {
    for (const [name, measure] of Object.entries(contenders)) runs.set(name, [...(runs.get(name) ?? []), await measure()])
  }
  return Object.fromEntries([...runs].map(([name, all]) => [name, middle(all)])) as unknown as Ingestion
}

/** The median run, with the highest memory of all. */
function middle(all: readonly Ingested[]): Ingested {
  const sorted = [...all].sort((a, b) => a.eventsPerSecond - b.eventsPerSecond)
  const median = sorted[sorted.length >> 1] as Ingested
  const peak = Math.max(...all.map(({ memory }) => memory?.peak ?? 0))
  return median.memory ? { ...median, memory: { ...median.memory, peak } } : median
}

/** Full rate for minutes, to see whether memory stays where it is. */
export const soak = (place: Place, minutes: number): Promise<Ingested> =>
  throughService(place, `soak, ${minutes} minutes`, CONNECTIONS, BATCH, minutes * 60)

function throughService({ connection: base, dataDir }: Place, name: string, callers: number, size: number, secs: number) {
  return inFreshDatabase(base, name, true, async (connection) => {
    const own = join(dataDir, connection.database)
    const service = await startService(connection, { dataDir: own, cacheMb: 32 })
    const memory: number[] = []
    const sampler = setInterval(
      () =>
        void service.memory().then(
          (mb) => memory.push(mb),
          () => {},
        ),
      1_000,
    )
    try {
      const authorization = await service.authorization('org-01')
      const authorizations = Array.from({ length: callers }, () => authorization)
      const rate = await load({ kind: 'post', url: service.url, authorizations, size, seconds: secs })
      return {
        result: told({ name, rate, eventsPerSecond: rate.events / rate.seconds, memory: summary(memory) }),
        stored: rate.eventsInAll,
      }
    } finally {
      clearInterval(sampler)
      await service.stop()
      await rm(own, { recursive: true, force: true })
    }
  })
}

/** Means over the first and last quarter, without the first tenth: a process that has just started is still growing. */
function summary(samples: readonly number[]) {
  const steady = samples.slice(Math.floor(samples.length / 10))
  const quarter = Math.max(1, Math.floor(steady.length / 4))
  return { first: mean(steady.slice(0, quarter)), last: mean(steady.slice(-quarter)), peak: Math.round(Math.max(...samples)) }
}

const mean = (values: readonly number[]) => Math.round(values.reduce((sum, mb) => sum + mb, 0) / values.length)

let databases = 0

/** Makes the tables, lets `work` fill them, and counts what is there; the raw table alone keeps its projections. */
async function inFreshDatabase(
  base: Connection,
  name: string,
  withViews: boolean,
  work: (connection: Connection) => Promise<{ result: Ingested; stored: number }>,
): Promise<Ingested> {
  const connection = { ...base, database: `analytics_test_bench_${process.pid}_${databases++}` }
  const admin = connect(connection, base.admin, 1)
  try {
    await migrateDatabase(connection, connection.database, createLog('silent'))
    if (!withViews) for (const view of ['activity_mv', 'user_activity_mv']) await drop(admin, 'VIEW', view)
    const { result, stored } = await work(connection)
    const found = await admin.query({ query: 'SELECT count() AS events FROM events', format: 'JSONEachRow' })
    const [row] = await found.json<{ events: string }>()
    if (Number(row?.events) !== stored) throw new Error(`${name}: ${stored} events acknowledged, ${row?.events} stored`)
    return result
  } finally {
    await drop(admin, 'DATABASE', connection.database).catch(() => {})
    await admin.close()
  }
}

const drop = (admin: ClickHouseClient, kind: 'VIEW' | 'DATABASE', name: string) =>
  admin.command({ query: `DROP ${kind} IF EXISTS ${name} SYNC` })

function told(result: Ingested): Ingested {
  const { name, eventsPerSecond, rate, memory } = result
  say(
    `  ${name}: ${Math.round(eventsPerSecond)} events a second over ${Math.round(rate.seconds)} s, ` +
      `${rate.failed} failed requests${memory ? `, ${memory.peak} MB at most` : ''}`,
  )
  return result
}
