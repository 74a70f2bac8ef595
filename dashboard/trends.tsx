/** The charts: messages, completion rate and cost of each day, all from one answer. */
import type { ComponentChildren } from 'preact'
import { Chart, type Series } from './chart.tsx'
import { formatCost, formatCount, formatDay, formatExact, formatRate, formatTick } from './format.ts'
import { Panel } from './panel.tsx'
import type { Day, Summary } from './questions.ts'
import type { Navigation } from './navigation.ts'
import type { Theme } from './theme.ts'
import type { Answer } from './use-answer.ts'

interface TrendProps {
  answer: Answer<Summary>
  navigation: Navigation
  theme: Theme
}

const MESSAGES: Series[] = [
  { name: 'Incoming', color: 'chart-1', value: (day) => day.incomingMessages },
  { name: 'Outgoing', color: 'chart-2', value: (day) => day.outgoingMessages },
]
const COMPLETION: Series[] = [{ name: 'Completion rate', color: 'chart-3', value: (day) => day.completionRate }]
const COST: Series[] = [{ name: 'Cost', color: 'chart-4', value: (day) => day.cost }]

const between = (days: readonly Day[]) =>
  days.length === 0 ? '' : `${formatDay(days[0]?.periodKey as string)} to ${formatDay(days.at(-1)?.periodKey as string)}`

function lowest(days: readonly Day[]): string {
  const rated = days.filter(({ completionRate }) => completionRate !== null)
  if (rated.length === 0) return 'no task was initiated'
  const worst = rated.reduce((low, day) => ((day.completionRate as number) < (low.completionRate as number) ? day : low))
  return `lowest ${formatRate(worst.completionRate)} on ${formatDay(worst.periodKey)}`
}

function highest(days: readonly Day[], value: (day: Day) => number, format: (value: number) => string): string {
  const top = days.reduce((high, day) => (value(day) > value(high) ? day : high), days[0] as Day)
  return `highest ${format(value(top))} on ${formatDay(top.periodKey)}`
}

const shown = (draw: (summary: Summary, days: Day[]) => ComponentChildren) => (summary: Summary) =>
  summary.metrics.total === 0 ? null : draw(summary, summary.series)

export function Trends(props: TrendProps) {
  const { answer, navigation, theme } = props
  const { timezone } = navigation.state
  const shared = { answer, timezone, lines: 5 }
  const chart = { navigation, theme }
  return (
    <div class="trends">
      <Panel
        {...shared}
        id="messages"
        title="Messages"
        note={navigation.state.range === '24h' ? 'By day, with the days before' : 'By day'}
        empty="No messages in this range."
      >
        {shown((_, days) => (
          <Chart
            {...chart}
            days={days}
            kind="bars"
            series={MESSAGES}
            format={(value) => formatExact(value ?? 0)}
            caption="Messages a day"
            summary={`Messages a day, ${between(days)}: ${highest(days, (day) => day.incomingMessages + day.outgoingMessages, formatCount)}`}
          />
        ))}
      </Panel>
      <Panel
        {...shared}
        id="completion"
        title="Completion rate"
        note="Tasks completed of those initiated, by day"
        empty="No tasks in this range."
      >
        {shown((summary, days) =>
          summary.metrics.tasksInitiated === 0 ? null : (
            <Chart
              {...chart}
              days={days}
              kind="line"
              series={COMPLETION}
              format={formatRate}
              tick={(value) => (value > 1 ? '' : `${Math.round(value * 100)}%`)}
              caption="Completion rate a day"
              summary={`Completion rate a day, ${between(days)}: ${lowest(days)}`}
            />
          ),
        )}
      </Panel>
      <Panel {...shared} id="cost" title="Cost" note={costNote(answer)} empty="No events in this range.">
        {shown((summary, days) =>
          summary.metrics.cost === 0 && summary.metrics.inputTokens + summary.metrics.outputTokens === 0 ? (
            <p class="empty">The events of this range carry no cost.</p>
          ) : (
            <Chart
              {...chart}
              days={days}
              kind="bars"
              series={COST}
              format={(value) => formatCost(value ?? 0)}
              tick={(value) => `$${formatTick(value)}`}
              caption="Cost a day, in US dollars"
              summary={`Cost a day, ${between(days)}: ${highest(days, (day) => day.cost, formatCost)}`}
            />
          ),
        )}
      </Panel>
    </div>
  )
}

function costNote({ value }: TrendProps['answer']): string {
  if (!value) return 'By day'
  return `By day; ${formatCount(value.metrics.inputTokens)} tokens in, ${formatCount(value.metrics.outputTokens)} out`
}
