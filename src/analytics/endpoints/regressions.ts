/**
 * GET /analytics/regressions: did something break? The last hours against the same weekday and hours of the weeks before,
 * for the fleet and for each assistant; src/analytics/regressions/baseline.ts says when a figure is out of line.
 */
import { MANY_ROWS, tenantSql, type Store } from '../../clickhouse/store.ts'
import { MIN_INSTANT, sameTime, toIso, type Instant } from '../../time/calendar.ts'
import {
  addSums,
  compareAll,
  directionOf,
  findingsOf,
  METRICS,
  runOf,
  type Comparison,
  type Run,
  type Span,
  type Sums,
} from '../regressions/baseline.ts'
import { endpoint } from '../endpoint.ts'
import { NOTHING, type Figures } from '../figures.ts'
import { ACROSS_LEVELS, type Range } from '../../rollups/granularities.ts'
import { common, endDate, limit, wholeNumber } from '../parameters.ts'
import {
  entryOf,
  filters,
  inRaw,
  inSpans,
  partParams,
  partsOf,
  RAW_ENTRY,
  RAW_SUMMED,
  rowsOf,
  SPAN_ENTRY,
  spanParams,
  SUMMED,
  SUMS,
  type Scope,
} from '../../rollups/plan.ts'
import { totalsOf } from '../../rollups/sums.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

/** Ranges end at a multiple of this, so that they are sums of pre-summed rows in every time zone. */
const QUARTER = 15 * MINUTE

export const regressions = endpoint({
  parameters: {
    window: wholeNumber(1, 168, 24, 'Length of the window that is judged, in hours.'),
    weeks: wholeNumber(3, 12, 6, 'How many weeks before it is compared with.'),
    minVolume: wholeNumber(1, 1_000_000, 20, 'Figures that rest on fewer events are not judged.'),
    limit: limit(100, 'How many findings at most.'),
    endDate,
    ...common,
  },

  async answer({ store, names, scope, now, parameters }) {
    const { window, weeks, minVolume, timezone, endDate: asked = Infinity } = parameters
    const to = Math.floor(Math.min(asked, now) / QUARTER) * QUARTER
    const ranges = comparedRanges(to, window * HOUR, weeks, timezone)
    const current = ranges.at(-1) as Range
    const lengths = spansOf(window)
    // The pieces of each range between the beginnings of the spans, oldest first.
    const pieces = ranges.map((range) => lengths.map((hours, at) => tail(range, hours, lengths[at + 1])))

    const rows = await sumsByAssistant(store, scope, 'regressions', pieces.flat())
    const figures = new Map(rows.map((row) => [`${row.assistant} ${row.entry}`, row]))
    const lastAt = new Map<number, Instant>()
    for (const row of rows) lastAt.set(row.assistant, Math.max(lastAt.get(row.assistant) ?? 0, row.lastAt))
    const assistants = [...lastAt.keys()]
    const byAssistant = assistants.map((number) => {
      const sums = pieces.map((list) => list.map((piece) => figures.get(`${number} ${entryIn(piece)}`) ?? NOTHING))
      return { number, sums, comparisons: compareAll(spansFrom(lengths, sums), minVolume) }
    })
    const fleet = pieces.map((list, range) =>
      list.map((_, at) => byAssistant.map(({ sums }) => sums[range]?.[at] as Sums).reduce(addSums, NOTHING)),
    )
    const comparisons = compareAll(spansFrom(lengths, fleet), minVolume)

    const found: Found[] = []
    // One assistant alone is the fleet: it is told of once.
    const fleetFindings = assistants.length === 1 ? [] : findingsOf(comparisons)
    for (const comparison of fleetFindings) found.push({ number: FLEET, comparison })
    // Where the whole fleet is silent, so is every assistant: that is one finding.
    if (!fleetFindings.some(({ metric }) => metric === 'idle')) {
      for (const one of byAssistant) {
        for (const comparison of findingsOf(one.comparisons)) found.push({ number: one.number, comparison })
      }
    }
    const told = [...new Set(found.map(({ number }) => number).filter((number) => number !== FLEET))]
    const nameOf = await names.names(scope.tenant, 'assistant', told, scope.onQuery)
    const nameIn = ({ number }: Found) => (number === FLEET ? null : (nameOf.get(number) ?? ''))
    const listed = found.sort((a, b) => inOrder(a, b, nameIn)).slice(0, parameters.limit)

    const slot = slotOf(window)
    const runs = await runsOf(store, scope, listed, ranges, slot, minVolume)
    const findings = listed.map((one, at) => {
      const { comparison } = one
      const run = runs[at]
      const silentSince = one.number === FLEET ? Math.max(0, ...lastAt.values()) : (lastAt.get(one.number) ?? 0)
      const since = run ? Math.max(current.from, to - (run.slots - run.first) * slot) : silentSince
      const until = run ? to - (run.slots - run.end) * slot : to
      const assistant = nameIn(one)
      const { metric, severity, ...numbers } = comparison
      return {
        metric,
        scope: assistant === null ? 'fleet' : 'assistant',
        assistant,
        severity,
        direction: directionOf(comparison),
        ...numbers,
        since: toIso(since),
        until: toIso(until),
        run: { current: run?.current ?? 0, expected: run?.expected ?? comparison.median },
        summary: summaryOf(comparison, assistant, { since, until }, { from: current.from, to }),
        evidence: evidenceOf(metric, { since, until }, assistant === null ? parameters.assistant : [assistant], parameters.user),
      }
    })
    const canCompare = comparisons.length > 0 || byAssistant.some((one) => one.comparisons.length > 0)
    return {
      covers: { from: (ranges[0] as Range).from, to: asked <= now ? to : Infinity },
      data: {
        status: found.length > 0 ? 'regressed' : canCompare ? 'ok' : 'insufficient_data',
        window,
        weeks,
        startDate: toIso(current.from),
        endDate: toIso(to),
        baseline: ranges.slice(0, -1).map((range) => ({ startDate: toIso(range.from), endDate: toIso(range.to) })),
        assistants: byAssistant.length,
        total: found.length,
        findings,
        fleet: comparisons,
      },
    }
  },
})

