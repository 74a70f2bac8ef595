/**
 * Made-up traffic of a fleet of assistants. Pure: the events of an hour follow from the hour and from the anchor, the hour
 * in which the demo began, and from nothing else. So the same hour can be made again, after a crash or in pieces as it
 * passes, and every event has the same id and content as before.
 *
 * Four things are hidden in it, at fixed distances from the anchor: see FINDINGS.
 */
import type { EventType } from '../../domain/event.ts'

/** An hour is a number here: hours since 1970-01-01T00:00Z. */
export type Hour = number

export const HOUR_MS = 3_600_000

/** How much of a past the demo has when it begins. */
export const HISTORY_HOURS = 30 * 24

/** An event as a caller would send it. */
export interface DemoEvent {
  id: string
  eventType: EventType
  timestamp: string
  assistant: string
  user: string
  cost?: number
  inputTokens?: number
  outputTokens?: number
  model?: string
  traceId?: string
  metadata?: Record<string, string | number | boolean>
}

/** What there is to find, as hours from the anchor. */
export const FINDINGS = {
  idle: { assistant: 'returns-desk', from: -6 * 24 },
  regression: { assistant: 'billing-helper', from: -2 * 24, completion: 0.58, prompt: 'v15' },
  newcomer: { assistant: 'trip-planner', from: -7 * 24 },
  /** A caller that got no answer and sent its message again, thousands of times. */
  retryLoop: { assistant: 'order-tracker', user: 'checkout-webhook', from: -9 * 24, hours: 3, messagesPerHour: 1_500 },
} as const

/** USD per million tokens. */
const MODELS = {
  'aurora-large': { input: 3, output: 15 },
  'aurora-mini': { input: 0.15, output: 0.6 },
  'tern-1': { input: 0.8, output: 4 },
} as const

type Model = keyof typeof MODELS

interface Assistant {
  readonly name: string
  /** Share of the conversations, in no unit. */
  readonly weight: number
  /** Chance that a conversation leads to a task, and that the task is completed. */
  readonly tasks: number
  readonly completion: number
  /** Mean number of questions in a conversation. */
  readonly turns: number
  /** Mean tokens of a call. */
  readonly inputTokens: number
  readonly outputTokens: number
  readonly models: readonly Model[]
  readonly task: string
}

const assistant = (
  name: string,
  weight: number,
  [tasks, completion]: [number, number],
  turns: number,
  [inputTokens, outputTokens]: [number, number],
  models: readonly Model[],
  task: string,
): Assistant => ({ name, weight, tasks, completion, turns, inputTokens, outputTokens, models, task })

const ASSISTANTS: readonly Assistant[] = [
  assistant('support-bot', 30, [0.3, 0.93], 2.6, [1_400, 220], ['aurora-mini', 'aurora-mini', 'tern-1'], 'resolve-ticket'),
  assistant('billing-helper', 14, [0.55, 0.97], 2.1, [1_100, 180], ['tern-1'], 'adjust-invoice'),
  assistant('order-tracker', 13, [0.2, 0.99], 1.4, [600, 90], ['aurora-mini'], 'look-up-order'),
  assistant('docs-search', 10, [0.05, 0.9], 1.8, [5_200, 340], ['tern-1'], 'open-article'),
  assistant('onboarding-guide', 8, [0.6, 0.86], 3.2, [1_700, 310], ['aurora-mini', 'tern-1'], 'set-up-account'),
  assistant('sales-assistant', 7, [0.35, 0.71], 3.6, [2_100, 380], ['aurora-large', 'tern-1'], 'book-demo'),
  assistant('returns-desk', 6, [0.7, 0.91], 2, [900, 150], ['aurora-mini'], 'issue-refund'),
  assistant('scheduler', 5, [0.85, 0.96], 1.6, [800, 110], ['aurora-mini'], 'book-slot'),
  assistant('translator', 4, [0.9, 0.985], 1.2, [1_900, 1_700], ['tern-1'], 'translate-text'),
  assistant('code-reviewer', 3, [0.95, 0.83], 1.9, [9_500, 1_100], ['aurora-large'], 'review-change'),
  assistant('report-writer', 2, [0.9, 0.88], 1.5, [14_000, 2_400], ['aurora-large'], 'write-report'),
  assistant('trip-planner', 6, [0.5, 0.8], 3, [2_600, 520], ['tern-1', 'aurora-large'], 'plan-trip'),
]

/** Conversations in an hour when everybody is as active as can be. */
const RATE = 155
const GROWTH_OF_A_MONTH = 0.5

/** How active people are by the hour on their own clocks. */
const BY_HOUR = [
  0.12, 0.08, 0.06, 0.05, 0.05, 0.08, 0.18, 0.4, 0.75, 1.1, 1.3, 1.35, 1.15, 1.2, 1.35, 1.3, 1.15, 0.95, 0.75, 0.6, 0.5, 0.42,
  0.3, 0.2,
]
const MOST_ACTIVE = Math.max(...BY_HOUR)
const WEEKEND = 0.4

