/** The figures of the range, each beside the range before. */
import type { ComponentChildren } from 'preact'
import { formatChange, formatCost, formatCount, formatExact, formatPoints, formatRate } from './format.ts'
import type { Metrics, Summary } from './questions.ts'

interface Card {
  label: string
  value: string
  exact?: string
  before: string
  change: { text: string; tone: 'good' | 'bad' | 'none'; direction: number } | null
  detail?: string
  trend: Array<number | null>
}

const NONE = { text: 'no change', tone: 'none', direction: 0 } as const

function relative(now: number, before: number): Card['change'] {
  if (now === before) return NONE
  // There is nothing to divide by.
  if (before === 0) return null
  const change = (now - before) / before
  return { text: formatChange(change), tone: 'none', direction: Math.sign(change) }
}

function points(now: number | null, before: number | null): Card['change'] {
  if (now === null || before === null) return null
  const difference = now - before
  if (Math.abs(difference) < 0.0005) return NONE
  return { text: formatPoints(difference), tone: difference < 0 ? 'bad' : 'good', direction: Math.sign(difference) }
}

function cardsOf({ metrics, previous, series, distinctUsers }: Summary): Card[] {
  const counted = (label: string, pick: (from: Metrics) => number, detail?: string): Card => ({
    label,
    value: formatCount(pick(metrics)),
    exact: formatExact(pick(metrics)),
    before: formatCount(pick(previous)),
    change: relative(pick(metrics), pick(previous)),
    trend: series.map(pick),
    ...(detail ? { detail } : {}),
  })
  const perTask = metrics.tasksCompleted > 0 ? formatCost(metrics.cost / metrics.tasksCompleted) : 'n/a'
  return [
    counted(
      'Messages',
      (from) => from.incomingMessages + from.outgoingMessages,
      `${formatCount(metrics.incomingMessages)} in, ${formatCount(metrics.outgoingMessages)} out`,
    ),
    counted(
      distinctUsers ? 'Active users' : 'Active users a day',
      (from) => from.activeUsers,
      distinctUsers ? 'distinct in the range' : 'mean of the days',
    ),
    counted('Tasks initiated', (from) => from.tasksInitiated),
    counted('Tasks completed', (from) => from.tasksCompleted),
    {
      label: 'Completion rate',
      value: formatRate(metrics.completionRate),
      before: formatRate(previous.completionRate),
      change: points(metrics.completionRate, previous.completionRate),
      detail: metrics.completionRate === null ? 'no task initiated' : 'completed of initiated',
      trend: series.map(({ completionRate }) => completionRate),
    },
    {
      label: 'Cost',
      value: formatCost(metrics.cost),
      before: formatCost(previous.cost),
      change: relative(metrics.cost, previous.cost),
      detail: `${perTask} per completed task`,
      trend: series.map(({ cost }) => cost),
    },
  ]
}

export const Cards = ({ summary }: { summary: Summary }) => (
  <dl class="cards">
    {cardsOf(summary).map((card) => (
      <div key={card.label} class="card figure">
        <dt>{card.label}</dt>
        <dd class="value" title={card.exact ?? card.value}>
          {card.value}
        </dd>
        <dd class="change">
          <Change change={card.change} /> <span class="before">from {card.before}</span>
        </dd>
        {card.detail && <dd class="detail">{card.detail}</dd>}
        <Sparkline values={card.trend} />
      </div>
    ))}
  </dl>
)

/** The direction is told by the sign of the text too, not by the colour or the arrow alone. */
export const Change = ({ change }: { change: Card['change'] }): ComponentChildren =>
  change === null ? (
    <span class="delta none">new</span>
  ) : (
    <span class={`delta ${change.tone}`}>
      {change.direction !== 0 && (
        <svg viewBox="0 0 8 8" width="8" height="8" aria-hidden="true" focusable="false">
          <path d={change.direction > 0 ? 'M4 1 7.5 7h-7Z' : 'M4 7 .5 1h7Z'} fill="currentColor" />
        </svg>
      )}
      {change.text}
    </span>
  )

export const relativeChange = relative

const [WIDTH, HEIGHT] = [100, 24]

/** Decoration: the chart of the same figures, or their table, says it in full. The ragged first and last day are left out. */
function Sparkline({ values }: { values: Array<number | null> }) {
  const days = values.slice(1, -1)
  const known = days.filter((value) => value !== null)
  if (known.length < 4) return null
  const [low, high] = [Math.min(...known), Math.max(...known)]
  const path = days
    .flatMap((value, at) => {
      if (value === null) return []
      const x = (at / (days.length - 1)) * WIDTH
      const y = high === low ? HEIGHT / 2 : HEIGHT - 2 - ((value - low) / (high - low)) * (HEIGHT - 4)
      return `${x.toFixed(1)} ${y.toFixed(1)}`
    })
    .join('L')
  return (
    <dd class="spark" aria-hidden="true">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" focusable="false">
        <path d={`M${path}`} />
      </svg>
    </dd>
  )
}
