/**
 * What is asked, three times over: of the service, of the raw events in ClickHouse, and of the same events in other
 * databases. All three give the same figures, and `figures` is compared before anything is measured.
 */
import { TENANT_KEY, type Fleet } from './fleet.ts'

const DAY_MS = 86_400_000

/** Totals that tell whether two answers are the same one: events, and active users, added up over its rows. */
export interface Figures {
  readonly total: number
  readonly users: number
}

/** One way to ask a question: a GET, and the statements that answer it exactly from raw events. */
export interface Variant {
  readonly path: string
  /** ClickHouse; the first statement has the columns `total` and `users` that add up to the figures. */
  readonly raw: readonly string[]
  /** PostgreSQL and DuckDB, over the table of others.ts; the first statement as above. */
  readonly portable: readonly string[]
}

export interface Question {
  readonly name: string
  /** The same question about slightly different ranges, cursors or users, so that no two requests in a row are the same. */
  readonly variants: readonly Variant[]
  readonly figures: (answer: unknown) => Figures
  /** At most `times` the p50 of another question, or of SELECT 1; `group` is the line of the summary it counts in. */
  readonly targets: ReadonlyArray<{ readonly times: number; readonly of: string; readonly group: string }>
  /** Asked by a dashboard: part of the throughput mix. */
  readonly dashboard?: true
  /** Also asked of PostgreSQL and DuckDB. */
  readonly elsewhere?: true
}

export const FLOOR = 'SELECT 1'

/** Cursors into the range of the events question, by depth in percent of it; the service's own, found over HTTP. */
export type Cursors = ReadonlyMap<number, string>
export const DEPTHS = [10, 50, 90]

export interface Landmarks {
  readonly busiest: string
  readonly rareUsers: readonly string[]
  readonly cursors: Cursors
}

/** A range as the service reads it, and as instants. */
interface Range {
  readonly startDate: string
  readonly endDate: string
  readonly timezone?: string
  readonly from: number
  readonly to: number
}

/** 90 whole UTC days, the last of them today or one of the days before. */
export function wholeDays(fleet: Fleet, back: number): Range {
  const to = (Math.floor(fleet.end / DAY_MS) + 1 - back) * DAY_MS
  const from = to - 90 * DAY_MS
  return { startDate: dayOf(from), endDate: dayOf(to), from, to }
}

/** Three months with ends that fit no day, no quarter of an hour and no second, in a zone that is 5:45 ahead of UTC. */
function raggedDays(fleet: Fleet, back: number): Range {
  const today = Math.floor(fleet.end / DAY_MS) * DAY_MS
  const [first, last] = [today - (89 + back) * DAY_MS, today - back * DAY_MS]
  return {
    startDate: `${dayOf(first)}T03:07:41.123`,
    endDate: `${dayOf(last)}T05:22:10.456`,
    timezone: KATHMANDU,
    from: first + clock(3, 7, 41.123) - KATHMANDU_MS,
    to: last + clock(5, 22, 10.456) - KATHMANDU_MS,
  }
}

const KATHMANDU = 'Asia/Kathmandu'
const KATHMANDU_MS = clock(5, 45, 0)

/** The instant below which a share of the range's time lies; a cursor is made there. */
export const depthInstant = ({ from, to }: Range, percent: number): number => Math.floor(to - ((to - from) * percent) / 100)

const ofFloor = (times: number, group: string) => [{ times, of: FLOOR, group }]
const raggedTargets = (of: string) => [{ times: 2, of, group: 'ragged ends, Asia/Kathmandu' }]

