/** Activity per assistant: busiest first, the idle ones marked. */
import { useState } from 'preact/hooks'
import type { Assistant } from './api.ts'
import { Change, relativeChange } from './cards.tsx'
import { formatAgo, formatCost, formatCount, formatInstant, formatRate } from './format.ts'
import { StateLink } from './links.tsx'
import { Panel } from './panel.tsx'
import type { Navigation } from './state.ts'
import type { Answer } from './use-answer.ts'

const ROWS = 12

const COLUMNS = {
  total: { label: 'Events', value: (row: Assistant) => row.total },
  change: { label: 'Change', value: (row: Assistant) => row.change.total ?? (row.total > 0 ? Infinity : -Infinity) },
  completionRate: { label: 'Completion', value: (row: Assistant) => row.completionRate ?? Infinity },
  activeUsers: { label: 'Users', value: (row: Assistant) => row.activeUsers },
  cost: { label: 'Cost', value: (row: Assistant) => row.cost },
  lastActiveAt: { label: 'Last active', value: (row: Assistant) => Date.parse(row.lastActiveAt) },
}
type Column = keyof typeof COLUMNS
/** Where the first click shows the lowest first: what is low is what one looks for. */
const LOWEST_FIRST = new Set<Column>(['completionRate', 'lastActiveAt', 'change'])

export function Assistants({ answer, navigation }: { answer: Answer<Assistant[]>; navigation: Navigation }) {
  const [sort, setSort] = useState<{ by: Column; ascending: boolean }>({ by: 'total', ascending: false })
  const [all, setAll] = useState(false)
  const { state } = navigation
  const sortBy = (by: Column) =>
    setSort((now) => ({ by, ascending: now.by === by ? !now.ascending : LOWEST_FIRST.has(by) }))
  const list = answer.value
  const working = list?.filter(({ idle }) => !idle).length ?? 0
  const idle = (list?.length ?? 0) - working
  return (
    <Panel
      id="assistants"
      title="Assistants"
      note={list && `${formatCount(working)} active, ${formatCount(idle)} idle${state.user ? `, for ${state.user}` : ''}`}
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
        const now = Date.now()
        return (
          <>
            <IdleNotice rows={rows.filter((row) => row.idle)} navigation={navigation} now={now} />
            <div class="scroll" role="region" aria-label="Activity per assistant" tabIndex={0}>
              <table class="assistants">
                <caption class="hidden">
                  Activity per assistant in the range. Change is against the range before.
                </caption>
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
const Bar = ({ part }: { part: number }) => (
  <svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" focusable="false">
    <rect class="bar-ground" width="100" height="4" />
    <rect class="bar-part" width={Math.max(part > 0 ? 0.8 : 0, part * 100)} height="4" />
  </svg>
)

/** A drop of this much, in parts of 1, is worth a mark. */
const DROP = 0.05

function Rate({ row }: { row: Assistant }) {
  const before = row.previous.completionRate
  const dropped = row.completionRate !== null && before !== null && before - row.completionRate >= DROP
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

/** The idle ones stand at the end of the table: they are named here as well. */
function IdleNotice({ rows, navigation, now }: { rows: Assistant[]; navigation: Navigation; now: number }) {
  if (rows.length === 0) return null
  const named = rows.slice(0, 5)
  return (
    <p class="notice">
      <span class="badge warn">Idle</span>
      <span>
        {named.map((row, at) => (
          <>
            {at > 0 && ', '}
            <StateLink navigation={navigation} change={{ assistant: row.assistant }}>
              {row.assistant}
            </StateLink>{' '}
            (last active {formatAgo(row.lastActiveAt, now)})
          </>
        ))}
        {rows.length > named.length && ` and ${rows.length - named.length} more`}: active in the range before, and not in this
        one.
      </span>
    </p>
  )
}

export { Bar }
