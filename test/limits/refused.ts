import { ApiError } from '../../src/domain/errors.ts'

/** What a refused caller is told. */
export async function refused(what: Promise<unknown> | (() => unknown)) {
  try {
    await (typeof what === 'function' ? what() : what)
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    return { status: error.status, code: error.code, message: error.message, headers: error.headers }
  }
  throw new Error('nothing was refused')
}
