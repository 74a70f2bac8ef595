/** How a comparison of days is cut into stretches, each of which holds the writer lease. */
import { describe, expect, test } from 'vitest'
import { stretchesOf } from '../../src/maintenance/reconcile.ts'

describe('stretches', () => {
  const DAY = 86_400
  const days = (...rows: Array<[day: number, rows: number]>) => rows.map(([day, n]) => ({ day: day * DAY, rows: n }))
  const cut = (occupied: ReturnType<typeof days>, until = 100) =>
    stretchesOf(occupied, 0, until * DAY, 16 * DAY).map((stretch) => [stretch.from / DAY, stretch.until / DAY])

  test('hold 16 days where there are many rows, and more where there are few', () => {
    expect(cut(days([0, 90_000], [15, 90_000], [16, 90_000], [40, 90_000]))).toEqual([
      [0, 16],
      [16, 32],
      [32, 48],
    ])
    expect(cut(days([0, 10], [15, 10], [16, 10], [99, 10]))).toEqual([[0, 100]])
    expect(cut(days([0, 90_000], [20, 5_000], [33, 5_001]))).toEqual([
      [0, 32],
      [32, 48],
    ])
  })

  test('leave out what has no rows, and what is out of the range', () => {
    expect(cut([])).toEqual([])
    expect(cut(days([50, 200_000], [90, 200_000], [100, 1]))).toEqual([
      [48, 64],
      [80, 96],
    ])
    expect(cut(days([0, 1], [3_000, 1]), 4_000)).toEqual([
      [0, 16],
      [2_992, 3_008],
    ])
  })
})
