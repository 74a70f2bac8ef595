/** What the dashboard shows, as an address says it: every link keeps it. No I/O. */
import type { Event } from '../src/client.ts'

export const PRESETS = { '24h': 1, '7d': 7, '30d': 30, '90d': 90 } as const
export type Preset = keyof typeof PRESETS

type EventType = Event['eventType']
export const TYPE_NAMES: Record<EventType, string> = {
  incomingMessages: 'Message in',
  outgoingMessages: 'Message out',
  tasksInitiated: 'Task initiated',
  tasksCompleted: 'Task completed',
}

export interface State {
  range: Preset | 'custom'
  /** YYYY-MM-DD in `timezone`, first and last day; of a custom range, else empty. */
  from: string
  to: string
  /** '' stands for all. */
  assistant: string
  user: string
  /** IANA name */
  timezone: string
  type: EventType | ''
  /** Where the page of the event log begins; '' is the newest. */
  cursor: string
}

/** The longest custom range, in days: a year and a leap day. */
export const MAX_DAYS = 366

const DAY_MS = 86_400_000

/** Days of a custom range, both ends included. */
export const daysOf = (from: string, to: string): number => (Date.parse(to) - Date.parse(from)) / DAY_MS + 1

export const addDays = (date: string, days: number): string =>
  new Date(Date.parse(date) + days * DAY_MS).toISOString().slice(0, 10)

const isDate = (text: string) => /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(text)) && addDays(text, 0) === text

/** What is wrong with a custom range, or '' where nothing is. */
export function rangeFault(from: string, to: string): string {
  if (!isDate(from) || !isDate(to)) return 'Give the first and the last day.'
  if (from < '1970-01-01' || to > '2099-12-30') return 'Give days from 1970 to 2099.'
  if (from > to) return 'The last day is before the first.'
  return daysOf(from, to) > MAX_DAYS ? `At most ${MAX_DAYS} days.` : ''
}

export function isTimeZone(name: string): boolean {
  try {
    return Boolean(new Intl.DateTimeFormat('en', { timeZone: name }))
  } catch {
    return false
  }
}

/**
 * Reads the query string of an address. What cannot be used counts as absent.
 * @param home the time zone where the address names none
 */
export function readState(search: string, home: string): State {
  const query = new URLSearchParams(search)
  const get = (name: string) => query.get(name) ?? ''
  const [from, to] = [get('from'), get('to')]
  const custom = (from !== '' || to !== '') && rangeFault(from, to) === ''
  const range = get('range')
  const type = get('type')
  return {
    range: custom ? 'custom' : Object.hasOwn(PRESETS, range) ? (range as Preset) : '7d',
    from: custom ? from : '',
    to: custom ? to : '',
    assistant: get('assistant').slice(0, 256),
    user: get('user').slice(0, 256),
    timezone: isTimeZone(get('timezone')) ? get('timezone') : home,
    type: Object.hasOwn(TYPE_NAMES, type) ? (type as EventType) : '',
    cursor: get('cursor'),
  }
}

/** The query string of a state, with the question mark; it names the time zone, so that a link says the same to everybody. */
export function writeState({ range, from, to, assistant, user, timezone, type, cursor }: State): string {
  const query = new URLSearchParams(range === 'custom' ? { from, to } : { range })
  for (const [name, value] of Object.entries({ assistant, user, timezone, type, cursor })) if (value) query.set(name, value)
  return `?${query}`
}

/** The state after a change; another question begins at the newest events. */
export const changed = (state: State, change: Partial<State>): State => ({ ...state, cursor: '', ...change })

export const homeTimeZone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'
