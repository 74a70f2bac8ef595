/** The books of the suite notice what they are there for. */
import { expect, test } from 'vitest'
import { Ledger, type State } from '../faults/ledger.ts'
import { checkNames, checkRows, NOTHING, personOf, type Findings } from './books.ts'
import type { NameRow, StoredRow } from './schema.ts'

/** Two companies with an event each, of one assistant and a user of their own. */
const MADE = [
  { tenant: 'acme', mark: 'a-1', user: 'ann' },
  { tenant: 'globex', mark: 'g-1', user: 'gus' },
] as const

const row = (tenantKey: string, mark: string, user: string, more: Partial<StoredRow> = {}): StoredRow => ({
  tenantKey,
  id: `id ${mark}`,
  eventType: 'tasksInitiated',
  at: 0,
  assistant: 'bot',
  user,
  assistantNo: 1,
  userNo: 1,
  nanos: 5,
  inputTokens: 0,
  outputTokens: 0,
  model: '',
  traceId: mark,
  metadata: '',
  ...more,
})

const ann = row('1', 'a-1', 'ann')
const gus = row('2', 'g-1', 'gus')

const entry = (name: string, key: string): NameRow => ({ tenantKey: '1', kind: 'user', name, key })

interface Given {
  states?: State[]
  removed?: string[]
  names?: NameRow[]
}

/** What is found in rows, without the zeros. Each event was acknowledged unless `states` says otherwise. */
function found(rows: StoredRow[], { states = ['stored', 'stored'], removed = [], names = [] }: Given = {}): Partial<Findings> {
  const ledger = new Ledger([])
  for (const [at, { tenant, mark, user }] of MADE.entries()) {
    ledger.open(tenant)
    const timestamp = new Date(0).toISOString()
    const event = {
      id: `id ${mark}`,
      eventType: 'tasksInitiated',
      timestamp,
      assistant: 'bot',
      user,
      traceId: mark,
      cost: 5e-9,
    } as const
    ledger.add({ tenant, event, state: states[at] as State })
  }
  ledger.counts.accepted = 2
  ledger.counts.unanswered = states.includes('sent') ? 1 : 0
  const findings = { ...NOTHING }
  const books = { ledger, removed: new Set(removed), found: findings, report: () => {} }
  checkRows(books, rows)
  checkNames(books, rows, names)
  return Object.fromEntries(Object.entries(findings).filter(([, count]) => count > 0))
}

test('two events that are stored once each are all right', () => {
  expect(found([ann, gus])).toEqual({})
})

test('an acknowledged event that is not stored is lost, one without an answer may be there or not', () => {
  expect(found([gus])).toEqual({ lost: 1, receipts: 1 })
  const unanswered = { states: ['sent', 'stored'] } satisfies Given
  expect(found([ann, gus], unanswered)).toEqual({})
  // One of two accepted events is not there: its receipt was wrong, whoever got it.
  expect(found([gus], unanswered)).toEqual({ receipts: 1 })
})

test('a second row of an event is counted, under the same id or another', () => {
  expect(found([ann, ann, gus])).toEqual({ doubled: 1 })
  expect(found([ann, { ...ann, id: 'made up' }, gus])).toEqual({ doubled: 1 })
})

test('a row that nobody made, that was refused, or that says something else is unexpected', () => {
  expect(found([ann, gus, row('1', 'x-9', 'ann')])).toEqual({ unexpected: 1 })
  expect(found([ann, gus], { states: ['refused', 'stored'] })).toEqual({ unexpected: 1 })
  expect(found([{ ...ann, nanos: 6 }, gus])).toEqual({ unexpected: 1 })
})

test('two companies under one number are counted, and a company with two numbers', () => {
  expect(found([ann, { ...gus, tenantKey: '1', userNo: 2 }])).toEqual({ sharedCompanies: 2 })
  expect(found([ann, gus, { ...ann, tenantKey: '3' }])).toEqual({ doubled: 1, doubleNames: 1 })
})

test('numbers with two names and names with two numbers are found in the log and in the dictionary', () => {
  expect(found([ann, { ...gus, tenantKey: '1' }])).toEqual({ sharedCompanies: 2, sharedNumbers: 1 })
  expect(found([ann, gus], { names: [entry('bob', '1')] })).toEqual({ sharedNumbers: 1 })
  expect(found([ann, gus], { names: [entry('ann', '1'), entry('ann', '2')] })).toEqual({ doubleNames: 1 })
  const companies: NameRow[] = ['acme', 'globex'].map((name) => ({ tenantKey: '', kind: 'tenant', name, key: '1' }))
  expect(found([ann, gus], { names: companies })).toEqual({ sharedNumbers: 1 })
})

test('only the events of a removed person lose their name, and all of them do', () => {
  const anonymous = { user: '', traceId: '', metadata: '' }
  const removed = { removed: [personOf('acme', 'ann')] }
  expect(found([{ ...ann, ...anonymous }, gus], removed)).toEqual({})
  expect(found([ann, gus], removed)).toEqual({ removals: 1 })
  expect(found([{ ...ann, user: '' }, gus], removed)).toEqual({ removals: 1 })
  expect(found([ann, { ...gus, ...anonymous }])).toEqual({ removals: 1 })
})
