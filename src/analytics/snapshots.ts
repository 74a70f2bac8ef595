/** GET /analytics/snapshots: one row a day, week or month, streamed in whatever format a BI tool reads. */
import { ApiError } from '../http/errors.ts'
import { periodsBetween, toIso } from '../time/calendar.ts'
import { endpoint, type Question } from './endpoint.ts'
import { choice, common, period, range } from './parameters.ts'
import { toMetrics, totalsOf, type Metrics } from './totals.ts'

const FORMATS = ['json', 'ndjson', 'csv'] as const
type Format = (typeof FORMATS)[number]

const MEDIA_TYPES: Record<Format, string> = {
  json: 'application/json',
  ndjson: 'application/x-ndjson',
  csv: 'text/csv',
}

/** So many rows are asked for and written at a time, whatever the length of the range. */
const ROWS_A_QUERY = 100

interface Snapshot extends Metrics {
  period: string
  periodKey: string
  startDate: string
  endDate: string
  /** The period is over: only a late event can still change the row. */
  final: boolean
}

const COLUMNS = [
  'period',
  'periodKey',
  'startDate',
  'endDate',
  'final',
  'activeUsers',
  'incomingMessages',
  'outgoingMessages',
  'tasksInitiated',
  'tasksCompleted',
  'total',
  'completionRate',
  'cost',
  'inputTokens',
  'outputTokens',
] as const satisfies ReadonlyArray<keyof Snapshot>

const parameters = { ...range, period: period('day'), format: choice(FORMATS), ...common }

export const snapshots = endpoint({
  parameters,

  async answer(question) {
    const { startDate, endDate } = question.parameters
    const { value } = await rowsOf(question).next()
    // `final` changes when the last period is over, which may be after the range is.
    const to = Math.max(endDate, entriesOf(question).at(-1)?.end ?? endDate)
    return { covers: { from: startDate, to }, data: value ?? [] }
  },

  export: {
    wanted: (asked) => formatOf(asked) !== 'json' || entriesOf(asked).length > ROWS_A_QUERY,

    async open(question) {
      const format = formatOf(question)
      const rows = rowsOf(question)
      // The first rows are read before the status line is sent, so that a failing store is a 503 and not a broken file.
      const first = await rows.next()
      return {
        headers: {
          'Content-Type': `${MEDIA_TYPES[format]}; charset=utf-8`,
          'Cache-Control': 'private, no-cache',
          ...(format === 'json' ? {} : { 'Content-Disposition': `attachment; filename="${filename(question, format)}"` }),
        },
        chunks: written(format, first, rows),
      }
    },
  },
})

type Asked = Pick<Question<typeof parameters>, 'parameters' | 'accept'>

const formatOf = ({ parameters: { format }, accept }: Asked): Format => format ?? accepted(accept)

const filename = ({ parameters: { startDate, endDate, period: unit } }: Question<typeof parameters>, format: Format) =>
  `snapshots-${unit}-${toIso(startDate).slice(0, 10)}-${toIso(endDate).slice(0, 10)}.${format}`

const entriesOf = ({ parameters: { period: unit, startDate, endDate, timezone } }: Asked) =>
  periodsBetween(unit, startDate, endDate, timezone)

async function* rowsOf(question: Question<typeof parameters>): AsyncGenerator<Snapshot[]> {
  const { store, scope, now, parameters: { period: unit } } = question
  const entries = entriesOf(question)
  for (let at = 0; at < entries.length; at += ROWS_A_QUERY) {
    const some = entries.slice(at, at + ROWS_A_QUERY)
    const totals = await totalsOf(store, scope, 'snapshots', some)
    yield some.map((entry, index) => ({
      period: unit,
      periodKey: entry.key,
      startDate: toIso(entry.from),
      endDate: toIso(entry.to),
      final: entry.end <= now,
      ...toMetrics(totals[index] as (typeof totals)[number]),
    }))
  }
}

async function* written(
  format: Format,
  first: IteratorResult<Snapshot[]>,
  rest: AsyncGenerator<Snapshot[]>,
): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder()
  if (format === 'json') yield encoder.encode('{"success":true,"data":[')
  if (format === 'csv') yield encoder.encode(`${COLUMNS.join(',')}\r\n`)
  let started = false
  for (let next = first; !next.done; next = await rest.next()) {
    const separator = format === 'json' && started ? ',' : ''
    yield encoder.encode(separator + toText(format, next.value))
    started = true
  }
  if (format === 'json') yield encoder.encode(']}')
}

/** CSV after RFC 4180; no column can hold a comma, a quote or a formula: numbers, dates and period keys only. */
function toText(format: Format, rows: readonly Snapshot[]): string {
  if (format === 'json') return rows.map((row) => JSON.stringify(row)).join(',')
  if (format === 'ndjson') return rows.map((row) => `${JSON.stringify(row)}\n`).join('')
  return rows.map((row) => `${COLUMNS.map((name) => row[name] ?? '').join(',')}\r\n`).join('')
}

/** The format an Accept header asks for; the first that is known wins, and no header or `*∕*` means JSON. */
function accepted(accept: string | undefined): Format {
  if (!accept) return 'json'
  for (const part of accept.split(',')) {
    const type = part.split(';')[0]?.trim().toLowerCase() ?? ''
    if (type === '*/*' || type === 'application/*') return 'json'
    if (type === 'text/*') return 'csv'
    const format = FORMATS.find((name) => MEDIA_TYPES[name] === type)
    if (format) return format
  }
  throw new ApiError(406, 'not_acceptable', `Known formats are ${Object.values(MEDIA_TYPES).join(', ')}.`)
}
