/**
 * GET /analytics/regressions: did something break? The last hours against the same weekday and hours of the weeks before,
 * for the fleet and for each assistant; src/analytics/regressions/baseline.ts says when a figure is out of line.
 */
import * as v from 'valibot'
import type { Range } from '../../domain/time-range.ts'
import { answerOf, count, instant, orNull, text, whatIs } from '../../domain/response-fields.ts'
import { HOUR, type Instant } from '../../time/instant.ts'
import { toIso } from '../../time/iso8601.ts'
import { endpoint } from '../endpoint.ts'
import { common, endDate, limit, wholeNumber } from '../parameters.ts'
import { rangeFields } from '../response-fields.ts'
import { addSums, compareAll, directionOf, findingsOf, METRICS, type Severity, type Sums } from '../regressions/baseline.ts'
import { assistantSums, FLEET, type Found, inOrder, runsOf } from '../regressions/findings.ts'
import { comparedRanges, entryIn, QUARTER, slotOf, spansFrom, spansOf, tail } from '../regressions/ranges.ts'
import { evidenceOf, summaryOf } from '../regressions/summary.ts'
import { NOTHING } from '../totals.ts'

const atLeastZero = (description: string) => v.pipe(v.number(), v.minValue(0), v.description(description))
const severityField = v.picklist(['warning', 'critical'] satisfies Severity[])

const compared = {
  metric: whatIs(
    METRICS,
    'The figure; `idle` counts all events of what fell silent, `costPerMessage` divides by messages both ways.',
  ),
  hours: atLeastZero(
    'How many of the last hours are compared: the window, or the half, quarter or eighth of it that shows it best.',
  ),
  current: atLeastZero('In those hours.'),
  median: atLeastZero('Of the same hours of the weeks before.'),
  spread: atLeastZero('1.4826 × the median absolute deviation of the weeks, in the unit of the figure.'),
  weeks: count('How many weeks that rests on: those with enough volume, since the first with an event.'),
  change: orNull(v.number(), '(current - median) / median; null where the median is 0.'),
  score: v.pipe(v.number(), v.description('How far it is off, in standard deviations of what is usual; negative where it fell.')),
  normal: v.pipe(
    v.strictObject({ low: atLeastZero('From here on.'), high: atLeastZero('Up to here.') }),
    v.description('Between which values it would be no finding.'),
  ),
}

export const Comparison = v.strictObject({
  ...compared,
  severity: orNull(severityField, 'null where all is well.'),
})

export const Finding = v.strictObject({
  ...compared,
  severity: v.pipe(severityField, v.description('From a score of 4 on a warning, from 8 on critical.')),
  scope: whatIs(['fleet', 'assistant'], 'Of whom.'),
  assistant: orNull(v.pipe(v.string(), v.minLength(1)), 'Its id; null for the fleet.'),
  direction: whatIs(['up', 'down'], 'Which way it went.'),
  since: instant(
    'When it began, by the slots of a quarter of an hour to four hours that the window has; of what is idle, its last event.',
  ),
  until: instant('When it ended; the end of the window where it goes on.'),
  run: v.pipe(
    v.strictObject({
      current: atLeastZero('What the figure was.'),
      expected: atLeastZero('What it was to be.'),
    }),
    v.description('The figure from `since` until `until`; of what is idle, over `hours`.'),
  ),
  summary: text('All of it in a sentence.'),
  evidence: text(
    'The events behind it: path and query of a GET of this service. Of what is idle, its last event and the silence after it.',
  ),
})

export const Regressions = v.strictObject({
  status: whatIs(
    ['ok', 'regressed', 'insufficient_data'],
    'regressed where there is a finding; insufficient_data where nothing could be compared for want of weeks or volume.',
  ),
  hours: count('As asked.'),
  weeks: count('As asked.'),
  ...rangeFields,
  baseline: v.pipe(
    v.array(v.strictObject(rangeFields)),
    v.description('What it was compared with, a range for each week, oldest first.'),
  ),
  assistants: count('Assistants with an event in any of the ranges or between them.'),
  total: count('Findings, those beyond `limit` too.'),
  findings: v.pipe(v.array(Finding), v.description('The critical ones first, then by how far they are off.')),
  fleet: v.pipe(
    v.array(Comparison),
    v.description('Every figure of the whole fleet that could be compared, whether out of line or not.'),
  ),
})

export const regressions = endpoint({
  path: '/analytics/regressions',
  operationId: 'regressions',
  summary: 'Did something break?',
  description:
    'Compares the last `hours`, and the last half, quarter and eighth of them, with the same weekday and hours of the weeks before: completion rate, messages, tasks, cost and what fell silent, of the fleet and of each assistant. A figure that is out of line is a finding, with what is usual, how severe it is, since when, and the query of `events` that shows it. Usual is the median of the weeks; how far they spread and how few events a figure rests on decide what is out of line.',
  agentHint:
    'Start here to find out whether something broke. The query of a finding’s `evidence` holds the arguments of the tool ' +
    '`events` that show it. `status` is ok, regressed or insufficient_data.',
  parameters: {
    hours: wholeNumber(1, 168, 24, 'Length of the window that is judged, in hours.'),
    weeks: wholeNumber(3, 12, 6, 'How many weeks before it is compared with.'),
    minVolume: wholeNumber(1, 1_000_000, 20, 'Figures that rest on fewer events are not judged.'),
    limit: limit(100, 'How many findings at most.'),
    endDate,
    ...common,
  },
  response: answerOf(Regressions),

  async handle({ store, names, scope, now, parameters }) {
    const { hours: window, weeks, minVolume, timezone, endDate: asked = Infinity } = parameters
    const to = Math.floor(Math.min(asked, now) / QUARTER) * QUARTER
    const ranges = comparedRanges(to, window * HOUR, weeks, timezone)
    const current = ranges.at(-1) as Range
    const lengths = spansOf(window)
    // The pieces of each range between the beginnings of the spans, oldest first.
    const pieces = ranges.map((range) => lengths.map((hours, at) => tail(range, hours, lengths[at + 1])))

    const rows = await assistantSums(store, scope, 'regressions', pieces.flat())
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
        hours: window,
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