export function questions(fleet: Fleet, { busiest, rareUsers, cursors }: Landmarks): Question[] {
  const backs = [0, 1, 2]
  const whole = backs.map((back) => wholeDays(fleet, back))
  const ragged = backs.map((back) => raggedDays(fleet, back))
  const today = Math.floor(fleet.end / DAY_MS) * DAY_MS
  const untilMidnight = backs.map((back) => today - back * DAY_MS)
  const untilNow = backs.map((back) => fleet.end - back * 3_600_000)
  const untilRagged = ragged.map(({ to }) => to)
  const months = untilMidnight.map((to) => ({ from: to - 30 * DAY_MS, to }))
  const fleetTargets = ofFloor(4, 'overview, rolling, snapshots, metrics by day')
  const busiestTargets = ofFloor(4, 'the same of the busiest assistant')

  return [
    {
      name: 'overview, 30 days',
      targets: fleetTargets,
      dashboard: true,
      elsewhere: true,
      figures: (answer) => ({ total: dataOf<Overview>(answer).events.total, users: dataOf<Overview>(answer).activeUsers }),
      variants: months.map((range) => overview(range, fleet.end)),
    },
    {
      name: 'rolling, window=90',
      targets: fleetTargets,
      dashboard: true,
      elsewhere: true,
      figures: rollingFigures,
      variants: untilNow.map((to) => rolling(to)),
    },
    {
      name: 'snapshots, 90 days',
      targets: fleetTargets,
      dashboard: true,
      figures: listFigures,
      variants: whole.map((range) => daily('snapshots', range)),
    },
    {
      name: 'metrics by day, 90 days',
      targets: fleetTargets,
      dashboard: true,
      elsewhere: true,
      figures: listFigures,
      variants: whole.map((range) => daily('metrics', range)),
    },
    {
      name: 'overview, busiest assistant',
      targets: busiestTargets,
      figures: (answer) => ({ total: dataOf<Overview>(answer).events.total, users: dataOf<Overview>(answer).activeUsers }),
      variants: months.map((range) => overview(range, fleet.end, busiest)),
    },
    {
      name: 'rolling, busiest assistant',
      targets: busiestTargets,
      figures: rollingFigures,
      variants: untilNow.map((to) => rolling(to, busiest)),
    },
    {
      name: 'snapshots, busiest assistant',
      targets: busiestTargets,
      figures: listFigures,
      variants: whole.map((range) => daily('snapshots', range, busiest)),
    },
    {
      name: 'metrics by day, busiest assistant',
      targets: busiestTargets,
      elsewhere: true,
      figures: listFigures,
      variants: whole.map((range) => daily('metrics', range, busiest)),
    },
    {
      name: 'assistants, 90 days',
      targets: ofFloor(15, 'assistants, 90 days'),
      dashboard: true,
      elsewhere: true,
      figures: assistantsFigures,
      variants: whole.map((range) => assistants(range)),
    },
    {
      name: 'users/top, 90 days',
      targets: ofFloor(15, 'users/top, 90 days'),
      dashboard: true,
      elsewhere: true,
      figures: topFigures,
      variants: whole.map((range) => usersTop(range)),
    },
    {
      name: 'events, first page',
      targets: ofFloor(4, 'events, first page'),
      dashboard: true,
      elsewhere: true,
      figures: pageFigures,
      variants: whole.map((range) => events(range, {})),
    },
    ...DEPTHS.map((percent): Question => {
      const range = whole[0] as Range
      return {
        name: `events, cursor at ${percent} %`,
        targets: [...ofFloor(4, 'events, any depth'), { times: 1.5, of: 'events, first page', group: 'events, any depth' }],
        ...(percent === 50 ? { elsewhere: true } : {}),
        figures: pageFigures,
        variants: [events(range, { cursor: cursors.get(percent) ?? '', before: depthInstant(range, percent) })],
      }
    }),
    {
      name: 'events of a rare user, 90 days',
      targets: ofFloor(6, 'events of a rare user'),
      elsewhere: true,
      figures: pageFigures,
      variants: rareUsers.map((user) => events(whole[0] as Range, { user })),
    },
    {
      name: 'metrics in total, whole days UTC',
      targets: [],
      figures: listFigures,
      variants: whole.map((range) => monthly(range)),
    },
    {
      name: 'metrics in total, ragged, Kathmandu',
      targets: raggedTargets('metrics in total, whole days UTC'),
      elsewhere: true,
      figures: listFigures,
      variants: ragged.map((range) => monthly(range)),
    },
    {
      name: 'rolling, whole days UTC',
      targets: [],
      figures: rollingFigures,
      variants: untilMidnight.map((to) => rolling(to)),
    },
    {
      name: 'rolling, ragged, Kathmandu',
      targets: raggedTargets('rolling, whole days UTC'),
      figures: rollingFigures,
      variants: untilRagged.map((to) => rolling(to, undefined, KATHMANDU)),
    },
    {
      name: 'assistants, ragged, Kathmandu',
      targets: raggedTargets('assistants, 90 days'),
      figures: assistantsFigures,
      variants: ragged.map((range) => assistants(range)),
    },
    {
      name: 'users/top, ragged, Kathmandu',
      targets: raggedTargets('users/top, 90 days'),
      elsewhere: true,
      figures: topFigures,
      variants: ragged.map((range) => usersTop(range)),
    },
    {
      name: 'metrics by day, ragged, Kathmandu',
      targets: raggedTargets('metrics by day, 90 days'),
      figures: listFigures,
      variants: ragged.map((range) => daily('metrics', range)),
    },
  ]
}

// The questions. In ClickHouse names stay strings, as in a plain log of events; in the other databases the dense numbers
// of users and assistants are there to group by, which is faster for them.