/** Where people live: hours east of Greenwich, and which part of them. */
const ZONES = [
  { offset: -8, share: 0.15 },
  { offset: -5, share: 0.3 },
  { offset: 0, share: 0.1 },
  { offset: 1, share: 0.25 },
  { offset: 5.5, share: 0.12 },
  { offset: 9, share: 0.08 },
]

const CHANNELS = ['web', 'web', 'web', 'app', 'app', 'email', 'slack']

const FIRST_NAMES =
  'ada amara amir ana anders aya bela bruno carla chen chidi dara diego elif emil esra fatou felix gita hana hugo ines ivan jana jonas jun kofi lara leo lina luca maya mei milo nadia nils noor olga omar pia ravi rosa sami sofia tariq tomas uma vera yuki zoe'.split(
    ' ',
  )
const LAST_NAMES =
  'abebe adler andersson aydin baker berg bianchi boateng castro cohen costa demir diallo dubois eriksen farah fischer garcia haddad horvat ito jansen jensen kaya khan kim kovac kumar larsen lopez mensah meyer moreau nakamura novak okafor olsen ortiz park patel petrov popescu rossi sato silva singh tanaka vargas weber yilmaz'.split(
    ' ',
  )

// ---------------------------------------------------------------------------------------------------------- chance

/** Numbers in [0, 1) that only depend on the seed (mulberry32). */
function chance(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

const pick = <T>(random: () => number, values: readonly T[]): T => values[Math.floor(random() * values.length)] as T

const exponential = (random: () => number, mean: number): number => -Math.log(1 - random()) * mean

/** How often something happens that happens `mean` times on average. */
function poisson(random: () => number, mean: number): number {
  let count = 0
  for (let at = exponential(random, 1); at < mean; at += exponential(random, 1)) count++
  return count
}

/** For each value where its share ends, of all shares together. */
function cumulative<T>(values: readonly T[], share: (value: T, at: number) => number): number[] {
  let sum = 0
  return values.map((value, at) => (sum += share(value, at)))
}

/** The position of one value, more often of those with larger shares. */
function draw(random: () => number, ends: readonly number[]): number {
  const at = random() * (ends.at(-1) as number)
  let [low, high] = [0, ends.length - 1]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((ends[middle] as number) > at) high = middle
    else low = middle + 1
  }
  return low
}

// ---------------------------------------------------------------------------------------------------------- people

interface User {
  readonly name: string
  readonly offset: number
  /** The assistant this one mostly turns to. */
  readonly favourite: Assistant
}

const SEED = 20_260_301

/** The busiest first. */
const USERS: readonly User[] = makeUsers()
/** A few talk all day, most now and then. */
const USER_SHARES = cumulative(USERS, (_, rank) => 1 / (rank + 12) ** 0.9)

function makeUsers(): User[] {
  const random = chance(SEED)
  const zones = cumulative(ZONES, ({ share }) => share)
  const assistants = cumulative(ASSISTANTS, ({ weight }) => weight)
  const names = FIRST_NAMES.flatMap((first) => LAST_NAMES.map((last) => `${first}.${last}`))
  for (let last = names.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    ;[names[last], names[other]] = [names[other] as string, names[last] as string]
  }
  return names.map((name) => ({
    name,
    offset: (ZONES[draw(random, zones)] as (typeof ZONES)[number]).offset,
    favourite: ASSISTANTS[draw(random, assistants)] as Assistant,
  }))
}

/** How active people of an offset are in an hour: 0 to MOST_ACTIVE. */
function activity(hour: Hour, offset: number): number {
  const local = Math.floor(hour + offset)
  // 1970-01-01 was a Thursday.
  const weekday = (Math.floor(local / 24) + 4) % 7
  return (BY_HOUR[local % 24] as number) * (weekday === 0 || weekday === 6 ? WEEKEND : 1)
}

// ------------------------------------------------------------------------------------------------------------ hours

/** The share of the conversations an assistant has in an hour, `age` hours after the anchor. */
function weightAt({ name, weight }: Assistant, age: number): number {
  if (name === FINDINGS.idle.assistant && age >= FINDINGS.idle.from) return 0
  if (name !== FINDINGS.newcomer.assistant) return weight
  return weight * Math.min(Math.max(age - FINDINGS.newcomer.from + 1, 0) / 48, 1)
}

/** The events of an hour, oldest first: of conversations that begin in it, and in the hour before. */
export function eventsOfHour(anchor: Hour, hour: Hour): DemoEvent[] {
  const from = new Date(hour * HOUR_MS).toISOString()
  const until = new Date((hour + 1) * HOUR_MS).toISOString()
  return [...eventsBegunIn(anchor, hour - 1), ...eventsBegunIn(anchor, hour)]
    .filter(({ timestamp }) => timestamp >= from && timestamp < until)
    .sort((a, b) => (a.timestamp < b.timestamp ? -1 : a.timestamp > b.timestamp ? 1 : 0))
}

/** Hours are mostly asked for one after the other, and each is needed twice. */
let kept: { anchor: Hour; hour: Hour; events: readonly DemoEvent[] } | undefined

