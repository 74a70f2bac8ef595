/** Values of query parameters. */

/** ClickHouse takes 128 KiB a parameter (http_max_field_value_size), and no query can raise that. */
const MAX_PARAMETER_BYTES = 120_000

/** What the client writes with a backslash. */
const ESCAPED = /[\\'\t\n\r]/g

/** A long list in slices that each fit into a parameter, whatever its texts hold. */
export function* slices<T extends string | number>(list: readonly T[]): Generator<T[]> {
  let slice: T[] = []
  let bytes = 0
  for (const item of list) {
    // Two quotes, a comma, and a backslash before each character that needs one.
    const more = Buffer.byteLength(String(item)) + (String(item).match(ESCAPED)?.length ?? 0) + 3
    if (bytes + more > MAX_PARAMETER_BYTES) {
      yield slice
      slice = []
      bytes = 0
    }
    slice.push(item)
    bytes += more
  }
  if (slice.length > 0) yield slice
}

/** An instant as text, the one form that every ClickHouse parser of DateTime64(3, 'UTC') reads. */
export const dateTime64 = (instant: number): string => new Date(instant).toISOString().slice(0, 23).replace('T', ' ')
