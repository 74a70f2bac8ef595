/** The answers of the public API, as far as the dashboard shows them. */

export interface Metrics {
  activeUsers: number
  incomingMessages: number
  outgoingMessages: number
  tasksInitiated: number
  tasksCompleted: number
  total: number
  /** tasksCompleted / tasksInitiated, null where none was initiated */
  completionRate: number | null
  /** USD */
  cost: number
  inputTokens: number
  outputTokens: number
}

/** Instants are UTC ISO 8601, ranges half-open. */
export interface Dated {
  startDate: string
  endDate: string
}

/** A calendar day, or the part of one that lies in the range. */
export interface Day extends Metrics, Dated {
  /** YYYY-MM-DD in the asked time zone */
  periodKey: string
}

export interface Rolling extends Metrics, Dated {
  window: number
  previous: Metrics & Dated
  series: Day[]
}

export interface Assistant extends Metrics {
  assistant: string
  /** of all events, 0 to 1 */
  share: number
  idle: boolean
  lastActiveAt: string
  previous: Metrics
  /** relative, null where there is nothing to divide by */
  change: Record<keyof Metrics, number | null>
}

export interface TopUser extends Omit<Metrics, 'activeUsers'> {
  user: string
  assistants: number
  lastActiveAt: string
}

export const EVENT_TYPES = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted'] as const
export type EventType = (typeof EVENT_TYPES)[number]

export interface LoggedEvent {
  id: string
  eventType: EventType
  timestamp: string
  assistant: string
  user: string
  cost: number
  inputTokens: number
  outputTokens: number
  model: string | null
  traceId: string | null
  metadata: Record<string, unknown> | null
}

export interface Body<T> {
  data: T
  pagination?: { limit: number; skip: number; total: number; nextCursor: string | null }
}
