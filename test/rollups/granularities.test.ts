/** The cutter that every endpoint and every time zone rests on, with ranges nobody would think of. */
import { array, assert, constantFrom, integer, oneof, property, tuple } from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ACROSS_LEVELS,
  ASSISTANT_LEVELS,
  COARSE,
  CUTS,
  DAY,
  DAY_ACROSS,
  endOf,
  FLEET_LEVELS,
  QUARTER,
  SEALED,
  SPLIT_DAY,
  splitLevel,
  THREE_HOURS,
  USER_LEVELS,
} from '../../src/rollups/granularities.ts'
import { periodsBetween } from '../../src/time/periods.ts'
import type { Range } from '../../src/domain/time-range.ts'
import { lateLevels } from '../../src/rollups/state.ts'
import { cut, cutAll, type Parts } from '../../src/rollups/plan.ts'

const LEVELS = [QUARTER, THREE_HOURS, DAY, DAY_ACROSS, ...COARSE]
const DAY_MS = 86_400_000
const MAX_INSTANT = 4_102_444_800_000
const SETS = { fleet: FLEET_LEVELS, assistant: ASSISTANT_LEVELS, across: ACROSS_LEVELS, user: USER_LEVELS, none: [] }

/** Spans and raw ranges as one list of ranges in the order of time. */
function pieces({ spans, raw }: Parts): Range[] {
  const ofSpans = spans.map(([id, start]) => {
    const quarters = id - SPLIT_DAY.id
    if (quarters > 0) {
      const [midnight, noon] = [Math.floor(start / 86_400) * 86_400, Math.floor(start / 86_400) * 86_400 + quarters * 900]
      if (!CUTS.includes(quarters) || (start !== midnight && start !== noon))
        throw new Error(`no piece of ${id} starts at ${start}`)
      return { from: start * 1000, to: (start === midnight ? noon : midnight + 86_400) * 1000 }
    }
    const level = LEVELS.find((candidate) => candidate.id === id)
    if (!level) throw new Error(`there is no level ${id}`)
    if (start % level.seconds !== 0) throw new Error(`a span of ${level.seconds} s starts at ${start}`)
    return { from: start * 1000, to: (start + level.seconds) * 1000 }
  })
  return [...ofSpans, ...raw].sort((a, b) => a.from - b.from)
}

/** Every moment of the range in exactly one piece, and no other moment in any. */
function expectCover(parts: Parts, { from, to }: Range) {
  let at = from
  for (const piece of pieces(parts)) {
    // Not expect(): there are millions of pieces.
    if (piece.from !== at || piece.to <= piece.from) throw new Error(`${JSON.stringify(piece)} follows on ${at}`)
    at = piece.to
  }
  expect(at).toBe(Math.max(from, to))
}

const instant = oneof(
  integer({ min: 0, max: MAX_INSTANT }),
  // On and next to the starts of spans.
  tuple(constantFrom(...LEVELS), integer({ min: 0, max: 30_000 }), integer({ min: -1, max: 1 })).map(([level, count, off]) =>
    Math.min(Math.max(0, level.seconds * 1000 * count + off), MAX_INSTANT),
  ),
)
const length = oneof(
  integer({ min: 1, max: 1_000_000 }),
  integer({ min: 1, max: 200 * DAY_MS }),
  tuple(constantFrom(...LEVELS), integer({ min: 1, max: 40 })).map(([level, count]) => level.seconds * 1000 * count),
)
const range = tuple(instant, length).map(([from, ms]): Range => ({ from, to: from + ms }))
/** How far the levels are sealed: each a multiple of its span, none further than the one before. */
const sealed = tuple(integer({ min: 0, max: 48_000 }), array(integer({ min: 0, max: 20 }), { minLength: 4, maxLength: 4 })).map(
  ([days, lags]) => {
    let until = days * 86_400
    return SEALED.map(({ seconds }, at) => (until = Math.max(0, Math.floor(until / seconds) - (lags[at] ?? 0)) * seconds))
  },
)
const levels = constantFrom(...Object.values(SETS))

