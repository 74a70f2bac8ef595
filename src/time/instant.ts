/** The instants that the service knows, and units of time in milliseconds. */

/** Milliseconds since 1970-01-01T00:00:00Z, a whole number; leap seconds are not counted (POSIX time). */
export type Instant = number

/** First supported instant, inclusive: 1970-01-01T00:00:00.000Z. Buckets are stored as unsigned seconds. */
export const MIN_INSTANT: Instant = 0

/** End of the supported instants, exclusive: 2100-01-01T00:00:00.000Z. */
export const MAX_INSTANT: Instant = Date.UTC(2100, 0, 1)

export const SECOND = 1_000
export const MINUTE = 60 * SECOND
export const HOUR = 60 * MINUTE
export const DAY = 24 * HOUR
