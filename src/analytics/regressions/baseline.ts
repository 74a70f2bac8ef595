/**
 * The statistics of GET /analytics/regressions: is a figure out of line with the same hours of the weeks before, and
 * since when? Pure, and the same for the same numbers.
 *
 * Every figure is looked at on a scale on which the noise of chance does not depend on the figure: counts as
 * 2·√(x + 3/8) and rates as 2·asin √p (both after Anscombe, 1948), costs as ln x. There
 *
 *     score = (now − median of the n weeks) / (sigma · √(1 + π/2n))
 *     sigma² = max((c · 1.4826 · MAD of the weeks)², chance) + floor²
 *
 * 1.4826 makes the median absolute deviation a standard deviation where noise is normal, and c corrects it for few weeks
 * (Croux and Rousseeuw, 1992); √(1 + π/2n) is what the median of n weeks is itself uncertain by. `chance` is the noise of
 * so few events, `floor` what ordinary days differ by however quiet the last weeks were.
 *
 * What broke a few hours ago is a small part of a day, so the last half, quarter and eighth of the window are looked at
 * as well, each beside the same hours of the weeks; a finding is told over whichever shows it best.
 */

/** Of one range. */
export interface Sums {
  readonly incomingMessages: number
  readonly outgoingMessages: number
  readonly tasksInitiated: number
  readonly tasksCompleted: number
  /** USD */
  readonly cost: number
}

export type Direction = 'up' | 'down'

/** In the order of importance, which also settles ties. */
export const METRICS = [
  'idle',
  'completionRate',
  'incomingMessages',
  'outgoingMessages',
  'tasksInitiated',
  'costPerMessage',
  'cost',
] as const
export type Metric = (typeof METRICS)[number]

/** From here on |score| is a finding, and a critical one. */
export const WARNING = 4
export const CRITICAL = 8
export type Severity = 'warning' | 'critical'

/** The median of two weeks is their mean: one bad week would be half of it. */
export const MIN_WEEKS = 3

/**
 * Events come in clumps, a conversation at a time. Chance is reckoned as if each of this size were one event: the
 * variance of a count is then so many times that of Poisson.
 */
const CLUMP = 5
/** Relative variance of the cost of one message: 4 is that of costs with a standard deviation of twice their mean. */
const COST_VARIANCE = 4

interface Measure {
  /** The ways in which it can go wrong. */
  readonly bad: readonly Direction[]
  /** As shown, null where it does not exist. */
  value(sums: Sums): number | null
  /** How many events it rests on: fewer than the minimum volume say nothing. */
  volume(sums: Sums): number
  /** Whether a range below the minimum volume is left out; a count is itself what is compared. */
  readonly needsVolume: boolean
  scaled(sums: Sums): number
  unscaled(scaled: number): number
  /** Variance, on the scale. */
  chance(sums: Sums): number
  /** Standard deviation, on the scale; `middle` is the median of the weeks. */
  floor(middle: number): number
  /** What adds up over parts of a range, and what it was to be there. */
  amount(sums: Sums): number
  expected(sums: Sums, weeks: readonly Sums[], usual: number): number
}

export const messagesOf = (sums: Sums) => sums.incomingMessages + sums.outgoingMessages
export const totalOf = (sums: Sums) => messagesOf(sums) + sums.tasksInitiated + sums.tasksCompleted

const counted = (count: (sums: Sums) => number, bad: readonly Direction[] = ['up', 'down']): Measure => ({
  bad,
  value: count,
  volume: count,
  needsVolume: false,
  scaled: (sums) => 2 * Math.sqrt(count(sums) + 3 / 8),
  unscaled: (scaled) => Math.max(0, (Math.max(0, scaled) / 2) ** 2 - 3 / 8),
  chance: () => CLUMP,
  // A tenth of the count: on this scale a relative change r is a step of r·√x.
  floor: (middle) => (0.1 * middle) / 2,
  amount: count,
  expected: (_, weeks) => median(weeks.map(count)),
})

