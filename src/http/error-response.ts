/** Every answer that is not a 2xx or a 304: one body, and what the log learns of it. */
import type { Context } from 'hono'
import { HTTPException } from 'hono/http-exception'
import * as v from 'valibot'
import { isStoreFailure } from '../clickhouse/errors.ts'
import { ApiError, ERROR_CODES, errorBody, unavailable, type ErrorCode } from '../domain/errors.ts'
import { text, whatIs } from '../domain/response-fields.ts'
import type { Env } from './environment.ts'

export const Failure = v.strictObject({
  success: v.literal(false),
  error: v.strictObject({
    code: whatIs(Object.keys(ERROR_CODES) as ErrorCode[], 'For programs.'),
    message: text('For people.'),
    details: v.pipe(
      v.array(v.strictObject({ parameter: v.string(), message: v.string() })),
      v.description('Everything that is wrong with the request, parameter by parameter; may be empty.'),
    ),
  }),
  requestId: text('Names this request in the service’s log; also the header X-Request-Id.'),
})

/** What a handler has thrown as a response; anything that is no ApiError is a 500 without particulars. */
export function errorResponse(c: Context<Env>, thrown: unknown): Response {
  const observed = c.get('observed')
  const error = toApiError(thrown)
  if (error.status >= 500) {
    // A caller that has hung up, or is turned away by a limit, is no failure, and under overload a line for each would
    // be one load more.
    const expected = c.req.raw.signal.aborted || (error.status === 503 && error.cause === undefined)
    observed.failure = {
      level: expected ? 'debug' : error.status === 503 ? 'warn' : 'error',
      cause: error.cause ?? thrown,
      ...(error.status === 500 && thrown instanceof Error && thrown.stack ? { stack: thrown.stack } : {}),
    }
  }
  return c.json(errorBody(error, observed.id), error.status, error.headers)
}

export const notFound = () => new ApiError(404, 'not_found', 'Not found')

function toApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown
  if (thrown instanceof HTTPException && thrown.status < 500)
    return new ApiError(400, 'bad_request', 'The request cannot be read.')
  // Of maintenance: failures of queries are ApiErrors already.
  if (isStoreFailure(thrown)) return unavailable('The analytics store is out of reach.', 1, thrown)
  return new ApiError(500, 'internal', 'Something went wrong on our side.', { cause: thrown })
}