/** Stands for the whole fleet where an assistant's number would be. */
const FLEET = 0

interface Found {
  readonly number: number
  readonly comparison: Comparison
}

/** The most severe first, then the one that is furthest off; ties go to the fleet, then by the bytes of names. */
function inOrder(a: Found, b: Found, nameIn: (found: Found) => string | null): number {
  const severe = ({ comparison }: Found) => (comparison.severity === 'critical' ? 0 : 1)
  return (
    severe(a) - severe(b) ||
    Math.abs(b.comparison.score) - Math.abs(a.comparison.score) ||
    Number(b.number === FLEET) - Number(a.number === FLEET) ||
    Buffer.compare(Buffer.from(nameIn(a) ?? ''), Buffer.from(nameIn(b) ?? '')) ||
    METRICS.indexOf(a.comparison.metric) - METRICS.indexOf(b.comparison.metric)
  )
}

/**
 * The range up to `to`, and before it, oldest first, one for each of the weeks before: each ends on the same weekday at
 * the same local time and is as long. Where a week is an hour short (clocks are put forward) and the range as long as a
 * week, the range begins where the one before it ends.
 */
export function comparedRanges(to: Instant, length: number, weeks: number, timezone: string): Range[] {
  const ends = Array.from({ length: weeks + 1 }, (_, at) => sameTime(to, 7 * (at - weeks), timezone))
  return ends.map((end, at) => ({ from: Math.max(end - length, ends[at - 1] ?? -Infinity), to: end }))
}

/** The window, its last half, quarter and eighth in whole quarters of an hour, none shorter than an hour; in hours. */
const spansOf = (window: number) =>
  [1, 2, 4, 8].map((part) => Math.floor((window * 4) / part) / 4).filter((hours) => hours >= 1)

