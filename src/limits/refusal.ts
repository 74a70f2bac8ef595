import { ApiError } from '../domain/errors.ts'

/** What a tenant that asks too much is told (429), and every tenant while the service is too busy (503). */
export const refusal = (status: 429 | 503, message: string, headers: Record<string, string> = {}) =>
  new ApiError(status, status === 429 ? 'too_many_requests' : 'unavailable', message, {
    headers: { ...headers, 'Retry-After': '1' },
  })