const MEASURES: Record<Metric, Measure> = {
  idle: counted(totalOf, ['down']),
  completionRate: {
    bad: ['down'],
    value: (sums) => (sums.tasksInitiated === 0 ? null : sums.tasksCompleted / sums.tasksInitiated),
    volume: (sums) => sums.tasksInitiated,
    needsVolume: true,
    // What was begun before the range may be completed in it: a rate above 1 is as good as 1.
    scaled: ({ tasksInitiated: all, tasksCompleted: done }) =>
      2 * Math.asin(Math.sqrt((Math.min(done, all) + 3 / 8) / (all + 3 / 4))),
    unscaled: (scaled) => Math.sin(Math.min(Math.PI, Math.max(0, scaled)) / 2) ** 2,
    chance: (sums) => 1 / (sums.tasksInitiated + 1 / 2),
    // 3 points at 50 %, 2 at 90 %.
    floor: () => 0.06,
    amount: (sums) => sums.tasksCompleted,
    expected: (sums, _, usual) => usual * sums.tasksInitiated,
  },
  incomingMessages: counted((sums) => sums.incomingMessages),
  outgoingMessages: counted((sums) => sums.outgoingMessages),
  tasksInitiated: counted((sums) => sums.tasksInitiated),
  costPerMessage: {
    bad: ['up'],
    value: (sums) => (messagesOf(sums) === 0 ? null : sums.cost / messagesOf(sums)),
    volume: (sums) => (sums.cost > 0 ? messagesOf(sums) : 0),
    needsVolume: true,
    scaled: (sums) => Math.log(sums.cost / messagesOf(sums)),
    unscaled: Math.exp,
    chance: (sums) => COST_VARIANCE / messagesOf(sums),
    floor: () => 0.06,
    amount: (sums) => sums.cost,
    expected: (sums, _, usual) => usual * messagesOf(sums),
  },
  cost: {
    bad: ['up'],
    value: (sums) => sums.cost,
    volume: (sums) => (sums.cost > 0 ? totalOf(sums) : 0),
    needsVolume: true,
    scaled: (sums) => Math.log(sums.cost),
    unscaled: Math.exp,
    chance: (sums) => (COST_VARIANCE + CLUMP) / (messagesOf(sums) || totalOf(sums)),
    floor: () => 0.12,
    amount: (sums) => sums.cost,
    expected: (_, weeks) => median(weeks.map(({ cost }) => cost)),
  },
}

/** The last hours, and the same hours of the weeks before, oldest first. */
export interface Span {
  readonly hours: number
  readonly now: Sums
  readonly weeks: readonly Sums[]
}

/** One figure of a scope beside what it was in the weeks before. */
export interface Comparison {
  readonly metric: Metric
  /** How many of the last hours it is about. */
  readonly hours: number
  readonly current: number
  /** Of the weeks. */
  readonly median: number
  /** 1.4826 × the median absolute deviation of the weeks, in the unit of the figure. */
  readonly spread: number
  /** How many weeks that rests on. */
  readonly weeks: number
  /** (current − median) / median, null where the median is 0. */
  readonly change: number | null
  /** How far it is off, in standard deviations; negative where it fell. */
  readonly score: number
  /** What is usual: within WARNING standard deviations of the median. */
  readonly normal: { readonly low: number; readonly high: number }
  /** null where all is well. */
  readonly severity: Severity | null
}

/**
 * Compares all that can be compared, in the order of METRICS: a figure is left out where it rests on fewer than
 * `minVolume` events or MIN_WEEKS weeks. Each is that of the whole window, or of the span in which it is furthest off
 * where that is a finding.
 * @param spans the whole window first, then parts of it that end with it; all with the same weeks
 */
export function compareAll(spans: readonly Span[], minVolume: number): Comparison[] {
  const lived = livedWeeks(spans[0]?.weeks ?? [])
  const byMetric = new Map<Metric, Comparison>()
  for (const { hours, now, weeks } of spans) {
    for (const comparison of compareSpan(hours, now, weeks.slice(weeks.length - lived), minVolume)) {
      const best = byMetric.get(comparison.metric)
      const further = comparison.severity !== null && (!best?.severity || Math.abs(comparison.score) > Math.abs(best.score))
      if (hours === spans[0]?.hours || further) byMetric.set(comparison.metric, comparison)
    }
  }
  return METRICS.flatMap((metric) => byMetric.get(metric) ?? [])
}

