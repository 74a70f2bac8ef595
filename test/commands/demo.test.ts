import { describe, expect, it } from 'vitest'
import { eventsOfHour, FINDINGS, HISTORY_HOURS, HOUR_MS, readDemoId, type DemoEvent } from '../../src/commands/demo/traffic.ts'
import { checkEvent } from '../../src/ingest/check-event.ts'

const ANCHOR = Date.parse('2026-03-01T12:00:00.000Z') / HOUR_MS

/** The events of [from, to), hours from the anchor. */
const eventsOf = (from: number, to: number): DemoEvent[] =>
  Array.from({ length: to - from }, (_, at) => eventsOfHour(ANCHOR, ANCHOR + from + at)).flat()

const month = eventsOf(-HISTORY_HOURS, 0)
const at = (event: DemoEvent) => Date.parse(event.timestamp) / HOUR_MS - ANCHOR
const count = (events: DemoEvent[], type: DemoEvent['eventType']) => events.filter(({ eventType }) => eventType === type).length
const onDay = (day: string) => month.filter(({ timestamp }) => timestamp.startsWith(day)).length
const completionRate = (events: DemoEvent[]) => count(events, 'tasksCompleted') / count(events, 'tasksInitiated')

describe('the made-up traffic', () => {
  it('is the same whenever it is made, in whatever order and pieces', () => {
    const again = [5, -3, -2, -300, -3].map((hour) => eventsOfHour(ANCHOR, ANCHOR + hour))
    expect(again[1]).toEqual(again[4])
    expect(again[1]).toEqual(month.filter((event) => at(event) >= -3 && at(event) < -2))
    expect(again[3]).toEqual(month.filter((event) => at(event) >= -300 && at(event) < -299))
  })

  it('is a month of a fleet: acceptable events with ids of their own, in order, each in its hour', () => {
    expect(month.length).toBeGreaterThan(150_000)
    expect(month.length).toBeLessThan(320_000)
    expect(new Set(month.map(({ id }) => id)).size).toBe(month.length)
    expect(new Set(month.map((event) => event.assistant)).size).toBe(12)
    expect(new Set(month.map(({ user }) => user)).size).toBeGreaterThan(2_300)
    expect(month.every((event, i) => i === 0 || (month[i - 1] as DemoEvent).timestamp <= event.timestamp)).toBe(true)
    expect(month.every((event) => at(event) >= -HISTORY_HOURS && at(event) < 0)).toBe(true)
    const some = month.filter((_, i) => i % 10 === 0)
    expect(some.filter((event) => typeof checkEvent(event, ANCHOR * HOUR_MS, () => '') === 'string')).toEqual([])
  })

  it('goes on after the anchor, and its ids tell where it is', () => {
    const later = eventsOfHour(ANCHOR, ANCHOR + 100)
    expect(later.length).toBeGreaterThan(50)
    for (const { id } of later) {
      const { anchor, hour } = readDemoId(id) ?? {}
      expect(anchor).toBe(ANCHOR)
      expect([ANCHOR + 99, ANCHOR + 100]).toContain(hour)
    }
    expect(readDemoId('demo-1-2-x')).toBeUndefined()
  })

  it('has quiet nights and weekends', () => {
    const perHour = Array.from({ length: 24 }, () => 0)
    for (const { timestamp } of month) perHour[Number(timestamp.slice(11, 13))]!++
    expect(Math.max(...perHour) / Math.min(...perHour)).toBeGreaterThan(2)
    // 2026-02-21 is a Saturday, 2026-02-25 a Wednesday.
    expect(onDay('2026-02-21')).toBeLessThan(0.75 * onDay('2026-02-25'))
  })

  it('hides an assistant that went idle, a new one, a regression and a retry loop', () => {
    const { idle, newcomer, regression, retryLoop } = FINDINGS
    const of = (name: string, from: number, to: number) =>
      month.filter((event) => event.assistant === name && at(event) >= from && at(event) < to)

    expect(of(idle.assistant, idle.from - 24, idle.from).length).toBeGreaterThan(100)
    // Conversations may last an hour.
    expect(of(idle.assistant, idle.from + 1, 0)).toEqual([])

    expect(of(newcomer.assistant, -HISTORY_HOURS, newcomer.from)).toEqual([])
    expect(of(newcomer.assistant, -24, 0).length).toBeGreaterThan(100)

    expect(completionRate(of(regression.assistant, -HISTORY_HOURS, regression.from))).toBeGreaterThan(0.94)
    expect(completionRate(of(regression.assistant, regression.from + 1, 0))).toBeLessThan(0.7)

    const loop = month.filter(({ user }) => user === retryLoop.user)
    expect(loop).toHaveLength(retryLoop.hours * retryLoop.messagesPerHour)
    expect(loop.every((event) => event.eventType === 'incomingMessages' && event.assistant === retryLoop.assistant)).toBe(true)
    expect(loop.every((event) => at(event) >= retryLoop.from && at(event) < retryLoop.from + retryLoop.hours)).toBe(true)
  })
})
