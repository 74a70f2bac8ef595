/** Findings: their order, and when each began and ended. */
import type { Store } from '../../clickhouse/store.ts'
import type { Range } from '../../domain/time-range.ts'
import type { Scope } from '../../rollups/scope.ts'
import { HOUR, MIN_INSTANT } from '../../time/instant.ts'
import { type AssistantSums, sumsByAssistant } from '../queries/sums-by-assistant.ts'
import { NOTHING, totalsOf } from '../totals.ts'
import { type Comparison, METRICS, type Run, runOf, type Sums } from './baseline.ts'
import { entryIn, slotsIn, unbroken } from './ranges.ts'

/** Stands for the whole fleet where an assistant's number would be. */
export const FLEET = 0

export interface Found {
  readonly number: number
  readonly comparison: Comparison
}

/** The most severe first, then the one that is furthest off; ties go to the fleet, then by the bytes of names. */
export function inOrder(a: Found, b: Found, nameIn: (found: Found) => string | null): number {
  const severe = ({ comparison }: Found) => (comparison.severity === 'critical' ? 0 : 1)
  return (
    severe(a) - severe(b) ||
    Math.abs(b.comparison.score) - Math.abs(a.comparison.score) ||
    Number(b.number === FLEET) - Number(a.number === FLEET) ||
    Buffer.compare(Buffer.from(nameIn(a) ?? ''), Buffer.from(nameIn(b) ?? '')) ||
    METRICS.indexOf(a.comparison.metric) - METRICS.indexOf(b.comparison.metric)
  )
}

/** The sums of every assistant over each of the ranges and over the gaps between them, which tell when it was last seen. */
export async function assistantSums(
  store: Store,
  scope: Scope,
  name: string,
  wanted: readonly Range[],
): Promise<AssistantSums[]> {
  const ranges = unbroken(wanted).filter((range) => range.to > MIN_INSTANT)
  return ranges.length === 0 ? [] : store.read(scope, sumsByAssistant(scope, name, ranges))
}

/** In which slots each finding deviates; undefined for what is idle, which deviates in all of them. */
export async function runsOf(
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
    numbers.length > 0 ? assistantSums(store, { ...scope, assistants: numbers }, 'regressions_slots', slots.flat()) : [],
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