/** How many of the weeks there have been since the first with an event: what did not exist yet was not silent. */
export function livedWeeks(weeks: readonly Sums[]): number {
  const first = weeks.findIndex((week) => totalOf(week) > 0)
  return first === -1 ? 0 : weeks.length - first
}

function compareSpan(hours: number, now: Sums, weeks: readonly Sums[], minVolume: number): Comparison[] {
  const silent = totalOf(now) === 0
  // Silent, it is idle, and nothing else is worth saying of it. One that also rests in other weeks is not.
  if (silent && weeks.filter((week) => totalOf(week) > 0).length < weeks.length - 1) return []
  const metrics = silent ? (['idle'] as const) : METRICS.filter((metric) => metric !== 'idle')
  return metrics.flatMap((metric) => compare(metric, hours, now, weeks, minVolume) ?? [])
}

function compare(metric: Metric, hours: number, now: Sums, lived: readonly Sums[], minVolume: number): Comparison | null {
  const measure = MEASURES[metric]
  const enough = (sums: Sums) => measure.volume(sums) >= minVolume
  const weeks = measure.needsVolume ? lived.filter(enough) : lived
  if (weeks.length < MIN_WEEKS || (measure.needsVolume && !enough(now))) return null
  const values = weeks.map((week) => measure.value(week) as number)
  const [current, middle] = [measure.value(now) as number, median(values)]
  if (!measure.needsVolume && Math.max(current, middle) < minVolume) return null

  const scaled = weeks.map(measure.scaled)
  const center = median(scaled)
  const deviation = deviationOf(scaled) * fewWeeks(weeks.length)
  const sigma =
    Math.sqrt(Math.max(deviation ** 2, measure.chance(now)) + measure.floor(center) ** 2) *
    Math.sqrt(1 + Math.PI / (2 * weeks.length))
  const score = (measure.scaled(now) - center) / sigma
  const wrong = measure.bad.includes(score < 0 ? 'down' : 'up')
  return {
    metric,
    hours,
    current,
    median: middle,
    spread: deviationOf(values),
    weeks: weeks.length,
    change: middle === 0 ? null : (current - middle) / middle,
    score,
    normal: { low: measure.unscaled(center - WARNING * sigma), high: measure.unscaled(center + WARNING * sigma) },
    severity: wrong && Math.abs(score) >= WARNING ? (Math.abs(score) >= CRITICAL ? 'critical' : 'warning') : null,
  }
}

export const directionOf = ({ score }: Comparison): Direction => (score < 0 ? 'down' : 'up')

/** What moves with what: more messages are more answers, more tasks and more cost. */
const FOLLOWS: Partial<Record<Metric, readonly Metric[]>> = {
  incomingMessages: ['idle'],
  outgoingMessages: ['idle', 'incomingMessages'],
  tasksInitiated: ['idle', 'incomingMessages'],
  cost: ['incomingMessages', 'outgoingMessages', 'costPerMessage'],
}

/** The findings of one scope, without those that follow from another that went the same way and is as severe. */
export function findingsOf(comparisons: readonly Comparison[]): Comparison[] {
  const found = comparisons.filter(({ severity }) => severity !== null)
  return found.filter((one) => {
    const causes = FOLLOWS[one.metric] ?? []
    return !found.some(
      (other) =>
        causes.includes(other.metric) &&
        directionOf(other) === directionOf(one) &&
        (other.severity === 'critical' || one.severity === 'warning'),
    )
  })
}

/** The part of the range in which a figure deviates: slots [first, end), and what the figure is and was to be there. */
export interface Run {
  readonly first: number
  readonly end: number
  readonly current: number | null
  readonly expected: number | null
}

/**
 * Finds since when: the run of adjacent slots that deviates most in the direction of the finding, each slot by itself
 * compared with the same slot of the weeks. A slot belongs to it as far as it deviates by at least half of what the run
 * as a whole does, which lets a slot that chance made look normal lie within.
 *
 * @param slots the window cut into equal slots, oldest first
 * @param weeks the same slots of each of the weeks
 * @param minVolume it is over only where that much has happened, or was to happen, since
 * @param within the run reaches into the slots from this one on: the hours that the finding is about
 */
