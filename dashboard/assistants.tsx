/** Activity per assistant: busiest first, marked where one is idle or has fallen quiet. */
import { Fragment } from 'preact'
import { useState } from 'preact/hooks'
import type { AssistantActivity } from '../src/client.ts'
import { Change, relativeChange } from './cards.tsx'
import { formatAgo, formatCost, formatCount, formatInstant, formatRate } from './format.ts'
import { StateLink } from './links.tsx'
import { Panel } from './panel.tsx'
import type { Navigation } from './navigation.ts'
import type { Answer } from './use-answer.ts'

const ROWS = 12

const COLUMNS = {
  total: { label: 'Events', value: (row: AssistantActivity) => row.total },
  change: { label: 'Change', value: (row: AssistantActivity) => row.change.total ?? (row.total > 0 ? Infinity : -Infinity) },
  completionRate: { label: 'Completion', value: (row: AssistantActivity) => row.completionRate ?? Infinity },
  activeUsers: { label: 'Users', value: (row: AssistantActivity) => row.activeUsers },
  cost: { label: 'Cost', value: (row: AssistantActivity) => row.cost },
  lastActiveAt: { label: 'Last active', value: (row: AssistantActivity) => Date.parse(row.lastActiveAt) },
}
type Column = keyof typeof COLUMNS
/** Where the first click shows the lowest first: what is low is what one looks for. */
const LOWEST_FIRST = new Set<Column>(['completionRate', 'lastActiveAt', 'change'])

const DAY_MS = 86_400_000

/** Active in the range, but not in its last day, where it has several. The API's `idle` is none in the whole range. */
function isQuiet({ idle, lastActiveAt }: AssistantActivity, { startDate, endDate }: Span, now: number): boolean {
  const end = Math.min(Date.parse(endDate), now)
  return !idle && end - Date.parse(startDate) > DAY_MS && end - Date.parse(lastActiveAt) >= DAY_MS
}

/** Where the range begins and ends, UTC ISO 8601. */
interface Span {
  readonly startDate: string
  readonly endDate: string
}

interface AssistantsProps {
  answer: Answer<AssistantActivity[]>
  /** Of the shown range, once it is known. */
  span: Span | undefined
  navigation: Navigation
}

