/**
 * GET /analytics/regressions: did something break? The last hours against the same weekday and hours of the weeks before,
 * for the fleet and for each assistant; src/analytics/regressions/baseline.ts says when a figure is out of line.
 */
import type { Range } from '../../domain/time-range.ts'
import { NOTHING } from '../../rollups/sums.ts'
import { HOUR, type Instant } from '../../time/instant.ts'
import { toIso } from '../../time/iso8601.ts'
import { endpoint } from '../endpoint.ts'
import { common, endDate, limit, wholeNumber } from '../parameters.ts'
import { entryIn, sumsByAssistant } from '../queries/sums-by-assistant.ts'
import { addSums, compareAll, directionOf, findingsOf, type Sums } from '../regressions/baseline.ts'
import { FLEET, type Found, inOrder, runsOf } from '../regressions/findings.ts'
import { comparedRanges, QUARTER, slotOf, spansFrom, spansOf, tail } from '../regressions/ranges.ts'
import { evidenceOf, summaryOf } from '../regressions/summary.ts'

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