/** From `hours` before the end of a range until `after` hours before it, as far as the range reaches. */
function tail({ from, to }: Range, hours: number, after = 0): Range {
  const start = Math.max(from, to - hours * HOUR)
  return { from: start, to: Math.max(start, to - after * HOUR) }
}

/** Puts the pieces of each range together to spans that end with it. */
const spansFrom = (lengths: readonly number[], pieces: ReadonlyArray<readonly Sums[]>): Span[] =>
  lengths.map((hours, at) => {
    const sums = pieces.map((list) => list.slice(at).reduce(addSums))
    return { hours, now: sums.at(-1) as Sums, weeks: sums.slice(0, -1) }
  })

/** How finely `since` is told: a quarter of an hour in a window of up to 6 hours, an hour up to 48, else 4 hours. */
const slotOf = (window: number) => (window <= 6 ? QUARTER : window <= 48 ? HOUR : 4 * HOUR)

/** A range in slots that end with it, oldest first; the first may be shorter. */
function slotsIn({ from, to }: Range, slot: number): Range[] {
  const count = Math.ceil((to - from) / slot)
  return Array.from({ length: count }, (_, at) => {
    const end = to - (count - 1 - at) * slot
    return { from: Math.max(from, end - slot), to: end }
  })
}

/** In which slots each finding deviates; undefined for what is idle, which deviates in all of them. */
async function runsOf(
  store: Store,
  scope: Scope,
  found: readonly Found[],
  ranges: readonly Range[],
  slot: number,
  minVolume: number,
) {
  const moving = found.filter(({ comparison }) => comparison.metric !== 'idle')
  const slots = ranges.map((range) => slotsIn(range, slot))
  const asked = unbroken(slots.flat())
  const numbers = [...new Set(moving.map(({ number }) => number))].filter((number) => number !== FLEET)
  const [fleetTotals, rows] = await Promise.all([
    moving.some(({ number }) => number === FLEET) ? totalsOf(store, scope, 'regressions_fleet', asked) : [],
    numbers.length > 0 ? sumsByAssistant(store, { ...scope, assistants: numbers }, 'regressions_slots', slots.flat()) : [],
  ])
  const sums = new Map<string, Sums>(rows.map((row) => [`${row.assistant} ${row.entry}`, row]))
  for (const [at, range] of asked.entries()) {
    sums.set(`${FLEET} ${entryIn(range)}`, fleetTotals[at] ?? NOTHING)
  }
  return found.map(({ number, comparison }): (Run & { slots: number }) | undefined => {
    if (comparison.metric === 'idle') return undefined
    const series = slots.map((list) => list.map((range) => sums.get(`${number} ${entryIn(range)}`) ?? NOTHING))
    const now = series.pop() as Sums[]
    // A range that is cut short (see comparedRanges) lacks its first slots.
    const weeks = series.map((week) => now.map((_, at) => week[week.length - now.length + at] ?? NOTHING))
    const within = Math.floor(now.length - (comparison.hours * HOUR) / slot)
    return { ...runOf(comparison, now, weeks, minVolume, Math.max(0, within)), slots: now.length }
  })
}

type Row = Omit<Figures, 'activeUsers'> & { entry: number; assistant: number }

/** The sums of every assistant over each of the ranges and over the gaps between them, which tell when it was last seen. */
async function sumsByAssistant(store: Store, scope: Scope, name: string, wanted: readonly Range[]): Promise<Row[]> {
  const ranges = unbroken(wanted).filter((range) => range.to > MIN_INSTANT)
  if (ranges.length === 0) return []
  const parts = partsOf(scope, 'activity', ranges, scope.users ? [] : ACROSS_LEVELS)
  const raw = `
    SELECT ${RAW_ENTRY}, assistant_no, ${RAW_SUMMED}
    FROM events
    WHERE tenant = {tenant:UUID} AND ${inRaw(parts, scope)}${filters(scope)}
    GROUP BY entry, assistant_no` as const
  const spans = `
    SELECT ${SPAN_ENTRY}, assistant_no, ${SUMMED}
    FROM activity
    WHERE tenant = {tenant:UUID} AND ${inSpans(parts, 'assistants')} AND assistant_no > 0${filters({ ...scope, users: null })}` as const
  const source = rowsOf(parts, spans, raw)
  return store.read<Row>(
    scope,
    name,
    tenantSql(`SELECT entry, assistant_no AS assistant, ${SUMS} FROM (${source}) GROUP BY entry, assistant_no`),
    { ...partParams(parts, scope), ...spanParams(parts, 'assistants'), entries: ranges.map(entryOf) },
    scope.users ? {} : MANY_ROWS,
  )
}