function eventsBegunIn(anchor: Hour, hour: Hour): readonly DemoEvent[] {
  if (kept?.anchor === anchor && kept.hour === hour) return kept.events
  const age = hour - anchor
  const random = chance(Math.imul(hour, 0x9e37_79b1) ^ SEED)
  const shares = cumulative(ASSISTANTS, (each) => weightAt(each, age))
  const active = ZONES.reduce((sum, { offset, share }) => sum + share * activity(hour, offset), 0) / MOST_ACTIVE
  const growth = 1 + GROWTH_OF_A_MONTH * Math.min(Math.max(age / HISTORY_HOURS + 1, 0), 1)

  const events: DemoEvent[] = []
  const count = poisson(random, RATE * growth * active)
  for (let at = 0; at < count; at++) {
    let user: User
    do user = USERS[draw(random, USER_SHARES)] as User
    while (random() * MOST_ACTIVE > activity(hour, user.offset))
    const favours = weightAt(user.favourite, age) > 0 && random() < 0.7
    const other = ASSISTANTS[draw(random, shares)] as Assistant
    // Spread evenly, so that a quiet hour is not silent for minutes.
    const start = ((at + random()) / count) * HOUR_MS
    converse(random, favours ? user.favourite : other, user, age, hour * HOUR_MS + start, events)
  }
  const { retryLoop } = FINDINGS
  if (age >= retryLoop.from && age < retryLoop.from + retryLoop.hours) {
    for (let left = retryLoop.messagesPerHour; left > 0; left--) {
      events.push({
        id: '',
        eventType: 'incomingMessages',
        timestamp: new Date(hour * HOUR_MS + Math.floor(random() * HOUR_MS)).toISOString(),
        assistant: retryLoop.assistant,
        user: retryLoop.user,
        metadata: { channel: 'api', retry: true },
      })
    }
  }
  events.forEach((event, at) => (event.id = `demo-${anchor}-${hour}-${at}`))
  kept = { anchor, hour, events }
  return events
}

/** Adds a conversation that begins at an instant: questions, answers, and with luck a task that gets done. */
function converse(random: () => number, who: Assistant, user: User, age: number, start: number, events: DemoEvent[]): void {
  const { regression } = FINDINGS
  const regressed = who.name === regression.assistant && age >= regression.from
  const channel = pick(random, CHANNELS)
  const made: Array<{ at: number; event: Omit<DemoEvent, 'timestamp'> }> = []
  const add = (at: number, eventType: EventType, more: Partial<DemoEvent>) =>
    made.push({ at, event: { id: '', eventType, assistant: who.name, user: user.name, ...more } })

  let now = start
  let traceId = ''
  const turns = Math.min(1 + poisson(random, who.turns - 1), 12)
  for (let turn = 0; turn < turns; turn++) {
    add(now, 'incomingMessages', { metadata: { channel } })
    const latencyMs = Math.round(400 + exponential(random, 2_200))
    now += latencyMs
    // A call that fails leaves a question without its answer.
    if (random() < 0.975) {
      const model = pick(random, who.models)
      // What was said before is sent along each time.
      const inputTokens = Math.round(who.inputTokens * (0.5 + random()) * (1 + turn * 0.35))
      const outputTokens = Math.round(who.outputTokens * (0.4 + 1.2 * random()))
      traceId = traceOf(random)
      add(now, 'outgoingMessages', { ...priceOf(model, inputTokens, outputTokens), traceId, metadata: { channel, latencyMs } })
    }
    now += 10_000 + exponential(random, 80_000)
  }
  if (traceId && random() < who.tasks) {
    const metadata = { task: who.task, prompt: regressed ? regression.prompt : 'v14' }
    now -= 5_000
    add(now, 'tasksInitiated', { traceId, metadata })
    const completed = random() < (regressed ? regression.completion : who.completion)
    now += 2_000 + exponential(random, 45_000)
    if (completed) add(now, 'tasksCompleted', { traceId, metadata })
  }
  // No conversation reaches beyond the hour after the one it began in.
  const pace = Math.min(1, (HOUR_MS - 1) / (now - start))
  for (const { at, event } of made) {
    events.push({ ...event, timestamp: new Date(Math.floor(start + (at - start) * pace)).toISOString() })
  }
}

function priceOf(model: Model, inputTokens: number, outputTokens: number) {
  const { input, output } = MODELS[model]
  // Whole nano-dollars: the price of a token has no finer digits.
  const cost = Math.round((inputTokens * input + outputTokens * output) * 1_000) / 1e9
  return { model, inputTokens, outputTokens, cost }
}

function traceOf(random: () => number): string {
  const part = () =>
    Math.floor(random() * 0x1_0000_0000)
      .toString(16)
      .padStart(8, '0')
  return part() + part() + part() + part()
}

/** What an event's id tells: the anchor, and the hour in which its conversation began. */
export function readDemoId(id: string): { anchor: Hour; hour: Hour } | undefined {
  const match = /^demo-(\d+)-(\d+)-\d+$/.exec(id)
  return match ? { anchor: Number(match[1]), hour: Number(match[2]) } : undefined
}
