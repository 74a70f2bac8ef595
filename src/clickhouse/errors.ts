/** Errors of ClickHouse, and what a caller is told of them. */
import { ClickHouseError } from '@clickhouse/client'
import { ApiError, unavailable } from '../domain/errors.ts'

/** ClickHouse error codes: https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp */
const TOO_EXPENSIVE: Record<string, string> = {
  '158': 'reads too many rows',
  '159': 'takes too long',
  '160': 'would take too long',
  '241': 'needs too much memory',
  '307': 'reads too many bytes',
  '396': 'returns too many rows',
}

/**
 * Cannot read all data, checksum does not match, file does not exist, no file in data part, corrupted data, cannot
 * decompress, unknown codec. Seen (26.7): a merge on a full disk that leaves a part with an empty file of marks; other bytes
 * in the middle of a file, whose first one names no codec.
 */
const BROKEN_PART = new Set(['33', '40', '107', '226', '246', '271', '432'])

/** Whether a query failed because a part on disk cannot be read. */
export const saysBrokenPart = (error: unknown): error is ClickHouseError =>
  error instanceof ClickHouseError && BROKEN_PART.has(error.code)

/** Whether an error, or what it was caused by, says that a part on disk cannot be read. */
export function isBrokenPart(error: unknown): boolean {
  for (let at = error as Error | undefined; at instanceof Error; at = at.cause as Error | undefined) {
    if (saysBrokenPart(at)) return true
  }
  return false
}

/** Unknown table, unknown database. */
export const NO_TABLE = new Set(['60', '81'])

/** Turns what the client throws into an answer that shows no SQL and no server text. */
export function asApiError(error: unknown): unknown {
  if (error instanceof ApiError) return error
  if (error instanceof ClickHouseError) {
    const reason = TOO_EXPENSIVE[error.code]
    if (reason) {
      return new ApiError(400, 'too_expensive', `This question ${reason}; ask for a shorter range or fewer filters.`, {
        cause: error,
      })
    }
    // 202 too many simultaneous queries, 209/210 network, 242 read only, 243 no space, 252 too many parts, ...
    return unavailable('The analytics store cannot answer right now.', 1, error)
  }
  return unavailable('The analytics store is out of reach.', 1, error)
}

/** What Node says of connections that are refused or break, and the client of requests that take too long. */
const CONNECTION_CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
])
const CONNECTION_MESSAGES = /^(socket hang up|Timeout error\.?)/

/** True for what upkeep throws where ClickHouse refused a statement or went away: a caller may come back then. */
export function isStoreFailure(error: unknown): boolean {
  // The lease by its name, since writer-lease.ts imports what imports this.
  return error instanceof ClickHouseError || (error as Error | null)?.name === 'LeaseLostError' || isConnectionFailure(error)
}

/** True for what the client throws where ClickHouse cannot be reached, or went away. */
export function isConnectionFailure(error: unknown): boolean {
  const { code, message } = (error ?? {}) as { code?: string; message?: string }
  return CONNECTION_CODES.has(code ?? '') || CONNECTION_MESSAGES.test(message ?? '')
}
