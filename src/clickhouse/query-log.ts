/** What became of each query: for logs, metrics and traces. */
import { randomUUID } from 'node:crypto'
import type { ClickHouseClient } from '@clickhouse/client'

/** What became of a query: for logs, metrics and traces. */
export interface FinishedQuery {
  /** Under which the code asks: one of a fixed list, never anything of a caller's. */
  readonly name: string
  /** As in ClickHouse's system.query_log. */
  readonly id: string
  /** Epoch milliseconds. */
  readonly startedAt: number
  /** Until the answer was read; of a stream, as long as its reader took. */
  readonly ms: number
  /** `cancelled` where nobody waited for it any more. */
  readonly outcome: 'ok' | 'failed' | 'cancelled'
  /**
   * Rows and bytes read when ClickHouse sent its first byte. That is all where it groups or sorts, or answers little, as
   * questions do; of a stream only a part (26.7: 1.2 of 2 million rows, an export by an index even less), and 0 where it
   * failed.
   */
  readonly rows: number
  readonly bytes: number
}

export type Headers = Record<string, unknown>

export const startQuery = (name: string, id: string) => ({ name, id, startedAt: Date.now(), since: performance.now() })

export function finished(
  { name, id, startedAt, since }: ReturnType<typeof startQuery>,
  outcome: FinishedQuery['outcome'],
  headers: Headers = {},
): FinishedQuery {
  const summary = headers['x-clickhouse-summary']
  const { read_rows, read_bytes } = (typeof summary === 'string' ? JSON.parse(summary) : {}) as Record<string, string>
  return {
    name,
    id,
    startedAt,
    ms: performance.now() - since,
    outcome,
    rows: Number(read_rows ?? 0),
    bytes: Number(read_bytes ?? 0),
  }
}

/**
 * Tells of everything that a client sends, whoever sends it through it: inserts, upkeep. A query is called what its id
 * begins with, and by the client's role and the kind of call where it has no id of that form.
 */
export function watched(client: ClickHouseClient, role: string, onQuery: (query: FinishedQuery) => void): ClickHouseClient {
  for (const method of ['query', 'command', 'exec', 'insert'] as const) {
    type Send = (params: { query_id?: string }) => Promise<{ query_id: string; response_headers?: Headers }>
    const send = client[method].bind(client) as unknown as Send
    const watchedSend: Send = async (params) => {
      const id = params.query_id ?? `${role}_${method}-${randomUUID()}`
      const query = startQuery(NAME_OF_ID.exec(id)?.[1] ?? `${role}_${method}`, id)
      let headers: Headers | undefined
      try {
        const result = await send({ ...params, query_id: id })
        headers = result.response_headers ?? {}
        return result
      } finally {
        onQuery(finished(query, headers ? 'ok' : 'failed', headers))
      }
    }
    Object.assign(client, { [method]: watchedSend })
  }
  return client
}

/** A name, for some the database (writer-lease.ts looks for those), and a UUID. */
const NAME_OF_ID = /^(\w+)(?::\w+)?-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
