/** What a GET endpoint is: one definition that the router, OpenAPI, /docs, MCP and the typed client read. */
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

/** One GET endpoint: its address, its words, its parameters, its response and what finds that. */
export interface Endpoint<
  E extends v.ObjectEntries = v.ObjectEntries,
  Path extends string = string,
  Response extends v.GenericSchema = v.GenericSchema,
> {
  readonly path: Path
  /** Name of the operation in OpenAPI. */
  readonly operationId: string
  /** Title in the reference and of the MCP tool. */
  readonly summary: string
  /** For people and agents alike. */
  readonly description: string
  /** Added for agents alone. */
  readonly agentHint: string
  readonly parameters: E
  /** The whole JSON body, envelope included. Tests hold real answers against it; production does not check. */
  readonly response: Response
  /** @throws ApiError 400 for parameters that cannot be used together, 503 where ClickHouse is out of reach */
  handle(question: Question<E>): Promise<Answer>
  /** Where the answer may be larger than memory: whether this one is to be streamed, and what is then sent. */
  readonly export?: {
    /** Added to the description in the reference; agents do not read files. */
    readonly description: string
    /** One row of a file. */
    readonly row: v.GenericSchema
    wanted(asked: Pick<Question<E>, 'parameters' | 'accept'>): boolean
    /** Resolves when the first rows are there, so that a store that is out of reach is a 503 and not a broken file. */
    open(question: Question<E>): Promise<Export>
  }
}

/** Infers the types of a definition. */
export const endpoint = <E extends v.ObjectEntries, const Path extends string, Response extends v.GenericSchema>(
  definition: Endpoint<E, Path, Response>,
): Endpoint<E, Path, Response> => definition
