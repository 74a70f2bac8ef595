/**
 * Companies that are new to two services on one ClickHouse at the same moment. While tenants had numbers that were handed
 * out, both services handed out the same ones, and companies read each other's events with their own tokens.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, inject, test, vi } from 'vitest'
import { tenantKey } from '../../src/domain/tenant.ts'
import { startService, type TestService } from '../support.ts'

vi.setConfig({ testTimeout: 600_000, hookTimeout: 60_000 })

const NOW = '2026-03-01T12:00:00.000Z'
const RANGE = { startDate: '2026-02-01', endDate: '2026-03-02' }
const COMPANIES = Array.from({ length: 200 }, (_, n) => `company ${n}`)
/** Companies that start, or are asked about, at the same time. */
const STARTING = 20
const ASKING = 8

let services: TestService[]
let dataDirs: string[]

async function start(config: Record<string, string>) {
  const database = `analytics_test_${randomBytes(6).toString('hex')}`
  const startOne = async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'analytics-instance-'))
    dataDirs.push(dataDir)
    return startService({ now: NOW, config, from: { database, dataDir } })
  }
  dataDirs = []
  services = await Promise.all([startOne(), startOne()])
}

afterEach(async () => {
  const [first, ...others] = services
  for (const service of others) await service.stop()
  await first?.close()
  for (const dataDir of dataDirs) await rm(dataDir, { recursive: true, force: true })
})

/** What a company sends to one of the services. Nothing but the token says whose the ids are. */
const eventsOf = (org: string, service: number) =>
  ['incomingMessages', 'tasksInitiated', 'tasksCompleted'].map((eventType, n) => ({
    id: `event ${service} ${n}`,
    eventType,
    timestamp: `2026-02-${10 + n}T10:00:00.000Z`,
    assistant: `assistant ${n} of ${org}`,
    user: `user ${service} of ${org}`,
    traceId: `trace of ${org}`,
    metadata: { of: org },
  }))

async function inGroups(size: number, work: (org: string) => Promise<void>) {
  for (let at = 0; at < COMPANIES.length; at += size) await Promise.all(COMPANIES.slice(at, at + size).map(work))
}

/** Sends a company's events until they are acknowledged, and returns what was refused; on a slow machine that may take more than the service waits for. */
async function send(org: string, at: number): Promise<string[]> {
  for (;;) {
    const { status, body } = await (services[at] as TestService).post(eventsOf(org, at), { org })
    if (status === 200)
      return (body.data.rejected as Array<{ message: string }>).map(({ message }) => `${org} is told: ${message}`)
    expect(status, JSON.stringify(body)).toBe(503)
    await sleep(500)
  }
}

/** Both services get each company's first events at once; then each company is asked everything that shows names or figures. */
async function startAndAsk() {
  const wrong: string[] = []
  await inGroups(STARTING, async (org) => {
    wrong.push(...(await Promise.all(services.map((_, at) => send(org, at)))).flat())
  })

  const check = async (org: string) => {
    const own = services.flatMap((_, at) => eventsOf(org, at))
    // Either of the two: they read the same database.
    const service = services[COMPANIES.indexOf(org) % 2] as TestService
    const { data, pagination } = await service.whole('events', { ...RANGE, limit: 100 }, { org })
    const ids = (data as Array<{ id: string }>).map(({ id }) => id).sort()
    if (JSON.stringify(ids) !== JSON.stringify(own.map(({ id }) => id).sort())) wrong.push(`${org} has the events ${ids}`)
    if (pagination.total !== own.length) wrong.push(`${org} has ${pagination.total} events`)
    const shown = {
      events: data,
      csv: (await service.get('events', { ...RANGE, format: 'csv' }, { org })).body,
      assistants: await service.data('assistants', RANGE, { org }),
      users: await service.data('users/top', RANGE, { org }),
    }
    for (const [what, answer] of Object.entries(shown)) {
      const names = JSON.stringify(answer).match(/company \d+/g) ?? []
      if (names.length === 0) wrong.push(`${org} sees nothing of its ${what}`)
      for (const name of new Set(names)) if (name !== org) wrong.push(`${org} sees ${name} in its ${what}`)
    }
    const [month] = await service.data('metrics', { ...RANGE, period: 'month' }, { org })
    if (month.total !== own.length) wrong.push(`${org} counts ${month.total} events`)
  }
  await inGroups(ASKING, check)
  expect(wrong).toEqual([])

  const rows = await (services[0] as TestService).rows<{ tenant: string; name: string }>('SELECT tenant, name FROM tenants FINAL')
  const keys = rows.map(({ tenant, name }) => `${tenant} ${name}`).sort()
  expect(keys, 'the names behind the keys').toEqual(COMPANIES.map((org) => `${tenantKey(org)} ${org}`).sort())
}

describe('200 that start at both at once each read their own data, all of it, and nothing else', () => {
  test('where one service writes at a time', async () => {
    await start({ CLICKHOUSE_URL: inject('clickhouse').url })
    await startAndAsk()
  })

  test('even where each believes that it is alone, and no lock makes them take turns', async () => {
    await start({})
    await startAndAsk()
  })
})
