/** What handlers and middleware of one request share. */
import type { Principal } from '../auth/principal.ts'
import type { RequestVariables } from '../observe/request-context.ts'

export interface Env {
  Variables: RequestVariables & {
    /** Of the verified token; set by `authenticate`. */
    readonly principal: Principal
  }
  /** From @hono/node-server; undefined where the app is called directly. */
  Bindings: { outgoing?: { destroy(): void } }
}