function overview({ from, to }: Span, now: number, assistant?: string): Variant {
  const span = inSpan({ from, to }, assistant)
  const recent = inSpan({ from: now - 300_000, to: now }, assistant)
  return {
    path: path('overview', { period: 'month', endDate: dayOf(to), assistant }),
    raw: [
      `SELECT ${SUMS}, uniqExact(user) AS users, uniqExact(assistant) AS assistants FROM events WHERE ${span.raw}`,
      `SELECT ${SUMS}, uniqExact(user) AS users, max(timestamp) AS last FROM events WHERE ${recent.raw}`,
    ],
    portable: [
      `SELECT ${PORTABLE_SUMS}, count(DISTINCT assistant_no) AS assistants FROM events WHERE ${span.portable}`,
      `SELECT ${PORTABLE_SUMS}, max(ts) AS last FROM events WHERE ${recent.portable}`,
    ],
  }
}

function rolling(to: number, assistant?: string, timezone?: string): Variant {
  const from = to - 90 * DAY_MS
  const both = inSpan({ from: from - 90 * DAY_MS, to }, assistant)
  const span = inSpan({ from, to }, assistant)
  const [raw, portable] = dayColumns(timezone)
  return {
    path: path('rolling', { window: '90', endDate: new Date(to).toISOString(), assistant, timezone }),
    raw: [
      `SELECT ${SUMS}, uniqExact(user) AS users FROM events WHERE ${both.raw} GROUP BY timestamp >= ${ch(from)}`,
      `SELECT ${raw} AS entry, ${SUMS}, uniqExact(user) AS users FROM events WHERE ${span.raw} GROUP BY entry ORDER BY entry`,
    ],
    portable: [grouped(`ts >= ${literal(from)}`, both.portable), grouped(portable, span.portable)],
  }
}

function daily(endpoint: 'metrics' | 'snapshots', range: Range, assistant?: string): Variant {
  const { startDate, endDate, timezone } = range
  const span = inSpan(range, assistant)
  const [raw, portable] = dayColumns(timezone)
  return {
    path: path(endpoint, { period: 'day', startDate, endDate, timezone, assistant }),
    raw: [
      `SELECT ${raw} AS entry, ${SUMS}, uniqExact(user) AS users FROM events WHERE ${span.raw} GROUP BY entry ORDER BY entry`,
    ],
    portable: [grouped(portable, span.portable)],
  }
}

/** Few entries over the whole range. */
function monthly(range: Range): Variant {
  const { startDate, endDate, timezone } = range
  const span = inSpan(range)
  const zone = timezone ?? 'UTC'
  return {
    path: path('metrics', { period: 'month', startDate, endDate, timezone }),
    raw: [
      `SELECT toStartOfMonth(timestamp, '${zone}') AS entry, ${SUMS}, uniqExact(user) AS users
           FROM events WHERE ${span.raw} GROUP BY entry ORDER BY entry`,
    ],
    portable: [grouped(`date_trunc('month', ${local(timezone)})`, span.portable)],
  }
}

function assistants(range: Range): Variant {
  const { startDate, endDate, timezone, from, to } = range
  const both = inSpan({ from: from - (to - from), to })
  return {
    path: path('assistants', { startDate, endDate, timezone }),
    raw: [
      `SELECT assistant, timestamp >= ${ch(from)} AS entry, ${SUMS}, uniqExact(user) AS users, max(timestamp) AS last
           FROM events WHERE ${both.raw} GROUP BY assistant, entry`,
    ],
    portable: [
      `SELECT assistant_no, ts >= ${literal(from)} AS entry, ${PORTABLE_SUMS}, max(ts) AS last
       FROM events WHERE ${both.portable} GROUP BY 1, 2`,
    ],
  }
}

function usersTop(range: Range): Variant {
  const { startDate, endDate, timezone } = range
  const span = inSpan(range)
  return {
    path: path('users/top', { startDate, endDate, timezone }),
    raw: [
      `SELECT user, ${SUMS}, 0 AS users, uniqExact(assistant) AS assistants, max(timestamp) AS last
           FROM events WHERE ${span.raw} GROUP BY user ORDER BY total DESC, user LIMIT 10`,
    ],
    portable: [
      `WITH top AS (SELECT user_no FROM events WHERE ${span.portable} GROUP BY user_no ORDER BY count(*) DESC, user_no LIMIT 10)
       SELECT user_no, ${PORTABLE_COUNTS}, 0 AS users, count(DISTINCT assistant_no) AS assistants, max(ts) AS last
       FROM events WHERE ${span.portable} AND user_no IN (SELECT user_no FROM top)
       GROUP BY user_no ORDER BY total DESC`,
    ],
  }
}

