import type * as v from 'valibot'
import type { Store } from '../clickhouse/store.ts'
import type { Range } from '../domain/time-range.ts'
import type { Names } from '../ids/dictionary.ts'
import type { Scope } from '../rollups/scope.ts'
import type { Instant } from '../time/instant.ts'
import type { readParameters } from './parameters.ts'
import type { UserRanks } from './user-ranks.ts'

/** Everything an endpoint needs to answer one request. */
export interface Question<E extends v.ObjectEntries> {
  readonly store: Store
  readonly names: Names
  readonly ranks: UserRanks
  /** Whose figures, and of which assistants and users; already narrowed to what the token may see. */
  readonly scope: Scope
  /** Read once per request. */
  readonly now: Instant
  readonly parameters: ReturnType<typeof readParameters<E>>
  /** The Accept header, for the one endpoint that has several formats. */
  readonly accept: string | undefined
}

/** What goes into the envelope beside `success`, and the range of events that it depends on. */
export interface Answer {
  readonly data: unknown
  readonly pagination?: unknown
  readonly covers: Range
}

/** An answer that is sent while it is made. */
export interface Export {
  readonly headers: Record<string, string>
  readonly chunks: AsyncIterator<Uint8Array>
}

/** One GET endpoint: its parameters and its answer. */
export interface Endpoint<E extends v.ObjectEntries> {
  readonly parameters: E
  answer(question: Question<E>): Promise<Answer>
  /** Where the answer may be larger than memory: whether this one is to be streamed, and what is then sent. */
  readonly export?: {
    wanted(asked: Pick<Question<E>, 'parameters' | 'accept'>): boolean
    open(question: Question<E>): Promise<Export>
  }
}

export const endpoint = <E extends v.ObjectEntries>(definition: Endpoint<E>): Endpoint<E> => definition
