/** How figures and dates are written. The page is in English, and so are they. */

const whole = new Intl.NumberFormat('en-US')
const compact = new Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 2 })
const percent = new Intl.NumberFormat('en-US', { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 })
const dollars = new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' })
const finer = new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD', maximumSignificantDigits: 3 })
const signed = new Intl.NumberFormat('en-US', { signDisplay: 'exceptZero', maximumFractionDigits: 1, minimumFractionDigits: 1 })
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'always', style: 'short' })

export const formatCount = (value: number): string => (value >= 1e6 ? compact.format(value) : whole.format(value))
export const formatExact = (value: number): string => whole.format(value)
/** For axes: as short as can be. */
export const formatTick = (value: number): string => compact.format(value)
export const formatRate = (value: number | null): string => (value === null ? 'n/a' : percent.format(value))
/** USD; prices of single calls are fractions of a cent. */
export const formatCost = (value: number): string =>
  value !== 0 && Math.abs(value) < 1 ? finer.format(value) : value >= 1e6 ? `$${compact.format(value)}` : dollars.format(value)

/** A relative change, such as +12.5 %. */
export const formatChange = (change: number): string =>
  Math.abs(change) >= 10 ? `×${compact.format(change + 1)}` : `${signed.format(change * 100)}%`
/** A difference of rates, in percentage points. */
export const formatPoints = (difference: number): string => `${signed.format(difference * 100)} pp`

const STEPS = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
] as const

export function formatAgo(instant: string, now: number): string {
  const passed = now - Date.parse(instant)
  for (const [unit, ms] of STEPS) if (passed >= ms) return relative.format(-Math.floor(passed / ms), unit)
  return 'just now'
}

const formats = new Map<string, Intl.DateTimeFormat>()

function dateFormat(timeZone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = JSON.stringify([timeZone, options])
  const format = formats.get(key) ?? new Intl.DateTimeFormat('en-GB', { timeZone, ...options })
  formats.set(key, format)
  return format
}

/** 2026-03-01 09:15:04, in a time zone. */
export function formatInstant(instant: string | number, timezone: string): string {
  const date = new Date(instant)
  const day = dateFormat(timezone, { year: 'numeric', month: '2-digit', day: '2-digit' }).formatToParts(date)
  const part = (type: string) => day.find((one) => one.type === type)?.value ?? ''
  return `${part('year')}-${part('month')}-${part('day')} ${formatTime(instant, timezone)}`
}

export const formatTime = (instant: string | number, timezone: string): string =>
  dateFormat(timezone, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' }).format(new Date(instant))

/** 1 Mar, 14:00, in a time zone. */
export const formatShort = (instant: string, timezone: string): string =>
  dateFormat(timezone, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(
    new Date(instant),
  )

/** A calendar day, YYYY-MM-DD, as 1 Mar. */
export const formatDay = (key: string): string => dateFormat('UTC', { day: 'numeric', month: 'short' }).format(new Date(key))
/** The same as Sun, 1 Mar 2026. */
export const formatFullDay = (key: string): string =>
  dateFormat('UTC', { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' }).format(new Date(key))
