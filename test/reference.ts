/**
 * What every endpoint has to answer, recomputed from a list of events in the most straightforward way: one pass over
 * the events for each figure, `Intl` for the calendar, nothing of the service's own code.
 */

export const EVENT_TYPES = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted'] as const
export type EventType = (typeof EVENT_TYPES)[number]

/** An event as it is sent. */
export interface SentEvent {
  id: string
  eventType: EventType
  timestamp: string
  assistant: string
  user: string
  cost?: number
  inputTokens?: number
  outputTokens?: number
  model?: string
  traceId?: string
  metadata?: object
}

interface Stored extends SentEvent {
  at: number
  /** 1e-9 USD: whole numbers add up exactly, in any order. */
  nanos: number
}

/** Parameters as they are sent, but for the lists. */
export interface Asked {
  startDate?: string
  endDate?: string
  period?: 'day' | 'week' | 'month'
  window?: number
  timezone?: string
  assistant?: readonly string[]
  user?: readonly string[]
  eventType?: EventType
  limit?: number
  skip?: number
}

type Period = 'day' | 'week' | 'month'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

const iso = (at: number) => new Date(at).toISOString()
const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))

export class Reference {
  readonly #events: Stored[] = []
  readonly #filtered = new Map<string, Stored[]>()
  /** Where the service's clock stands. */
  now: number

  constructor(events: readonly SentEvent[], now: number | string) {
    this.now = typeof now === 'number' ? now : Date.parse(now)
    this.add(events)
  }

  add(events: readonly SentEvent[]) {
    for (const event of events) {
      this.#events.push({ ...event, at: Date.parse(event.timestamp), nanos: Math.round((event.cost ?? 0) * 1e9) })
    }
    this.#events.sort((a, b) => a.at - b.at || byBytes(a.id, b.id))
    this.#filtered.clear()
  }

  overview(asked: Asked) {
    const { period = 'week', timezone = 'UTC' } = asked
    const events = this.#of(asked)
    const moment = asked.endDate === undefined ? this.now : instantOf(asked.endDate, timezone)
    const lastDay = dayOf(moment, timezone)
    const to = startOfDay(lastDay, timezone)
    const from = startOfDay(addDays(lastDay, -{ day: 1, week: 7, month: 30 }[period]), timezone)
    const inside = within(events, from, to)
    const { incomingMessages, outgoingMessages, tasksInitiated, tasksCompleted, total, ...rest } = figures(inside)
    const recent = within(events, this.now - 5 * MINUTE, this.now)
    return {
      period,
      startDate: iso(from),
      endDate: iso(to),
      ...rest,
      events: { incomingMessages, outgoingMessages, tasksInitiated, tasksCompleted, total },
      resources: { assistants: new Set(inside.map((event) => event.assistant)).size, users: rest.activeUsers },
      realtime: {
        startDate: iso(this.now - 5 * MINUTE),
        endDate: iso(this.now),
        ...figures(recent),
        lastEventAt: recent.length === 0 ? null : lastOf(recent),
      },
      computedAt: iso(this.now),
    }
  }

  metrics(asked: Asked) {
    const { period = 'day' } = asked
    const events = this.#of(asked)
    return periods(period, ...rangeOf(asked), asked.timezone).map(({ key, from, to }) => ({
      period,
      periodKey: key,
      startDate: iso(from),
      endDate: iso(to),
      ...figures(within(events, from, to)),
    }))
  }

  rolling(asked: Asked) {
    const { window = 7, timezone = 'UTC' } = asked
    const events = this.#of(asked)
    const to = asked.endDate === undefined ? this.now : instantOf(asked.endDate, timezone)
    const from = to - window * DAY
    const before = from - window * DAY
    const [current, previous] = [figures(within(events, from, to)), figures(within(events, before, from))]
    return {
      window,
      startDate: iso(from),
      endDate: iso(to),
      ...current,
      previous: { startDate: iso(before), endDate: iso(from), ...previous },
      change: changeOf(current, previous),
      series: periods('day', from, to, timezone).map((day) => ({
        periodKey: day.key,
        startDate: iso(day.from),
        endDate: iso(day.to),
        ...figures(within(events, day.from, day.to)),
      })),
    }
  }

