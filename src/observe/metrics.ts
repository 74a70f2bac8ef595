/**
 * What Prometheus scrapes. No label names a company, a user or an assistant: figures are totals over all of them, and every
 * label has few values, known from the code. A new metric is one entry: in MEASURED where something is told as it happens,
 * in READ where something that counts already is asked when a scrape comes.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, type Metric, Registry } from 'prom-client'
import type { AnswerCache } from '../analytics/result-cache.ts'
import type { FinishedQuery } from '../clickhouse/query-log.ts'
import type { Group, Writer } from '../ingest/batch-writer.ts'
import type { Receipt } from '../ingest/deduplicate.ts'
import type { Budget } from '../limits/byte-budget.ts'
import type { Limits } from '../limits/index.ts'
import type { SelfCheck } from '../maintenance/self-check.ts'
import { VERSION } from '../version.ts'

/** Seconds. A kept answer takes 0.1 ms, `SELECT 1` 2 to 5 ms, a question at most QUERY_TIMEOUT_SECONDS. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** Told as it happens. */
const MEASURED = (registers: Registry[]) => ({
  requests: new Histogram({
    name: 'agnt_http_request_duration_seconds',
    help: 'Time until an answer is ready to be sent (of an export: its first rows), by route pattern; status 499 where the caller has left.',
    labelNames: ['route', 'method', 'status'],
    buckets: SECONDS,
    registers,
  }),
  exports: new Histogram({
    name: 'agnt_export_duration_seconds',
    help: 'Time until an export was sent to its end (outcome ok), its caller left (cancelled) or it broke off (failed); its pace is its reader’s.',
    labelNames: ['outcome'],
    buckets: [0.1, 1, 10, 60, 300, 1_800],
    registers,
  }),
  exportBytes: new Counter({ name: 'agnt_export_bytes_total', help: 'Bytes of exports handed to their callers.', registers }),
  queries: new Histogram({
    name: 'agnt_clickhouse_query_duration_seconds',
    help: 'Time of a query until its answer was read, by its name and outcome (ok, failed, cancelled).',
    labelNames: ['query', 'outcome'],
    buckets: SECONDS,
    registers,
  }),
  rows: new Counter({
    name: 'agnt_clickhouse_read_rows_total',
    help: 'Rows that ClickHouse read for queries, of exports those before the first byte only.',
    labelNames: ['query'],
    registers,
  }),
  bytes: new Counter({
    name: 'agnt_clickhouse_read_bytes_total',
    help: 'Bytes that ClickHouse read for queries, of exports those before the first byte only.',
    labelNames: ['query'],
    registers,
  }),
  events: new Counter({
    name: 'agnt_events_total',
    help: 'Events received: accepted (stored), duplicate, rejected.',
    labelNames: ['outcome'],
    registers,
  }),
  groups: new Histogram({
    name: 'agnt_ingest_group_duration_seconds',
    help: 'Time to check, journal and store a group of batches, by outcome (ok, failed).',
    labelNames: ['outcome'],
    buckets: SECONDS,
    registers,
  }),
  groupEvents: new Histogram({
    name: 'agnt_ingest_group_events',
    help: 'Events of a group.',
    buckets: [1, 10, 100, 1_000, 5_000, 10_000, 25_000, 50_000],
    registers,
  }),
  waiting: new Histogram({
    name: 'agnt_ingest_queue_duration_seconds',
    help: 'Time a batch waited in the queue.',
    buckets: SECONDS,
    registers,
  }),
  keyFetchFailures: new Counter({
    name: 'agnt_key_set_fetch_failures_total',
    help: 'Failed fetches of JWT_JWKS_URL.',
    registers,
  }),
  embeddedRestarts: new Counter({
    name: 'agnt_embedded_restarts_total',
    help: 'How often the embedded ClickHouse ended unasked or was restarted.',
    registers,
  }),
})

/** What counts or knows it already. */
export interface Sources {
  readonly cache: AnswerCache
  readonly limits: Limits
  readonly writer: Writer
  readonly memory: Budget
  readonly selfCheck: SelfCheck
  readonly draining: () => boolean
}

type Value = number | Record<string, number>
interface Read {
  readonly name: string
  readonly help: string
  readonly kind: 'counter' | 'gauge'
  /** The label whose values are the keys of what is read. */
  readonly label?: string
  read(of: Sources): Value
}

