/** GET /analytics/snapshots: one row a day, week or month, streamed in whatever format a BI tool reads. */
import * as v from 'valibot'
import { answerOf, flag } from '../../domain/response-fields.ts'
import { toIso } from '../../time/iso8601.ts'
import { periodsBetween } from '../../time/periods.ts'
import { endpoint, type Question } from '../endpoint.ts'
import { fileHeaders, format, formatOf, type Format } from '../export/formats.ts'
import { parquetOf, type Column } from '../export/parquet.ts'
import { toMetrics } from '../figures.ts'
import { common, period, range } from '../parameters.ts'
import { FIGURES, metricFields, periodField, periodKeyField, rangeFields } from '../response-fields.ts'
import { totalsOf } from '../totals.ts'

/** So many rows are asked for and written at a time, whatever the length of the range. */
const ROWS_A_QUERY = 100

export const Snapshot = v.strictObject({
  period: periodField,
  periodKey: periodKeyField,
  ...rangeFields,
  final: flag('The period is over: only a late event can still change the row.'),
  ...metricFields,
})
type Snapshot = v.InferOutput<typeof Snapshot>

const COLUMNS = [
  { name: 'period', type: 'string' },
  { name: 'periodKey', type: 'string' },
  { name: 'startDate', type: 'timestamp' },
  { name: 'endDate', type: 'timestamp' },
  { name: 'final', type: 'boolean' },
  { name: 'activeUsers', type: 'integer' },
  { name: 'incomingMessages', type: 'integer' },
  { name: 'outgoingMessages', type: 'integer' },
  { name: 'tasksInitiated', type: 'integer' },
  { name: 'tasksCompleted', type: 'integer' },
  { name: 'total', type: 'integer' },
  { name: 'completionRate', type: 'number', optional: true },
  { name: 'cost', type: 'number' },
  { name: 'inputTokens', type: 'integer' },
  { name: 'outputTokens', type: 'integer' },
] as const satisfies ReadonlyArray<Column<Snapshot>>

const parameters = { ...range, period: period('day', 'One row a calendar day, ISO week or calendar month.'), format, ...common }

export const snapshots = endpoint({
  path: '/analytics/snapshots',
  operationId: 'snapshots',
  summary: 'Periodic metric snapshots',
  description: 'One row a day, week or month, oldest first; `final` once its period is over.',
  agentHint: `For an answer to read, leave \`format\` out. ${FIGURES}`,
  parameters,
  response: answerOf(v.array(Snapshot)),

  async handle(question) {
    const { startDate, endDate } = question.parameters
    const { value } = await rowsOf(question).next()
    // `final` changes when the last period is over, which may be after the range is.
    const to = Math.max(endDate, entriesOf(question).at(-1)?.end ?? endDate)
    return { covers: { from: startDate, to }, data: value ?? [] }
  },

  export: {
    description: 'For BI tools also a file in NDJSON, CSV or Parquet. In Parquet dates are timestamps and integers have 64 bits.',
    row: Snapshot,
    wanted: (asked) => formatOf(asked) !== 'json' || entriesOf(asked).length > ROWS_A_QUERY,

    async open(question) {
      const { startDate, endDate, period: unit } = question.parameters
      const asked = formatOf(question)
      const rows = rowsOf(question)
      // The first rows are read before the status line is sent, so that a failing store is a 503 and not a broken file.
      const first = await rows.next()
      return {
        headers: fileHeaders(asked, `snapshots-${unit}`, startDate, endDate),
        chunks: asked === 'parquet' ? parquetOf(COLUMNS, both(first, rows)) : written(asked, both(first, rows)),
      }
    },
  },
})

type Asked = Pick<Question<typeof parameters>, 'parameters' | 'accept'>

const entriesOf = ({ parameters: { period: unit, startDate, endDate, timezone } }: Asked) =>
  periodsBetween(unit, startDate, endDate, timezone)

async function* rowsOf(question: Question<typeof parameters>): AsyncGenerator<Snapshot[]> {
  const {
    store,
    scope,
    now,
    parameters: { period: unit },
  } = question
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

async function* both(first: IteratorResult<Snapshot[]>, rest: AsyncGenerator<Snapshot[]>): AsyncGenerator<Snapshot[]> {
  if (!first.done) yield first.value
  yield* rest
}

async function* written(as: TextFormat, batches: AsyncGenerator<Snapshot[]>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder()
  if (as === 'json') yield encoder.encode('{"success":true,"data":[')
  if (as === 'csv') yield encoder.encode(`${COLUMNS.map(({ name }) => name).join(',')}\r\n`)
  let started = false
  for await (const rows of batches) {
    yield encoder.encode((as === 'json' && started ? ',' : '') + toText(as, rows))
    started = true
  }
  if (as === 'json') yield encoder.encode(']}')
}

type TextFormat = Exclude<Format, 'parquet'>

/** CSV after RFC 4180; no column can hold a comma, a quote or a formula: numbers, dates and period keys only. */
function toText(as: TextFormat, rows: readonly Snapshot[]): string {
  if (as === 'json') return rows.map((row) => JSON.stringify(row)).join(',')
  if (as === 'ndjson') return rows.map((row) => `${JSON.stringify(row)}\n`).join('')
  return rows.map((row) => `${COLUMNS.map(({ name }) => row[name] ?? '').join(',')}\r\n`).join('')
}