describe('cut', () => {
  test('every moment of a range is in exactly one part, and no other is in any', () => {
    assert(
      property(range, levels, sealed, (asked, usable, sealedUntil) => {
        expectCover(cut(asked, usable, usable.length > 0 ? sealedUntil : []), asked)
        expectCover(cut(asked, usable), asked)
      }),
      { numRuns: 2_000 },
    )
  })

  test('only levels that may be used, and no span of those that are sealed where its day or itself is not', () => {
    assert(
      property(range, levels, sealed, (asked, usable, sealedUntil) => {
        for (const [id, start] of cut(asked, usable, sealedUntil).spans) {
          const level = SEALED.findIndex((candidate) => candidate.id === Math.min(id, SPLIT_DAY.id))
          const seconds = SEALED[level]?.seconds ?? 1
          const isSealed = Math.floor(start / seconds) * seconds + seconds <= (sealedUntil[level] ?? Infinity)
          const mayBe =
            usable.some((candidate) => candidate.id === Math.min(id, SPLIT_DAY.id)) ||
            COARSE.some((candidate) => candidate.id === id)
          if (!isSealed || !mayBe) throw new Error(`a span of level ${id} from ${start} may not be used`)
        }
      }),
      { numRuns: 2_000 },
    )
  })

  test('a day that begins at a cut is two pieces, of any time zone there is', () => {
    const sealedUntil = SEALED.map(({ seconds }) => Math.floor(4e9 / seconds) * seconds)
    for (const timezone of Intl.supportedValuesOf('timeZone')) {
      const days = periodsBetween('day', Date.parse('2026-01-01'), Date.parse('2027-01-01'), timezone).slice(1, -1)
      for (const { from, to } of days) {
        const { spans, raw } = cut({ from, to }, FLEET_LEVELS, sealedUntil)
        expect(raw).toEqual([])
        expect(spans.length).toBeLessThanOrEqual(2)
      }
    }
  })

  test('a range that begins and ends anywhere is two pieces, its days, and three quarters of an hour or so at either end', () => {
    const sealedUntil = SEALED.map(({ seconds }) => Math.floor(4e9 / seconds) * seconds)
    assert(
      property(integer({ min: 1.6e12, max: 1.8e12 }), integer({ min: DAY_MS, max: 90 * DAY_MS }), (from, ms) => {
        const { spans } = cut({ from, to: from + ms }, FLEET_LEVELS, sealedUntil)
        expect(spans.filter(([id]) => id > SPLIT_DAY.id).length).toBeLessThanOrEqual(2)
        expect(spans.filter(([id]) => id < DAY.id).length).toBeLessThanOrEqual(2 * 4)
      }),
      { numRuns: 2_000 },
    )
  })

  test('the pieces of a level follow each other without end', () => {
    const level = splitLevel(73)
    const starts = [20_000 * 86_400]
    for (let at = 0; at < 5; at++) starts.push(endOf(level, starts.at(-1) as number))
    expect(starts.map((start) => start / 900 - 20_000 * 96)).toEqual([0, 73, 96, 169, 192, 265])
  })

  test('raw events are read for less than a span of the finest level at either end', () => {
    assert(
      property(
        range,
        constantFrom(FLEET_LEVELS, ASSISTANT_LEVELS, ACROSS_LEVELS, USER_LEVELS),
        sealed,
        (asked, usable, sealedUntil) => {
          const finest = (usable[0]?.seconds ?? 0) * 1000
          const { raw } = cut(asked, usable, sealedUntil)
          expect(raw.length).toBeLessThanOrEqual(2)
          for (const { from, to } of raw)
            expect(to - from).toBeLessThan(raw.length === 1 && asked.to - asked.from < 2 * finest ? 2 * finest : finest)
        },
      ),
      { numRuns: 1_000 },
    )
  })

  test('never more spans than a level needs: three of each at an end, and what is not sealed', () => {
    assert(
      property(range, (asked) => {
        const everything = SEALED.map(({ seconds }) => Math.floor(6e9 / seconds) * seconds)
        const { spans } = cut(asked, FLEET_LEVELS, everything)
        const count = (id: number) => spans.filter(([level]) => level === id).length
        expect(count(0)).toBeLessThanOrEqual(2 * 11)
        expect(count(1)).toBeLessThanOrEqual(2 * 7)
        for (const id of [2, 3, 4]) expect(count(id)).toBeLessThanOrEqual(2 * 3)
      }),
    )
  })

  test('any 90 whole days that are sealed are 16 spans at most', () => {
    const sealedUntil = SEALED.map(({ seconds }) => Math.floor(4e9 / seconds) * seconds)
    // The pattern of spans repeats every 64 days.
    const counts = Array.from({ length: 64 }, (_, day) => {
      const from = (20_000 + day) * DAY_MS
      const { spans, raw } = cut({ from, to: from + 90 * DAY_MS }, FLEET_LEVELS, sealedUntil)
      expect(raw).toEqual([])
      return spans.length
    })
    expect(Math.max(...counts)).toBeLessThanOrEqual(16)
  })

  test('a range from noon to noon of the same 90 days reads no raw events either', () => {
    const from = Date.parse('2026-01-01T12:15:00Z')
    expect(cut({ from, to: from + 90 * DAY_MS }, FLEET_LEVELS).raw).toEqual([])
  })

  test('an empty range has no parts', () => {
    expect(cut({ from: 1_000, to: 1_000 }, FLEET_LEVELS, [0, 0, 0, 0])).toEqual({ spans: [], raw: [] })
    expect(cut({ from: 1_000, to: 999 }, FLEET_LEVELS, [0, 0, 0, 0])).toEqual({ spans: [], raw: [] })
  })
})