function events(range: Range, { user, cursor, before }: { user?: string; cursor?: string; before?: number }): Variant {
  const { startDate, endDate } = range
  const all = inSpan(range)
  const upTo = inSpan({ ...range, to: before ?? range.to })
  const ofUser = user === undefined ? '' : ` AND user = '${user}'`
  const portableUser = user === undefined ? '' : ` AND user_name = '${user}'`
  return {
    path: path('events', { startDate, endDate, user, cursor }),
    raw: [
      `SELECT count() AS total, 0 AS users FROM events WHERE ${all.raw}${ofUser}`,
      `SELECT id, event_type, timestamp, assistant, user, cost_nanos / 1e9 AS cost, input_tokens, output_tokens, model, trace_id
       FROM events WHERE ${upTo.raw}${ofUser} ORDER BY timestamp DESC, id DESC LIMIT 51`,
    ],
    portable: [
      `SELECT count(*) AS total, 0 AS users FROM events WHERE ${all.portable}${portableUser}`,
      `SELECT id, event_type, ts, assistant, user_name, cost_nanos, input_tokens, output_tokens, model
       FROM events WHERE ${upTo.portable}${portableUser} ORDER BY ts DESC, id DESC LIMIT 51`,
    ],
  }
}

// SQL in common. The measured tenant has its key in ClickHouse, and the number 1 in the tables of the others.

interface Span {
  readonly from: number
  readonly to: number
}

const inSpan = ({ from, to }: Span, assistant?: string) => ({
  raw:
    `tenant = ${TENANT_KEY} AND timestamp >= ${ch(from)} AND timestamp < ${ch(to)}` +
    (assistant === undefined ? '' : ` AND assistant = '${assistant}'`),
  portable:
    `tenant = 1 AND ts >= ${literal(from)} AND ts < ${literal(to)}` +
    (assistant === undefined ? '' : ` AND assistant = '${assistant}'`),
})

const ch = (instant: number) => `toDateTime64('${new Date(instant).toISOString().slice(0, 23)}', 3, 'UTC')`
const literal = (instant: number) => `TIMESTAMP '${new Date(instant).toISOString().slice(0, 23).replace('T', ' ')}'`
const local = (timezone?: string) => (timezone === KATHMANDU ? `ts + INTERVAL '5 hours 45 minutes'` : 'ts')
const dayColumns = (timezone?: string) =>
  [`toDate(timestamp, '${timezone ?? 'UTC'}')`, `date_trunc('day', ${local(timezone)})`] as const

const SUMS = `
  count() AS total,
  countIf(event_type = 'incomingMessages') AS incoming,
  countIf(event_type = 'outgoingMessages') AS outgoing,
  countIf(event_type = 'tasksInitiated') AS initiated,
  countIf(event_type = 'tasksCompleted') AS completed,
  sum(cost_nanos) / 1e9 AS cost,
  sum(input_tokens) AS input,
  sum(output_tokens) AS output`

const PORTABLE_COUNTS = `
  count(*) AS total,
  count(*) FILTER (WHERE event_type = 1) AS incoming,
  count(*) FILTER (WHERE event_type = 2) AS outgoing,
  count(*) FILTER (WHERE event_type = 3) AS initiated,
  count(*) FILTER (WHERE event_type = 4) AS completed,
  sum(cost_nanos) AS cost,
  sum(input_tokens) AS input,
  sum(output_tokens) AS output`

/** In both, count(DISTINCT) is faster than grouping by user first and counting the groups. */
const PORTABLE_SUMS = `${PORTABLE_COUNTS}, count(DISTINCT user_no) AS users` as const

const grouped = (entry: string, where: string) =>
  `SELECT ${entry} AS entry, ${PORTABLE_SUMS} FROM events WHERE ${where} GROUP BY 1 ORDER BY 1`

function path(endpoint: string, parameters: Record<string, string | undefined>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) query.set(name, value)
  return `/analytics/${endpoint}?${query}`
}

// What answers look like, as far as figures need it.

interface Counted {
  total: number
  activeUsers: number
}
interface Overview {
  activeUsers: number
  events: { total: number }
}

const dataOf = <T>(answer: unknown) => (answer as { data: T }).data
const add = (rows: readonly Counted[]): Figures => ({
  total: rows.reduce((sum, { total }) => sum + total, 0),
  users: rows.reduce((sum, { activeUsers }) => sum + activeUsers, 0),
})
const listFigures = (answer: unknown) => add(dataOf<Counted[]>(answer))
const topFigures = (answer: unknown) => ({ ...add(dataOf<Counted[]>(answer)), users: 0 })
const assistantsFigures = (answer: unknown) => {
  const rows = dataOf<Array<Counted & { previous: Counted }>>(answer)
  return add([...rows, ...rows.map(({ previous }) => previous)])
}
const rollingFigures = (answer: unknown) => {
  const now = dataOf<Counted & { previous: Counted }>(answer)
  return add([now, now.previous])
}
const pageFigures = (answer: unknown) => ({ total: (answer as { pagination: { total: number } }).pagination.total, users: 0 })

const dayOf = (instant: number) => new Date(instant).toISOString().slice(0, 10)

function clock(hours: number, minutes: number, secs: number): number {
  return Math.round(((hours * 60 + minutes) * 60 + secs) * 1000)
}
