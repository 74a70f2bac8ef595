/** Weeks of made-up traffic for tests of statistics: noise of known kinds from a seed, hour by hour. */
import type { Sums } from '../../../src/analytics/regressions/baseline.ts'

/** mulberry32: small, and the same everywhere. */
export function dice(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

type Dice = ReturnType<typeof dice>

const gauss = (roll: Dice) => Math.sqrt(-2 * Math.log(1 - roll())) * Math.cos(2 * Math.PI * roll())

/** Above 60 the normal distribution is near enough, and does not take a step an event. */
function poisson(roll: Dice, mean: number): number {
  if (mean > 60) return Math.max(0, Math.round(mean + Math.sqrt(mean) * gauss(roll)))
  let [count, chance, left] = [0, Math.exp(-mean), roll()]
  while (left > chance && count < 1_000) {
    left -= chance
    count++
    chance *= mean / count
  }
  return count
}

function binomial(roll: Dice, n: number, p: number): number {
  const variance = n * p * (1 - p)
  if (variance > 60) return Math.min(n, Math.max(0, Math.round(n * p + Math.sqrt(variance) * gauss(roll))))
  let count = 0
  for (let i = 0; i < n; i++) if (roll() < p) count++
  return count
}

/** What a scope is like when nothing is wrong. */
export interface Habits {
  /** Messages from users in a day. */
  readonly messages: number
  readonly completion: number
  /** Mean number of messages that come together; 1 is Poisson. */
  readonly clump: number
  /** Standard deviation of how busy days are, relative. */
  readonly days: number
  /** Standard deviation of the cost of a message over its mean. */
  readonly costs: number
}

/** What is done to some hours. */
export interface Fault {
  readonly messages?: number
  readonly completion?: number
  readonly cost?: number
}

/** How busy the hours of a day are, their mean being 1: quiet at night. */
export const BY_HOUR = Array.from({ length: 24 }, (_, hour) => 1 - 0.85 * Math.cos(((hour - 2) / 24) * 2 * Math.PI))

const USD_A_MESSAGE = 0.01

/** The sums of each hour of a day. */
export function day(roll: Dice, habits: Habits, faultIn: (hour: number) => Fault = () => ({})): Sums[] {
  const busy = Math.exp(habits.days * gauss(roll))
  return BY_HOUR.map((share, hour) => {
    const fault = faultIn(hour)
    const mean = (habits.messages / 24) * share * busy * (fault.messages ?? 1)
    let incomingMessages = 0
    if (habits.clump === 1) incomingMessages = poisson(roll, mean)
    // Their sizes are geometric.
    else {
      for (let left = poisson(roll, mean / habits.clump); left > 0; left--) {
        incomingMessages += 1 + Math.floor(Math.log(1 - roll()) / Math.log(1 - 1 / habits.clump))
      }
    }
    const tasksInitiated = poisson(roll, 0.3 * mean)
    const spread = habits.costs / Math.sqrt(Math.max(1, incomingMessages))
    const each = USD_A_MESSAGE * (fault.cost ?? 1) * Math.exp(spread * gauss(roll) - spread ** 2 / 2)
    return {
      incomingMessages,
      outgoingMessages: binomial(roll, incomingMessages, 0.97),
      tasksInitiated,
      tasksCompleted: binomial(roll, tasksInitiated, fault.completion ?? habits.completion),
      cost: Math.round(incomingMessages * each * 1e9) / 1e9,
    }
  })
}