/** What a row calls the range; what ends before 1970 has no rows. */
const entryIn = (range: Range) => (range.to > MIN_INSTANT ? entryOf(range) : null)

/**
 * The ranges and the gaps between them. What has to be read from raw events is then one stretch instead of many; and a
 * gap costs little, as it is made of whole days.
 */
function unbroken(ranges: readonly Range[]): Range[] {
  return ranges.flatMap((range, at) => {
    const before = ranges[at - 1]?.to ?? range.from
    return before < range.from ? [{ from: before, to: range.from }, range] : [range]
  })
}

/** What a finding is about, as `events` tells event types apart; costs are on all of them. */
const EVIDENCE: Partial<Record<Comparison['metric'], string>> = {
  completionRate: 'tasksInitiated',
  incomingMessages: 'incomingMessages',
  outgoingMessages: 'outgoingMessages',
  tasksInitiated: 'tasksInitiated',
}

/** Of what is idle, its last event and the silence after it. */
function evidenceOf(
  metric: Comparison['metric'],
  { since, until }: { since: Instant; until: Instant },
  assistants: readonly string[] = [],
  users: readonly string[] = [],
): string {
  const query = new URLSearchParams({ startDate: toIso(since), endDate: toIso(until) })
  const eventType = EVIDENCE[metric]
  if (eventType) query.append('eventType', eventType)
  for (const assistant of assistants) query.append('assistant', assistant)
  for (const user of users) query.append('user', user)
  return `/analytics/events?${query}`
}

const LABELS: Record<Comparison['metric'], string> = {
  idle: 'Activity',
  completionRate: 'Completion rate',
  incomingMessages: 'Incoming messages',
  outgoingMessages: 'Outgoing messages',
  tasksInitiated: 'Tasks initiated',
  costPerMessage: 'Cost per message',
  cost: 'Cost',
}

function summaryOf(
  { metric, hours, current, median, change, score, weeks }: Comparison,
  assistant: string | null,
  { since, until }: { since: Instant; until: Instant },
  window: Range,
): string {
  const who = assistant === null ? 'the fleet' : `assistant ${JSON.stringify(assistant)}`
  const show = SHOWN[metric] ?? inWhole
  const usual = `usual are ${show(median)} (median of ${weeks} weeks)`
  if (metric === 'idle') return `${who[0]?.toUpperCase()}${who.slice(1)} has been silent since ${minute(since)}; in its last ${hours} h ${usual} events.`
  const start = `${minute(since)}${since === window.from ? ' or before' : ''}`
  const when = until === window.to ? `since ${start}` : `from ${start} until ${minute(until)}`
  const moved = change === null ? '' : `, ${change < 0 ? '−' : '+'}${Math.round(Math.abs(change) * 100)} %`
  return `${LABELS[metric]} of ${who} ${score < 0 ? 'fell' : 'rose'} ${when}: ${show(current)} in the last ${hours} h${moved}; ${usual}.`
}

const minute = (instant: Instant) => `${toIso(instant).slice(0, 16)}Z`
const inWhole = (value: number) => Math.round(value).toLocaleString('en-US')
const inDollars = (value: number) => `$${Number(value.toPrecision(4))}`
const SHOWN: Partial<Record<Comparison['metric'], (value: number) => string>> = {
  completionRate: (value) => `${(value * 100).toFixed(1)} %`,
  costPerMessage: inDollars,
  cost: inDollars,
}