  /** Without `nextCursor`, which is opaque. */
  events(asked: Asked) {
    const { limit = 50, skip = 0, eventType } = asked
    const inside = within(this.#of(asked), ...rangeOf(asked)).filter((event) => !eventType || event.eventType === eventType)
    return {
      data: inside
        .toReversed()
        .slice(skip, skip + limit)
        .map(answered),
      pagination: { limit, skip, total: inside.length },
    }
  }

  assistants(asked: Asked) {
    const events = this.#of(asked)
    const [from, to] = rangeOf(asked)
    const inside = within(events, from, to)
    const earlier = within(events, from - (to - from), from)
    const names = [...new Set([...earlier, ...inside].map((event) => event.assistant))]
    const [now, before] = [groups(inside, 'assistant'), groups(earlier, 'assistant')]
    return names
      .map((assistant) => {
        const [mine, then] = [now.get(assistant) ?? [], before.get(assistant) ?? []]
        const [current, previous] = [figures(mine), figures(then)]
        return {
          assistant,
          ...current,
          share: inside.length === 0 ? 0 : mine.length / inside.length,
          idle: mine.length === 0,
          lastActiveAt: lastOf(mine.length > 0 ? mine : then),
          previous,
          change: changeOf(current, previous),
        }
      })
      .sort((a, b) => b.total - a.total || byBytes(a.assistant, b.assistant))
  }

  usersTop(asked: Asked) {
    const { limit = 10 } = asked
    return [...groups(within(this.#of(asked), ...rangeOf(asked)), 'user')]
      .sort(([a, mine], [b, theirs]) => theirs.length - mine.length || byBytes(a, b))
      .slice(0, limit)
      .map(([user, mine]) => {
        const { activeUsers: _, ...rest } = figures(mine)
        return {
          user,
          ...rest,
          assistants: new Set(mine.map((event) => event.assistant)).size,
          lastActiveAt: lastOf(mine),
        }
      })
  }

  snapshots(asked: Asked) {
    const { period = 'day' } = asked
    const events = this.#of(asked)
    return periods(period, ...rangeOf(asked), asked.timezone).map(({ key, from, to, end }) => ({
      period,
      periodKey: key,
      startDate: iso(from),
      endDate: iso(to),
      final: end <= this.now,
      ...figures(within(events, from, to)),
    }))
  }

  /** The events that the filters let through. */
  #of({ assistant, user }: Asked): Stored[] {
    if (!assistant && !user) return this.#events
    const key = JSON.stringify([assistant, user])
    const found =
      this.#filtered.get(key) ??
      this.#events.filter((event) => (!assistant || assistant.includes(event.assistant)) && (!user || user.includes(event.user)))
    this.#filtered.set(key, found)
    return found
  }
}

const rangeOf = ({ startDate = '', endDate = '', timezone }: Asked): [number, number] => [
  instantOf(startDate, timezone),
  instantOf(endDate, timezone),
]

/** The events of [from, to), of a list in the order of time. */
function within(events: readonly Stored[], from: number, to: number): Stored[] {
  const first = (at: number) => {
    let [low, high] = [0, events.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((events[middle] as Stored).at < at) low = middle + 1
      else high = middle
    }
    return low
  }
  return events.slice(first(from), first(to))
}

function groups(events: readonly Stored[], field: 'assistant' | 'user'): Map<string, Stored[]> {
  const found = new Map<string, Stored[]>()
  for (const event of events) {
    const group = found.get(event[field])
    if (group) group.push(event)
    else found.set(event[field], [event])
  }
  return found
}

const lastOf = (events: readonly Stored[]) => iso((events.at(-1) as Stored).at)

function figures(events: readonly Stored[]) {
  const counts = { incomingMessages: 0, outgoingMessages: 0, tasksInitiated: 0, tasksCompleted: 0 }
  const users = new Set<string>()
  let nanos = 0
  let inputTokens = 0
  let outputTokens = 0
  for (const event of events) {
    counts[event.eventType]++
    users.add(event.user)
    nanos += event.nanos
    inputTokens += event.inputTokens ?? 0
    outputTokens += event.outputTokens ?? 0
  }
  return {
    activeUsers: users.size,
    ...counts,
    total: events.length,
    completionRate: counts.tasksInitiated === 0 ? null : counts.tasksCompleted / counts.tasksInitiated,
    cost: nanos / 1e9,
    inputTokens,
    outputTokens,
  }
}

type Figures = ReturnType<typeof figures>

/** Null where there is nothing to compare with. */
const relative = (a: number | null, b: number | null) => (a === null || b === null || b === 0 ? null : (a - b) / b)

function changeOf(now: Figures, before: Figures) {
  return {
    activeUsers: relative(now.activeUsers, before.activeUsers),
    incomingMessages: relative(now.incomingMessages, before.incomingMessages),
    outgoingMessages: relative(now.outgoingMessages, before.outgoingMessages),
    tasksInitiated: relative(now.tasksInitiated, before.tasksInitiated),
    tasksCompleted: relative(now.tasksCompleted, before.tasksCompleted),
    total: relative(now.total, before.total),
    completionRate: relative(now.completionRate, before.completionRate),
    cost: relative(now.cost, before.cost),
    inputTokens: relative(now.inputTokens, before.inputTokens),
    outputTokens: relative(now.outputTokens, before.outputTokens),
  }
}

const answered = (event: Stored) => ({
  id: event.id,
  eventType: event.eventType,
  timestamp: iso(event.at),
  assistant: event.assistant,
  user: event.user,
  cost: event.cost ?? 0,
  inputTokens: event.inputTokens ?? 0,
  outputTokens: event.outputTokens ?? 0,
  model: event.model ?? null,
  traceId: event.traceId ?? null,
  metadata: event.metadata ?? null,
})

// ------------------------------------------------------------------------------------------------------ calendar
// A day is its name, 2026-02-22.

const formats = new Map<string, Intl.DateTimeFormat>()

/** What the clocks of a zone show, as if it were UTC. */
function wallOf(at: number, zone: string): number {
  let format = formats.get(zone)
  if (!format) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    })
    formats.set(zone, format)
  }
  const [month = 0, day, year = 0, hour, minute, second] = format.format(at).split(/\D+/).map(Number)
  return Date.UTC(year, month - 1, day, hour, minute, second) + (((at % 1_000) + 1_000) % 1_000)
}

