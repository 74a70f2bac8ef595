/** What is known of a request under way, and what became of its answer. */
import type { FinishedQuery } from '../clickhouse/query-log.ts'
import type { Level } from '../log.ts'

/** A request under way; those who handle it write down what they know. */
export interface Observed {
  readonly id: string
  /** Of the token, once it is verified. */
  tenant?: string
  /** Its own; who waits for an answer that somebody else asked for has none. */
  readonly queries: FinishedQuery[]
  /** Of an answer that is no success: how loud it is to be told, and of what. */
  failure?: { level: Level; cause: unknown; stack?: string }
  /** Of an answer that is still being sent when it is returned. */
  sending?: Promise<Sent>
}

/** What became of an export. */
export interface Sent {
  readonly outcome: 'ok' | 'failed' | 'cancelled'
  readonly bytes: number
}

export interface RequestVariables {
  readonly requestId: string
  readonly observed: Observed
}
