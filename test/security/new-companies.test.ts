/**
 * Companies that are new to two services on one ClickHouse at the same moment. While tenants had numbers that were handed
 * out, both services handed out the same ones, and companies read each other's events with their own tokens.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest'
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
const dataDirs: string[] = []

beforeAll(async () => {
  const database = `analytics_test_${randomBytes(6).toString('hex')}`
  const start = async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'analytics-instance-'))
    dataDirs.push(dataDir)
    return startService({ now: NOW, config: { CLICKHOUSE_URL: inject('clickhouse').url }, from: { database, dataDir } })
  }
  services = await Promise.all([start(), start()])
})
afterAll(async () => {
  const [first, ...others] = services ?? []
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

/** Sends a company's events until they are acknowledged; on a slow machine that may take more than the service waits for. */
async function send(org: string, at: number) {
  for (;;) {
    const { status, body } = await (services[at] as TestService).post(eventsOf(org, at), { org })
    if (status === 200) return expect(body.data.rejected, org).toEqual([])
    expect(status, JSON.stringify(body)).toBe(503)
    await sleep(500)
  }
}

interface Listed {
  id: string
  assistant: string
  user: string
  traceId: string
  metadata: object
}

test('200 that start at both at once each read their own data, all of it, and nothing else', async () => {
  await inGroups(STARTING, async (org) => {
    await Promise.all(services.map((_, at) => send(org, at)))
  })

  const wrong: string[] = []
  const check = async (org: string) => {
    const own = services.flatMap((_, at) => eventsOf(org, at))
    for (const service of services) {
      const { data, pagination } = await service.whole('events', { ...RANGE, limit: 100 }, { org })
      for (const { assistant, user, traceId, metadata } of data as Listed[]) {
        const all = JSON.stringify([assistant, user, traceId, metadata])
        if (all.match(/company \d+/g)?.some((name) => name !== org)) wrong.push(`${org} reads ${all}`)
      }
      const ids = (data as Listed[]).map(({ id }) => id).sort()
      expect(ids, org).toEqual(own.map(({ id }) => id).sort())
      expect(pagination.total, org).toBe(own.length)
    }
    const [service] = services as [TestService]
    const months = await service.data('metrics', { ...RANGE, period: 'month' }, { org })
    expect(months.map(({ total }: { total: number }) => total), org).toEqual([own.length, 0])
    const csv = (await service.get('events', { ...RANGE, format: 'csv' }, { org })).body as string
    const assistants = await service.data('assistants', RANGE, { org })
    const users = await service.data('users/top', RANGE, { org })
    for (const names of [csv, JSON.stringify(assistants), JSON.stringify(users)]) {
      const shown = names.match(/company \d+/g) ?? []
      expect(shown.length, org).toBeGreaterThan(0)
      if (shown.some((name) => name !== org)) wrong.push(`${org} is shown ${names}`)
    }
  }
  await inGroups(ASKING, check)
  expect(wrong).toEqual([])
})

test('both wrote down the names behind the keys, and each key has one', async () => {
  const rows = await (services[0] as TestService).rows<{ tenant: string; name: string }>('SELECT tenant, name FROM tenants FINAL')
  expect(rows.map(({ tenant, name }) => `${tenant} ${name}`).sort()).toEqual(COMPANIES.map((org) => `${tenantKey(org)} ${org}`).sort())
})