export function runOf(
  comparison: Comparison,
  slots: readonly Sums[],
  weeks: ReadonlyArray<readonly Sums[]>,
  minVolume: number,
  within = 0,
): Run {
  const measure = MEASURES[comparison.metric]
  const sign = comparison.score < 0 ? -1 : 1
  const lived = weeks.slice(weeks.length - livedWeeks(weeks.map((week) => week.reduce(addSums))))
  const expected = slots.map((slot, at) =>
    measure.expected(
      slot,
      lived.map((week) => week[at] as Sums),
      comparison.median,
    ),
  )
  const excess = slots.map((slot, at) => sign * (measure.amount(slot) - (expected[at] as number)))
  let run = { first: 0, end: slots.length }
  // The run gets shorter and steeper; it settles after two or three rounds.
  for (let round = 0; round < 8; round++) {
    const usual = sum(expected, run)
    const tolerated = usual > 0 ? Math.max(0, sum(excess, run) / usual / 2) : 0
    const beyond = excess.map((value, at) => value - tolerated * (expected[at] as number))
    let next = greatestRun(beyond)
    if (next && next.end <= within) next = greatestRun(beyond.map((value, at) => (at < within ? 0 : value)))
    if (!next || (next.first === run.first && next.end === run.end)) break
    run = next
  }
  const volumeSince = (week: readonly Sums[]) => measure.volume(week.slice(run.end).reduce(addSums, NO_SUMS))
  if (Math.max(volumeSince(slots), median(lived.map(volumeSince))) < minVolume) run = { ...run, end: slots.length }
  const whole = slots.slice(run.first, run.end).reduce(addSums)
  const usual = sum(expected, run)
  // A rate was to be what it usually is; of a count, there was to be so much in these slots.
  const isRate = comparison.metric === 'completionRate' || comparison.metric === 'costPerMessage'
  return { ...run, current: measure.value(whole), expected: isRate ? comparison.median : usual }
}

/** The adjacent values with the greatest sum, the shortest of several; null where none is positive. */
function greatestRun(values: readonly number[]): { first: number; end: number } | null {
  let best: { first: number; end: number } | null = null
  let [highest, running, first] = [0, 0, 0]
  for (const [at, value] of values.entries()) {
    if (running <= 0) [running, first] = [0, at]
    running += value
    if (running > highest) [highest, best] = [running, { first, end: at + 1 }]
  }
  return best
}

const NO_SUMS: Sums = { incomingMessages: 0, outgoingMessages: 0, tasksInitiated: 0, tasksCompleted: 0, cost: 0 }

export const addSums = (a: Sums, b: Sums): Sums => ({
  incomingMessages: a.incomingMessages + b.incomingMessages,
  outgoingMessages: a.outgoingMessages + b.outgoingMessages,
  tasksInitiated: a.tasksInitiated + b.tasksInitiated,
  tasksCompleted: a.tasksCompleted + b.tasksCompleted,
  // Whole billionths, as they are stored: the sum does not depend on the order.
  cost: Math.round((a.cost + b.cost) * 1e9) / 1e9,
})

const sum = (values: readonly number[], { first, end }: { first: number; end: number }) =>
  values.slice(first, end).reduce((total, value) => total + value, 0)

/** Of at least one value. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const half = sorted.length >> 1
  const upper = sorted[half] as number
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] as number) + upper) / 2
}

/** The median absolute deviation, as a standard deviation. */
function deviationOf(values: readonly number[]): number {
  const middle = median(values)
  return 1.4826 * median(values.map((value) => Math.abs(value - middle)))
}

/** By number of values from 3 on: what the median absolute deviation of so few falls short by (Croux and Rousseeuw). */
const FEW = [1.495, 1.363, 1.206, 1.2, 1.14, 1.129, 1.107]
const fewWeeks = (n: number) => FEW[n - 3] ?? n / (n - 0.8)
