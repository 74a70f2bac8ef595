/** A log that leaves out what keeps happening. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { seldom, type Log } from '../src/log.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }))
afterEach(() => void vi.useRealTimers())

test('of lines with one message and one reason, one is written in a while, with the number of those left out', () => {
  const lines: unknown[][] = []
  const log: Log = (...line) => void lines.push(line)
  const sparing = seldom(log, 10_000)
  const shown = () => lines.splice(0).filter(([level]) => level !== 'debug')

  for (let n = 0; n < 100; n++) sparing('warn', 'request failed', { cause: 'the disk is full', requestId: n })
  expect(lines).toHaveLength(100)
  expect(shown()).toEqual([['warn', 'request failed', { cause: 'the disk is full', requestId: 0 }]])
  // Another reason, another message, another level.
  sparing('warn', 'request failed', { cause: 'out of reach' })
  sparing('warn', 'a list could not be made', { error: 'the disk is full' })
  sparing('error', 'request failed', { cause: 'the disk is full' })
  expect(shown()).toHaveLength(3)
  vi.advanceTimersByTime(9_999)
  sparing('warn', 'request failed', { cause: 'the disk is full' })
  expect(shown()).toEqual([])
  vi.advanceTimersByTime(1)
  sparing('warn', 'request failed', { cause: 'the disk is full', requestId: 7 })
  expect(shown()).toEqual([['warn', 'request failed', { cause: 'the disk is full', requestId: 7, alike: 100 }]])
  vi.advanceTimersByTime(10_000)
  sparing('warn', 'request failed', { cause: 'the disk is full' })
  expect(shown()).toEqual([['warn', 'request failed', { cause: 'the disk is full' }]])
})
