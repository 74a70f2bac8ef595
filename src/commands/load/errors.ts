/** Why a load cannot begin or cannot go on. */

export class UsageError extends Error {}

/** The load cannot go on; `message` says why. */
export class LoadError extends Error {}

/** The code of a system or network error, or what else there is to say. */
export function codeOf(error: unknown): string {
  const { cause, code, message } = error as { cause?: unknown; code?: unknown; message?: unknown }
  if (typeof code === 'string') return code
  return cause instanceof Error ? codeOf(cause) : String(message ?? error)
}
