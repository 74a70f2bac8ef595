/** Real traffic to test with: the whole corpus where it lies beside the repository, else the excerpt in test/data. */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import type { SentEvent } from './reference.ts'

const CORPUS = fileURLToPath(new URL('../../shared/data/ubuntu-irc.ndjson.gz', import.meta.url))
const EXCERPT = fileURLToPath(new URL('data/ubuntu-irc-excerpt.ndjson.gz', import.meta.url))

const read = (path: string): SentEvent[] =>
  gunzipSync(readFileSync(path))
    .toString()
    .trimEnd()
    .split('\n')
    .map((line) => dressed(JSON.parse(line) as SentEvent))

export const excerpt = () => read(EXCERPT)

export function traffic(): { name: string; events: SentEvent[] } {
  return existsSync(CORPUS)
    ? { name: 'the whole corpus', events: read(CORPUS) }
    : { name: 'the excerpt in test/data', events: read(EXCERPT) }
}

/** The corpus has no costs, tokens, models, traces or metadata: a part of its events gets some, always the same. */
function dressed(event: SentEvent): SentEvent {
  const n = Number.parseInt(event.id.slice(0, 8), 16)
  return {
    ...event,
    ...(n % 3 === 0 ? { cost: (n % 97_000_003) / 1e9, inputTokens: n % 4_001, outputTokens: n % 907 } : {}),
    ...(n % 5 === 0 ? { model: `model-${n % 4}` } : {}),
    ...(n % 7 === 0 ? { traceId: `trace ${n}` } : {}),
    ...(n % 11 === 0 ? { metadata: { n, tags: ['a', 'ü'], nested: { deep: null } } } : {}),
  }
}