/** ISO 8601; without a time the start of the day, without an offset the first instant with that wall time. */
export function instantOf(text: string, zone = 'UTC'): number {
  if (/^\d{4}-\d\d-\d\d$/.test(text)) return startOfDay(text, zone)
  if (/(Z|[+-]\d\d:\d\d)$/.test(text)) return Date.parse(text)
  const wall = Date.parse(`${text}Z`)
  const offsets = [-DAY, DAY].map((step) => wallOf(wall + step, zone) - (wall + step))
  const matches = offsets.map((offset) => wall - offset).filter((at) => wallOf(at, zone) === wall)
  return matches.length > 0 ? Math.min(...matches) : wall - (offsets[0] as number)
}

const addDays = (day: string, count: number) => iso(Date.parse(day) + count * DAY).slice(0, 10)

const starts = new Map<string, number>()

/** The first instant at which the clocks of the zone show this day, or a later one. */
function startOfDay(day: string, zone: string): number {
  const key = `${day} ${zone}`
  const known = starts.get(key)
  if (known !== undefined) return known
  const wall = Date.parse(day)
  const [before = 0, after] = [-DAY, DAY].map((step) => wallOf(wall + step, zone) - (wall + step))
  const at = before === after ? wall - before : searchedStart(wall, zone)
  starts.set(key, at)
  return at
}

/** On the days around a change of the clocks. */
function searchedStart(wall: number, zone: string): number {
  const reached = (at: number) => wallOf(at, zone) >= wall
  let at = wall - 15 * HOUR
  while (!reached(at)) at += HOUR
  // Clocks that are set back just after midnight show the day for a few minutes that hourly steps can miss.
  at -= 3 * HOUR
  while (!reached(at)) at += MINUTE
  at -= MINUTE
  while (!reached(at)) at += 500
  return at
}

/** The latest day that has begun. */
function dayOf(at: number, zone: string): string {
  const shown = iso(wallOf(at, zone)).slice(0, 10)
  const following = addDays(shown, 1)
  return startOfDay(following, zone) <= at ? following : shown
}

function firstDayOf(period: Period, day: string): string {
  if (period === 'day') return day
  if (period === 'month') return `${day.slice(0, 7)}-01`
  const weekday = (new Date(day).getUTCDay() + 6) % 7
  return addDays(day, -weekday)
}

function followingPeriod(period: Period, first: string): string {
  if (period === 'day') return addDays(first, 1)
  if (period === 'week') return addDays(first, 7)
  return firstDayOf('month', addDays(first, 31))
}

/** ISO 8601: the week that holds the year's first Thursday is its first. */
function keyOf(period: Period, first: string): string {
  if (period === 'day') return first
  if (period === 'month') return first.slice(0, 7)
  const year = addDays(first, 3).slice(0, 4)
  let monday = firstDayOf('week', `${year}-01-04`)
  let week = 1
  for (; monday < first; week++) monday = addDays(monday, 7)
  return `${year}-W${String(week).padStart(2, '0')}`
}

function periods(period: Period, from: number, to: number, zone = 'UTC') {
  const found: Array<{ key: string; from: number; to: number; end: number }> = []
  let first = firstDayOf(period, dayOf(from, zone))
  for (let start = startOfDay(first, zone); start < to;) {
    const next = followingPeriod(period, first)
    const end = startOfDay(next, zone)
    const part = { from: Math.max(start, from), to: Math.min(end, to) }
    if (part.from < part.to) found.push({ key: keyOf(period, first), ...part, end })
    first = next
    start = end
  }
  return found
}
