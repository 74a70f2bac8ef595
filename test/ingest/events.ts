/** Made-up events that a seed repeats, for tests of how they are stored. */
import { EVENT_TYPES, type SentEvent } from '../reference.ts'

/** mulberry32 */
export function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** Events at random moments of [from, to), with every optional field now and then. */
export function someEvents(options: { count: number; from: string; to: string; seed: number; name?: string }): SentEvent[] {
  const { count, seed, name = 'event' } = options
  const next = random(seed)
  const below = (end: number) => Math.floor(next() * end)
  const from = Date.parse(options.from)
  const length = Date.parse(options.to) - from
  return Array.from({ length: count }, (_, n) => ({
    id: `${name} ${n}`,
    eventType: EVENT_TYPES[below(4)] as SentEvent['eventType'],
    timestamp: new Date(from + below(length)).toISOString(),
    assistant: `assistant ${below(5)}`,
    user: `user ${below(40)}`,
    ...(n % 2 === 0 ? { cost: below(3_000_000) / 1e9, inputTokens: below(5_000) } : {}),
    ...(n % 3 === 0 ? { outputTokens: below(900), model: `model ${below(3)}` } : {}),
    ...(n % 5 === 0 ? { traceId: `trace ${n}`, metadata: { n, ä: [1, null] } } : {}),
  }))
}