describe('cutAll', () => {
  const adjacent = tuple(instant, array(length, { minLength: 1, maxLength: 12 })).map(([start, lengths]) => {
    let at = start
    return lengths.map((ms): Range => ({ from: at, to: (at += ms) }))
  })

  test('adjacent ranges together are covered once, whatever their ends', () => {
    assert(
      property(adjacent, levels, sealed, (ranges, usable, sealedUntil) => {
        const parts = cutAll(ranges, usable, sealedUntil)
        expectCover(parts, { from: ranges[0]?.from ?? 0, to: ranges.at(-1)?.to ?? 0 })
      }),
      { numRuns: 1_000 },
    )
  })

  test('no span reaches from one range into the next, whose figures it would mix', () => {
    assert(
      property(adjacent, levels, sealed, (ranges, usable, sealedUntil) => {
        const edges = ranges.map(({ from }) => from)
        const { spans } = cutAll(ranges, usable, sealedUntil)
        for (const piece of pieces({ spans, raw: [] })) {
          if (edges.some((edge) => piece.from < edge && edge < piece.to)) throw new Error(JSON.stringify(piece))
        }
      }),
      { numRuns: 1_000 },
    )
  })

  test('two windows that end at an odd moment read raw events at three places, not everywhere', () => {
    const now = Date.parse('2026-03-01T12:34:56.789Z')
    for (const [days, usable] of [
      [7, FLEET_LEVELS],
      [90, ACROSS_LEVELS],
    ] as const) {
      const [from, before] = [now - days * DAY_MS, now - 2 * days * DAY_MS]
      const { spans, raw } = cutAll(
        [
          { from: before, to: from },
          { from, to: now },
        ],
        usable,
        [],
      )
      expect(spans.length).toBeGreaterThan(days)
      expect(raw.length).toBe(3)
      expect(raw.reduce((sum, piece) => sum + piece.to - piece.from, 0)).toBeLessThan(3 * QUARTER.seconds * 1000)
    }
  })
})

test('an event is late for exactly the levels that are sealed over its moment', () => {
  assert(
    property(instant, sealed, (at, sealedUntil) => {
      const over = sealedUntil.map((until) => at < until * 1000)
      expect(lateLevels(at, sealedUntil)).toBe(over.filter(Boolean).length)
      // The views write a late event into the first so many levels.
      expect(over).toEqual(over.toSorted((a, b) => Number(b) - Number(a)))
    }),
  )
  const until = [32 * 86_400, 32 * 86_400, 0]
  expect([32 * DAY_MS - 1, 32 * DAY_MS].map((at) => lateLevels(at, until))).toEqual([2, 0])
})
