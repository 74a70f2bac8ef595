/** What is held for written on a disk that others fill. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { DiskFullError, DiskWatch, freeBytes, KEPT_FREE_BYTES } from '../../../src/clickhouse/embedded/disk-watch.ts'

const PLENTY = 2 * KEPT_FREE_BYTES
const LITTLE = KEPT_FREE_BYTES / 4

let free: number
let restarts: number
let watch: DiskWatch

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
  free = PLENTY
  restarts = 0
  watch = new DiskWatch({ free: () => free, restart: () => restarts++, log: () => {} })
})
afterEach(() => {
  watch.stop()
  vi.useRealTimers()
})

const doubtful = () => expect(() => watch.assertWritten()).toThrow(DiskFullError)

/** Long enough to be seen, by itself. */
const isFullForAMoment = () => {
  free = LITTLE
  vi.advanceTimersByTime(100)
  free = PLENTY
  vi.advanceTimersByTime(100)
}

describe('what is written', () => {
  test('counts while there is space, and where ClickHouse alone took what it may take', () => {
    watch.assertWritten()
    free = KEPT_FREE_BYTES * 0.75
    watch.assertWritten()
    vi.advanceTimersByTime(1_000)
    expect(restarts).toBe(0)
  })

  test('counts again after ClickHouse was started again, with space to write in', () => {
    free = LITTLE
    doubtful()
    vi.advanceTimersByTime(60_000)
    expect(restarts).toBe(0)
    free = KEPT_FREE_BYTES - 1
    vi.advanceTimersByTime(1_000)
    expect(restarts).toBe(0)
    free = PLENTY
    doubtful()
    expect(restarts).toBe(1)
    const started = watch.starting()
    vi.advanceTimersByTime(5_000)
    doubtful()
    expect(restarts).toBe(1)
    started()
    watch.assertWritten()
    vi.advanceTimersByTime(60_000)
    expect(restarts).toBe(1)
  })

  test('is doubtful where the disk was full for a moment that nobody wrote in', () => {
    free = 0
    vi.advanceTimersByTime(100)
    free = PLENTY
    doubtful()
    expect(restarts).toBe(1)
  })

  test('is doubtful where the disk became full while ClickHouse was starting', () => {
    isFullForAMoment()
    const started = watch.starting()
    isFullForAMoment()
    expect(restarts).toBe(1)
    started()
    doubtful()
    expect(restarts).toBe(2)
    watch.starting()()
    watch.assertWritten()
  })

  test('does not count on a full disk, whenever ClickHouse was started', () => {
    free = LITTLE
    vi.advanceTimersByTime(100)
    watch.starting()()
    doubtful()
    free = PLENTY
    doubtful()
    expect(restarts).toBe(1)
    watch.starting()()
    watch.assertWritten()
  })

  test('counts where the first start found a full disk, after another one', () => {
    const started = watch.starting()
    isFullForAMoment()
    vi.advanceTimersByTime(900)
    expect(restarts).toBe(0)
    started()
    doubtful()
    expect(restarts).toBe(1)
  })
})

test('a disk that stays full costs one start, in time for the parts that a merge was made of', () => {
  free = LITTLE
  vi.advanceTimersByTime(299_000)
  expect(restarts).toBe(0)
  vi.advanceTimersByTime(2_000)
  expect(restarts).toBe(1)
  watch.starting()()
  vi.advanceTimersByTime(3_600_000)
  expect(restarts).toBe(1)
  doubtful()
  free = PLENTY
  vi.advanceTimersByTime(100)
  expect(restarts).toBe(2)
})

test('after its end it asks for nothing', () => {
  watch.stop()
  free = LITTLE
  vi.advanceTimersByTime(1_000)
  free = PLENTY
  vi.advanceTimersByTime(1_000)
  expect(restarts).toBe(0)
})

test('free space is what the system says', () => {
  expect(freeBytes('.')).toBeGreaterThan(0)
  expect(freeBytes('.')).toBeLessThan(Infinity)
  expect(freeBytes('/no/such/directory')).toBe(Infinity)
})
