/** A finding in a sentence, and the address of the events behind it. */
import type { Range } from '../../domain/time-range.ts'
import type { Instant } from '../../time/instant.ts'
import { toIso } from '../../time/iso8601.ts'
import type { Comparison } from './baseline.ts'

/** What a finding is about, as `events` tells event types apart; costs are on all of them. */
const EVIDENCE: Partial<Record<Comparison['metric'], string>> = {
  completionRate: 'tasksInitiated',
  incomingMessages: 'incomingMessages',
  outgoingMessages: 'outgoingMessages',
  tasksInitiated: 'tasksInitiated',
}

/** Of what is idle, its last event and the silence after it. */
export function evidenceOf(
  metric: Comparison['metric'],
  { since, until }: { since: Instant; until: Instant },
  assistants: readonly string[] = [],
  users: readonly string[] = [],
): string {
  const query = new URLSearchParams({ startDate: toIso(since), endDate: toIso(until) })
  const eventType = EVIDENCE[metric]
  if (eventType) query.append('eventType', eventType)
  for (const assistant of assistants) query.append('assistant', assistant)
  for (const user of users) query.append('user', user)
  return `/analytics/events?${query}`
}

const LABELS: Record<Comparison['metric'], string> = {
  idle: 'Activity',
  completionRate: 'Completion rate',
  incomingMessages: 'Incoming messages',
  outgoingMessages: 'Outgoing messages',
  tasksInitiated: 'Tasks initiated',
  costPerMessage: 'Cost per message',
  cost: 'Cost',
}

export function summaryOf(
  { metric, hours, current, median, change, score, weeks }: Comparison,
  assistant: string | null,
  { since, until }: { since: Instant; until: Instant },
  window: Range,
): string {
  const who = assistant === null ? 'the fleet' : `assistant ${JSON.stringify(assistant)}`
  const show = SHOWN[metric] ?? inWhole
  const usual = `usual are ${show(median)} (median of ${weeks} weeks)`
  if (metric === 'idle')
    return `${who[0]?.toUpperCase()}${who.slice(1)} has been silent since ${minute(since)}; in its last ${hours} h ${usual} events.`
  const start = `${minute(since)}${since === window.from ? ' or before' : ''}`
  const when = until === window.to ? `since ${start}` : `from ${start} until ${minute(until)}`
  const moved = change === null ? '' : `, ${change < 0 ? '−' : '+'}${Math.round(Math.abs(change) * 100)} %`
  return `${LABELS[metric]} of ${who} ${score < 0 ? 'fell' : 'rose'} ${when}: ${show(current)} in the last ${hours} h${moved}; ${usual}.`
}

const minute = (instant: Instant) => `${toIso(instant).slice(0, 16)}Z`
const inWhole = (value: number) => Math.round(value).toLocaleString('en-US')
const inDollars = (value: number) => `$${Number(value.toPrecision(4))}`
const SHOWN: Partial<Record<Comparison['metric'], (value: number) => string>> = {
  completionRate: (value) => `${(value * 100).toFixed(1)} %`,
  costPerMessage: inDollars,
  cost: inDollars,
}
