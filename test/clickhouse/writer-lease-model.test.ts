/**
 * A model of src/clickhouse/writer-lease.ts and of how src/ingest/batch-writer.ts uses it, small enough to be searched
 * completely: two instances are sent the same event at once, and every interleaving of their steps, of the network and of
 * the clock is tried. Answers get lost, inserts arrive as late as they like, leases end at any moment. An instance that is
 * paused or dies is one that makes no further step.
 *
 * Whatever happens, the event is stored once at most, and is stored where anybody was told so. Each rule of the protocol is
 * also taken out once, to see that the search finds what it is for.
 */
import { describe, expect, test } from 'vitest'

interface Rules {
  /** ClickHouse refuses an insert that arrives when its term is over. */
  refuseLate: boolean
  /** A new holder waits for inserts of terms that were not released. */
  waitForRunning: boolean
  /** An instance whose term ended before its insert was answered looks the event up again. */
  lookAgain: boolean
  /** A term is only released when the outcome of every insert under it is known. */
  releaseKnownOnly: boolean
  /** An insert that is sent again under the same term has the same token. */
  sameToken: boolean
}

const ALL_RULES: Rules = { refuseLate: true, waitForRunning: true, lookAgain: true, releaseKnownOnly: true, sameToken: true }

interface Term {
  holder: number
  over: boolean
  released: boolean
}

interface Insert {
  term: number
  token: number
  state: 'travelling' | 'running' | 'stored' | 'refused'
}

interface Instance {
  /** idle: has no lease; waiting: claimed it; ready: may decide; decided: the event is to be sent; sent: waits for an answer */
  phase: 'idle' | 'waiting' | 'ready' | 'decided' | 'sent' | 'finished'
  term: number
  /** Index of the insert whose answer is waited for. */
  insert: number
  token: number
  /** Terms under which it has sent the event. */
  own: number[]
  told: 'nothing' | 'accepted' | 'duplicate'
}

interface World {
  terms: Term[]
  inserts: Insert[]
  /** Of each stored row, the term and the token. */
  rows: Array<{ term: number; token: number }>
  instances: Instance[]
  tokens: number
}

const MAX_TERMS = 3
const MAX_INSERTS = 3

const start = (): World => ({
  terms: [],
  inserts: [],
  rows: [],
  instances: [0, 1].map(() => ({ phase: 'idle', term: -1, insert: -1, token: -1, own: [], told: 'nothing' })),
  tokens: 0,
})

/** Every world that can follow. */
function* next(world: World, rules: Rules): Generator<World> {
  const text = JSON.stringify(world)
  const changed = (change: (copy: World) => void): World => {
    const copy = JSON.parse(text) as World
    change(copy)
    return copy
  }
  for (const [at, me] of world.instances.entries()) {
    const my = (change: (me: Instance, copy: World) => void) => changed((copy) => change(copy.instances[at] as Instance, copy))
    if (me.phase === 'finished') continue
    const last = world.terms.at(-1)
    if (me.phase === 'idle' && world.terms.length < MAX_TERMS && (!last || last.over || last.released)) {
      yield my((self, copy) => {
        copy.terms.push({ holder: at, over: false, released: false })
        Object.assign(self, { phase: 'waiting', term: copy.terms.length - 1 })
      })
    }
    if (me.phase === 'waiting') {
      const running = world.inserts.some(
        ({ state, term }) => state === 'running' && term < me.term && !world.terms[term]?.released,
      )
      if (!running || !rules.waitForRunning) yield my((self) => (self.phase = 'ready'))
    }
    if (me.phase === 'ready') {
      yield my((self, copy) => {
        const row = copy.rows[0]
        if (row && (rules.lookAgain || self.own.length === 0)) {
          self.told = self.own.includes(row.term) ? 'accepted' : 'duplicate'
          self.phase = 'finished'
          ;(copy.terms[self.term] as Term).released = true
        } else {
          self.token = copy.tokens++
          self.phase = 'decided'
        }
      })
    }
    if (me.phase === 'decided' && world.inserts.length < MAX_INSERTS) {
      yield my((self, copy) => {
        self.insert = copy.inserts.push({ term: self.term, token: self.token, state: 'travelling' }) - 1
        self.own.push(self.term)
        self.phase = 'sent'
      })
    }
    if (me.phase === 'sent') {
      const state = world.inserts[me.insert]?.state
      if (state === 'stored') {
        yield my((self, copy) => {
          self.told = 'accepted'
          self.phase = 'finished'
          ;(copy.terms[self.term] as Term).released = true
        })
      }
      if (state === 'refused') yield my((self) => (self.phase = 'idle'))
      // The answer is lost: it is sent again under the same term, or the term is given up.
      yield my((self, copy) => {
        self.phase = 'decided'
        if (!rules.sameToken) self.token = copy.tokens++
      })
      yield my((self, copy) => {
        self.phase = 'idle'
        if (!rules.releaseKnownOnly) (copy.terms[self.term] as Term).released = true
      })
    }
  }
  const lastTerm = world.terms.length - 1
  if (lastTerm >= 0 && !world.terms[lastTerm]?.over) yield changed((copy) => ((copy.terms[lastTerm] as Term).over = true))
  for (const [at, { state, term, token }] of world.inserts.entries()) {
    const to = (become: Insert['state']) => changed((copy) => ((copy.inserts[at] as Insert).state = become))
    if (state === 'travelling') yield to(rules.refuseLate && world.terms[term]?.over ? 'refused' : 'running')
    if (state === 'running') {
      yield changed((copy) => {
        ;(copy.inserts[at] as Insert).state = 'stored'
        if (!copy.rows.some((row) => row.token === token)) copy.rows.push({ term, token })
      })
    }
  }
}

/** Looks at every world that can be reached; the first that breaks a promise, as text, and how many were looked at. */
function search(rules: Rules): { worlds: number; broken: string | null } {
  const seen = new Set<string>()
  const open = [start()]
  while (open.length > 0) {
    const world = open.pop() as World
    const key = JSON.stringify(world)
    if (seen.has(key)) continue
    seen.add(key)
    if (world.rows.length > 1) return { worlds: seen.size, broken: `stored twice: ${key}` }
    if (world.rows.length === 0 && world.instances.some(({ told }) => told !== 'nothing')) {
      return { worlds: seen.size, broken: `lost: ${key}` }
    }
    if (world.instances.every(({ told }) => told === 'accepted')) return { worlds: seen.size, broken: `accepted twice: ${key}` }
    open.push(...next(world, rules))
  }
  return { worlds: seen.size, broken: null }
}

describe('the protocol of the writer lease', () => {
  test('stores an event once, and says so truly, in every interleaving', () => {
    const { worlds, broken } = search(ALL_RULES)
    expect(broken).toBe(null)
    // Not by having looked at nothing.
    expect(worlds).toBeGreaterThan(10_000)
  })

  test.each(Object.keys(ALL_RULES) as Array<keyof Rules>)('breaks without the rule %s', (rule) => {
    expect(search({ ...ALL_RULES, [rule]: false }).broken).not.toBe(null)
  })
})
