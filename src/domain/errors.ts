/** One complaint about one parameter, as it appears in `error.details`. */
export interface Complaint {
  parameter: string
  message: string
}

export type ErrorStatus = 400 | 401 | 403 | 404 | 405 | 406 | 408 | 409 | 413 | 415 | 417 | 422 | 429 | 431 | 500 | 503

/**
 * An answer that is not a 2xx. Everything in it is safe to show to the caller: `message` and `details` never hold
 * SQL, stacks or the names of other tenants.
 */
export class ApiError extends Error {
  override name = 'ApiError'
  readonly status: ErrorStatus
  readonly code: string
  readonly details: Complaint[]
  readonly headers: Record<string, string>

  constructor(
    status: ErrorStatus,
    code: string,
    message: string,
    options: { details?: Complaint[]; headers?: Record<string, string>; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause })
    this.status = status
    this.code = code
    this.details = options.details ?? []
    this.headers = options.headers ?? {}
  }
}

/** 400 that names every bad parameter at once. */
export const badRequest = (details: Complaint[], message = 'Some parameters cannot be used.') =>
  new ApiError(400, 'bad_request', message, { details })

/** 503 that asks the caller to come back; `seconds` fills `Retry-After`. */
export const unavailable = (message: string, seconds = 1, cause?: unknown) =>
  new ApiError(503, 'unavailable', message, { headers: { 'Retry-After': String(seconds) }, cause })

/** The JSON body of an error answer. */
export const errorBody = (error: ApiError, requestId: string) => ({
  success: false as const,
  error: { code: error.code, message: error.message, details: error.details },
  requestId,
})

/** What `error.code` says, and of which status. */
export const ERROR_CODES = {
  bad_request: 400,
  too_expensive: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  not_acceptable: 406,
  too_slow: 408,
  in_progress: 409,
  backup_exists: 409,
  too_large: 413,
  too_many_events: 413,
  unsupported_media_type: 415,
  expectation_failed: 417,
  key_reused: 422,
  too_many_requests: 429,
  headers_too_large: 431,
  internal: 500,
  unavailable: 503,
} as const
export type ErrorCode = keyof typeof ERROR_CODES
