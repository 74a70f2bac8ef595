/** DELETE /analytics/users/{user}: a person leaves (src/maintenance/erasure.ts). */
import type { Handler } from 'hono'
import * as v from 'valibot'
import { readId, readParameters } from '../../analytics/parameters.ts'
import { requireAllAssistants } from '../../auth/principal.ts'
import type { WriteLock } from '../../clickhouse/writer-lease.ts'
import { ApiError } from '../../domain/errors.ts'
import { answerOf, count, instant, orNull, text } from '../../domain/response-fields.ts'
import type { Removals } from '../../maintenance/erasure.ts'
import type { Env } from '../environment.ts'

const PREFIX = '/analytics/users/'

export const Removal = v.strictObject({
  receiptId: text('Names this removal.'),
  events: count('Events that were of the user, and are of nobody now.'),
  firstEventAt: orNull(instant('UTC.'), 'When the first of them happened; null where there were none.'),
  lastEventAt: orNull(instant('UTC.'), 'When the last of them happened.'),
  removedAt: instant('When nothing was left of the user.'),
})
export const deleteUserResponse = answerOf(Removal)

/** @param deps.exclusive runs the steps that must not overlap with a write */
export const deleteUser =
  ({ removals, exclusive }: { removals: Removals; exclusive: WriteLock }): Handler<Env> =>
  async (c) => {
    const principal = c.get('principal')
    requireAllAssistants(principal)
    // Not `c.req.param`, which would decode what `readId` has to check.
    const { pathname, search } = new URL(c.req.url)
    readParameters({}, search)
    const user = readId('user', pathname.slice(PREFIX.length))
    const receipt = await removals.remove(principal.tenant, user, exclusive)
    if (!receipt) throw new ApiError(404, 'not_found', 'Nothing is stored of a user with this id.')
    return c.json({ success: true, data: receipt })
  }
