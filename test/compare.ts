/** Puts one question to the service and to the reference, and wants the same whole answer of both. */
import { isDeepStrictEqual } from 'node:util'
import { expect } from 'vitest'
import type { Asked, Reference } from './reference.ts'
import type { Params, TestService } from './support.ts'

export const PATHS = ['overview', 'metrics', 'rolling', 'events', 'assistants', 'users/top', 'snapshots'] as const
export type Path = (typeof PATHS)[number]

/** A whole answer; the cursor of `events` is told apart only by whether there is one. */
export function answerOf(reference: Reference, path: Path, asked: Asked) {
  if (path === 'events') {
    const { data, pagination } = reference.events(asked)
    const more = pagination.skip + pagination.limit < pagination.total
    return { success: true, data, pagination: { ...pagination, nextCursor: more ? 'another page' : null } }
  }
  const data = {
    overview: () => reference.overview(asked),
    metrics: () => reference.metrics(asked),
    rolling: () => reference.rolling(asked),
    assistants: () => reference.assistants(asked),
    'users/top': () => reference.usersTop(asked),
    snapshots: () => reference.snapshots(asked),
  }[path]()
  return { success: true, data }
}

export async function compare(service: TestService, reference: Reference, path: Path, asked: Asked, hint = '') {
  const answer = await service.whole(path, asked as Params)
  if (answer.pagination?.nextCursor) answer.pagination.nextCursor = 'another page'
  same(answer, answerOf(reference, path, asked), `${path} ${JSON.stringify(asked)} ${hint}`)
}

/** Deep equality that, of two long lists, shows only the first entry that differs. */
export function same(actual: unknown, expected: unknown, what: string): void {
  if (isDeepStrictEqual(actual, expected)) return
  const [found, wanted] = [listIn(actual), listIn(expected)]
  const at = found && wanted ? wanted.findIndex((entry, index) => !isDeepStrictEqual(entry, found[index])) : -1
  if (found && wanted && (at >= 0 || found.length !== wanted.length)) {
    expect({ what, at, entries: found.length, entry: found[at] }).toEqual({
      what,
      at,
      entries: wanted.length,
      entry: wanted[at],
    })
  }
  expect({ what, answer: actual }).toEqual({ what, answer: expected })
  throw new Error(`${what}: the answers differ`)
}

const listIn = (answer: unknown): unknown[] | undefined => {
  const list = (answer as { data?: unknown } | null)?.data ?? answer
  return Array.isArray(list) ? list : undefined
}