/** Asked at each scrape. */
const READ: readonly Read[] = [
  {
    name: 'agnt_ingest_queue_events',
    help: 'Events that wait to be stored.',
    kind: 'gauge',
    read: ({ writer }) => writer.queued,
  },
  {
    name: 'agnt_ingest_reserved_bytes',
    help: 'Memory reserved for request bodies, of INGEST_QUEUE_MB.',
    kind: 'gauge',
    read: ({ memory }) => memory.taken,
  },
  {
    name: 'agnt_ingest_healthy',
    help: '0 while events cannot be stored.',
    kind: 'gauge',
    read: ({ writer }) => Number(writer.healthy),
  },
  {
    name: 'agnt_id_filter_complete',
    help: '0 while the ids of earlier runs are being read and each new id is looked up.',
    kind: 'gauge',
    read: ({ writer }) => Number(writer.filterComplete),
  },
  {
    name: 'agnt_cache_answers_total',
    help: 'Answers by where they came from: hit (kept), shared (asked for by somebody else at the same time), miss.',
    kind: 'counter',
    label: 'result',
    read: ({ cache }) => ({ hit: cache.hits, shared: cache.shared, miss: cache.misses }),
  },
  { name: 'agnt_cache_entries', help: 'Answers kept.', kind: 'gauge', read: ({ cache }) => cache.size.entries },
  {
    name: 'agnt_cache_bytes',
    help: 'Memory of the answers kept, by estimate, of CACHE_MB.',
    kind: 'gauge',
    read: ({ cache }) => cache.size.bytes,
  },
  {
    name: 'agnt_questions',
    help: 'Questions that have a place (running) or wait for one (waiting).',
    kind: 'gauge',
    label: 'state',
    read: ({
      limits: {
        slots: { load },
      },
    }) => ({ running: load.running, waiting: load.waiting }),
  },
  { name: 'agnt_exports', help: 'Exports that are being sent.', kind: 'gauge', read: ({ limits }) => limits.exports.total },
  {
    name: 'agnt_refused_total',
    help: 'Requests turned away: rate (RATE_LIMIT_PER_SECOND), tenant (its questions), service (all questions), exports, ingest (INGEST_QUEUE_MB).',
    kind: 'counter',
    label: 'reason',
    read: ({ limits, memory }) => ({
      rate: limits.rate.refused,
      ...limits.slots.refused,
      exports: limits.exports.refused,
      ingest: memory.refused,
    }),
  },
  {
    name: 'agnt_drift',
    help: 'Days in which rollups differ from the log, by the last self-check.',
    kind: 'gauge',
    read: ({ selfCheck }) => selfCheck.last?.drift ?? 0,
  },
  {
    name: 'agnt_self_check_timestamp_seconds',
    help: 'When the last self-check was done, since 1970; 0 before the first.',
    kind: 'gauge',
    read: ({ selfCheck }) => (selfCheck.last?.at ?? 0) / 1_000,
  },
  {
    name: 'agnt_self_check_failures_total',
    help: 'Self-checks that could not be done.',
    kind: 'counter',
    read: ({ selfCheck }) => selfCheck.failures,
  },
  {
    name: 'agnt_draining',
    help: '1 once the service was told to stop.',
    kind: 'gauge',
    read: ({ draining }) => Number(draining()),
  },
  {
    name: 'agnt_build_info',
    help: 'Always 1.',
    kind: 'gauge',
    label: 'version',
    read: () => ({ [VERSION]: 1 }),
  },
]

let ofProcess: Registry | undefined

/** Of the process, once: each collection begins to observe the event loop and the garbage collector, and never ends. */
function processMetrics(): Registry {
  if (!ofProcess) collectDefaultMetrics({ register: (ofProcess = new Registry()) })
  return ofProcess as Registry
}

export class Metrics {
  readonly registry = new Registry()
  readonly #measured = MEASURED([this.registry])
  /** prom-client hashes the labels of each observation; this is looked up in a third of the time. */
  readonly #requests = new Map<string, Histogram.Internal<'route' | 'method' | 'status'>>()

  constructor() {
    for (const metric of processMetrics().getMetricsAsArray()) this.registry.registerMetric(metric as unknown as Metric)
    // What has not happened yet is 0 and not absent: an alert on an increase sees the first one.
    for (const outcome of ['accepted', 'duplicate', 'rejected']) this.#measured.events.inc({ outcome }, 0)
    for (const outcome of ['ok', 'failed']) this.#measured.groups.zero({ outcome })
  }

  /** Registers what is asked at each scrape. Call it once. */
  expose(sources: Sources): void {
    for (const { name, help, kind, label, read } of READ) {
      const shared = { name, help, labelNames: label ? [label] : [], registers: [] }
      const each = (set: (labels: Record<string, string>, value: number) => void) => {
        const value = read(sources)
        if (typeof value === 'number') return set({}, value)
        for (const [key, one] of Object.entries(value)) set({ [label as string]: key }, one)
      }
      this.registry.registerMetric(
        kind === 'gauge'
          ? new Gauge({
              ...shared,
              collect() {
                each((labels, value) => this.set(labels, value))
              },
            })
          : new Counter({
              ...shared,
              collect() {
                this.reset()
                each((labels, value) => this.inc(labels, value))
              },
            }),
      )
    }
  }

  /** @param route a pattern of the code, never an address as it was asked for */
  request(route: string, method: string, status: number, ms: number): void {
    const key = `${status} ${method} ${route}`
    let histogram = this.#requests.get(key)
    if (!histogram) {
      histogram = this.#measured.requests.labels({ route, method, status })
      this.#requests.set(key, histogram)
    }
    histogram.observe(ms / 1_000)
  }

  exported(outcome: string, bytes: number, ms: number): void {
    this.#measured.exports.observe({ outcome }, ms / 1_000)
    this.#measured.exportBytes.inc(bytes)
  }

  readonly query = ({ name: query, outcome, ms, rows, bytes }: FinishedQuery): void => {
    this.#measured.queries.observe({ query, outcome }, ms / 1_000)
    this.#measured.rows.inc({ query }, rows)
    this.#measured.bytes.inc({ query }, bytes)
  }

  /** @param receipts what became of its batches; undefined where it could not be stored */
  group({ events, waitedMs }: Group, receipts: readonly Receipt[] | undefined, ms: number): void {
    const { groups, groupEvents, waiting, events: counted } = this.#measured
    for (const waited of waitedMs) waiting.observe(waited / 1_000)
    groups.observe({ outcome: receipts ? 'ok' : 'failed' }, ms / 1_000)
    groupEvents.observe(events)
    for (const { accepted, duplicates, rejected } of receipts ?? []) {
      counted.inc({ outcome: 'accepted' }, accepted)
      counted.inc({ outcome: 'duplicate' }, duplicates)
      counted.inc({ outcome: 'rejected' }, rejected.length)
    }
  }

  keyFetchFailed(): void {
    this.#measured.keyFetchFailures.inc()
  }

  embeddedEnded(): void {
    this.#measured.embeddedRestarts.inc()
  }
}
