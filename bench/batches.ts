/**
 * Events to send: users and assistants drawn as in the fleet, timestamps in the present second, ids never used before.
 *
 * Making JSON for every event would cost more than sending it, on the cores that the service shares. So bodies for
 * 100,000 events are made once, and before each use the seconds and half of every id are overwritten in place.
 */
import { randomBytes } from 'node:crypto'
import { tenantKey } from '../src/domain/tenant.ts'

/** `request`: as POST /analytics/events takes them. `row`: the same, and the key and the numbers that the events table wants. */
export type Shape = 'request' | 'row'

const TENANT = tenantKey('org-01')
const USERS = 300_000
const ASSISTANTS = 500
const EVENTS = 100_000
const MAX_BODIES = 2_000
const TYPES = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted']

const ID_HALF = 16
const SECOND = '2000-01-01T00:00:00'

interface Body {
  readonly bytes: Buffer
  /** Where in `bytes` the ids and the timestamps begin. */
  readonly ids: number[]
  readonly timestamps: number[]
}

export class Batches {
  readonly #bodies: Body[]
  readonly #shape: Shape
  #turn = 0

  constructor(shape: Shape, size: number) {
    this.#shape = shape
    const random = sequence(20_240_229)
    this.#bodies = Array.from({ length: Math.min(MAX_BODIES, Math.ceil(EVENTS / size)) }, () => makeBody(shape, size, random))
  }

  /** After so many batches every user and assistant has been there once. */
  get distinct(): number {
    return this.#bodies.length
  }

  /** Good until `distinct` more have been taken. */
  next(): Buffer {
    const { bytes, ids, timestamps } = this.#bodies[this.#turn++ % this.#bodies.length] as Body
    const half = randomBytes(ID_HALF / 2).toString('hex')
    const now = new Date().toISOString().slice(0, SECOND.length)
    const second = this.#shape === 'row' ? now.replace('T', ' ') : now
    for (const at of ids) bytes.write(half, at, 'latin1')
    for (const at of timestamps) bytes.write(second, at, 'latin1')
    return bytes
  }
}

function makeBody(shape: Shape, size: number, random: () => number): Body {
  const ids: number[] = []
  const timestamps: number[] = []
  const lines: string[] = []
  let length = 0
  for (let i = 0; i < size; i++) {
    const line = JSON.stringify(makeEvent(shape, i, random))
    ids.push(length + line.indexOf('"id":"') + 6)
    timestamps.push(length + line.indexOf('"timestamp":"') + 13)
    lines.push(line)
    length += line.length + 1
  }
  return { bytes: Buffer.from(`${lines.join('\n')}\n`, 'latin1'), ids, timestamps }
}

function makeEvent(shape: Shape, i: number, random: () => number) {
  const user = rank(random(), USERS, 100)
  const slots = sequence(user * 6 + Math.floor(random() * (1 + (user % 6))))
  const assistant = rank(slots(), ASSISTANTS, 5)
  const kind = random()
  const type = kind < 0.4 ? 0 : kind < 0.8 ? 1 : kind < 0.91 ? 2 : 3
  const costs = type === 0 ? 0 : 1
  const input = costs * Math.round(60 + 20 * Math.exp(4.5 * random()))
  const output = costs * Math.round(15 + 15 * Math.exp(4 * random()))
  const nanos = (input + 4 * output) * 250
  const millisecond = String(i % 1000).padStart(3, '0')
  const shared = {
    assistant: `assistant-${String(assistant).padStart(3, '0')}`,
    user: `user-${(user * 2_654_435_761).toString(16).padStart(14, '0')}`,
    model: 'base-3',
  }
  const id =
    '0'.repeat(ID_HALF) +
    Math.floor(random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0') +
    i.toString(16).padStart(8, '0')
  if (shape === 'request') {
    return {
      id,
      eventType: TYPES[type],
      timestamp: `${SECOND}.${millisecond}Z`,
      ...shared,
      cost: nanos / 1e9,
      inputTokens: input,
      outputTokens: output,
    }
  }
  return {
    id,
    event_type: TYPES[type],
    timestamp: `${SECOND}.${millisecond}`,
    ...shared,
    tenant: TENANT,
    assistant_no: assistant,
    user_no: user,
    cost_nanos: nanos,
    input_tokens: input,
    output_tokens: output,
  }
}

/** As in fleet.ts: uniform in the logarithm, flattened over the first `offset` ranks. */
const rank = (x: number, n: number, offset: number) =>
  1 + Math.min(n - 1, Math.floor(offset * (Math.exp(x * Math.log(1 + n / offset)) - 1)))

/** Numbers in [0, 1) that are the same in every run (mulberry32). */
function sequence(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b_79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}