export function Assistants({ answer, span, navigation }: AssistantsProps) {
  const [sort, setSort] = useState<{ by: Column; ascending: boolean }>({ by: 'total', ascending: false })
  const [all, setAll] = useState(false)
  const { state } = navigation
  const sortBy = (by: Column) => setSort((now) => ({ by, ascending: now.by === by ? !now.ascending : LOWEST_FIRST.has(by) }))
  const list = answer.value
  const now = Date.now()
  const quiet = new Set(span ? list?.filter((row) => isQuiet(row, span, now)) : [])
  const idle = list?.filter((row) => row.idle).length ?? 0
  const active = (list?.length ?? 0) - idle
  const counts = [
    `${formatCount(active)} active`,
    ...(quiet.size > 0 ? [`${formatCount(quiet.size)} of them quiet`] : []),
    `${formatCount(idle)} idle`,
  ]
  return (
    <Panel
      id="assistants"
      title="Assistants"
      note={list && counts.join(', ') + (state.user && `, for ${state.user}`)}
      actions={
        state.assistant && (
          <StateLink navigation={navigation} change={{ assistant: '' }}>
            Show all
          </StateLink>
        )
      }
      answer={answer}
      timezone={state.timezone}
      lines={9}
      empty="No assistant was active in this range or in the one before."
    >
      {(rows) => {
        if (rows.length === 0) return null
        const { value } = COLUMNS[sort.by]
        const sorted = rows.toSorted((a, b) => (sort.ascending ? 1 : -1) * (value(a) - value(b)))
        const shown = all ? sorted : sorted.slice(0, ROWS)
        const largest = Math.max(...rows.map(({ share }) => share), 1e-9)
        return (
          <>
            <Notice rows={rows.filter((row) => row.idle || quiet.has(row))} navigation={navigation} now={now} />
            <div class="scroll" role="region" aria-label="Table of assistants" tabIndex={0}>
              <table class="assistants">
                <caption class="hidden">Activity per assistant in the range. Change is against the range before.</caption>
                <thead>
                  <tr>
                    <th scope="col">Assistant</th>
                    {(Object.keys(COLUMNS) as Column[]).map((name) => (
                      <th
                        key={name}
                        scope="col"
                        class={`number ${name}`}
                        aria-sort={sort.by === name ? (sort.ascending ? 'ascending' : 'descending') : 'none'}
                      >
                        <button type="button" class="sort" onClick={() => sortBy(name)}>
                          {COLUMNS[name].label}
                        </button>
                      </th>
                    ))}
                  </tr>
                </thead>
                <tbody>
                  {shown.map((row) => (
                    <tr
                      key={row.assistant}
                      class={row.idle ? 'idle' : ''}
                      aria-current={row.assistant === state.assistant ? 'true' : undefined}
                    >
                      <th scope="row">
                        <StateLink navigation={navigation} change={{ assistant: row.assistant }} class="name">
                          {row.assistant}
                        </StateLink>
                        {row.idle && <span class="badge warn">Idle</span>}
                        {quiet.has(row) && <span class="badge warn">Quiet</span>}
                        <Bar part={row.share / largest} />
                      </th>
                      <td class="number">
                        {formatCount(row.total)} <span class="share">{formatRate(row.share)}</span>
                      </td>
                      <td class="number change">
                        <Change change={relativeChange(row.total, row.previous.total)} />
                      </td>
                      <td class="number">
                        <Rate row={row} />
                      </td>
                      <td class="number activeUsers">{formatCount(row.activeUsers)}</td>
                      <td class="number cost">{formatCost(row.cost)}</td>
                      <td class="number lastActiveAt">
                        <time dateTime={row.lastActiveAt} title={formatInstant(row.lastActiveAt, state.timezone)}>
                          {formatAgo(row.lastActiveAt, now)}
                        </time>
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
            {rows.length > ROWS && (
              <button type="button" class="more" onClick={() => setAll(!all)} aria-expanded={all}>
                {all ? `Show the first ${ROWS}` : `Show all ${formatCount(rows.length)}`}
              </button>
            )}
          </>
        )
      }}
    </Panel>
  )
}

/** An SVG, since its width is an attribute and no inline style. */
export const Bar = ({ part }: { part: number }) => (
  <svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" focusable="false">
    <rect class="bar-ground" width="100" height="4" />
    <rect class="bar-part" width={Math.max(part > 0 ? 0.8 : 0, part * 100)} height="4" />
  </svg>
)

/** A drop of this much, in parts of 1, is worth a mark where so many tasks stand behind both rates. */
const DROP = 0.05
const MIN_TASKS = 20

function Rate({ row }: { row: AssistantActivity }) {
  const before = row.previous.completionRate
  const enough = Math.min(row.tasksInitiated, row.previous.tasksInitiated) >= MIN_TASKS
  const dropped = enough && row.completionRate !== null && before !== null && before - row.completionRate >= DROP
  return (
    <>
      {formatRate(row.completionRate)}
      {dropped && (
        <span class="dropped">
          <span class="hidden">, down </span>from {formatRate(before)}
        </span>
      )}
    </>
  )
}

/** They stand near the end of the table, if they are shown at all: they are named here as well. */
function Notice({ rows, navigation, now }: { rows: AssistantActivity[]; navigation: Navigation; now: number }) {
  if (rows.length === 0) return null
  const named = rows.slice(0, 5)
  return (
    <p class="notice">
      <strong>Silent:</strong>{' '}
      {named.map((row, at) => (
        <Fragment key={row.assistant}>
          {at > 0 && '; '}
          <StateLink navigation={navigation} change={{ assistant: row.assistant }}>
            {row.assistant}
          </StateLink>
          {row.idle ? ', idle in the whole range' : ', quiet in the last day'}, last active {formatAgo(row.lastActiveAt, now)}
        </Fragment>
      ))}
      {rows.length > named.length && `; and ${formatCount(rows.length - named.length)} more`}
    </p>
  )
}
