/** The figures that appear wherever counts do. */
import type { Figures } from './totals.ts'

/** The figures as answers carry them; `completionRate` is tasksCompleted / tasksInitiated, null where none was initiated. */
export interface Metrics {
  activeUsers: number
  incomingMessages: number
  outgoingMessages: number
  tasksInitiated: number
  tasksCompleted: number
  total: number
  completionRate: number | null
  cost: number
  inputTokens: number
  outputTokens: number
}

export function toMetrics(row: Figures): Metrics {
  const { activeUsers, incomingMessages, outgoingMessages, tasksInitiated, tasksCompleted } = row
  return {
    activeUsers,
    incomingMessages,
    outgoingMessages,
    tasksInitiated,
    tasksCompleted,
    total: incomingMessages + outgoingMessages + tasksInitiated + tasksCompleted,
    completionRate: tasksInitiated === 0 ? null : tasksCompleted / tasksInitiated,
    cost: row.cost,
    inputTokens: row.inputTokens,
    outputTokens: row.outputTokens,
  }
}

/** How each figure moved against an earlier range: (now - before) / before, null where there is nothing to divide by. */
export type Change = { [Name in keyof Metrics]: number | null }

export function toChange(now: Metrics, before: Metrics): Change {
  const names = Object.keys(now) as Array<keyof Metrics>
  return Object.fromEntries(
    names.map((name) => {
      const [current, previous] = [now[name], before[name]]
      return [name, current === null || !previous ? null : (current - previous) / previous]
    }),
  ) as Change
}
