/**
 * Traces for OpenTelemetry: a span for each request, for each query that it or a group of events sends, and for each group
 * that is stored. Nothing of it is loaded where no endpoint is configured. Spans carry names of the code, counts and the
 * request's id; never a company, a user, an address as it was asked for, or SQL.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Context, SpanContext } from '@opentelemetry/api'
import type { FinishedQuery } from '../clickhouse/query-log.ts'
import type { Config } from '../config.ts'
import type { Group } from '../ingest/batch-writer.ts'
import type { Receipt } from '../ingest/deduplicate.ts'
import type { Log } from '../log.ts'
import { VERSION } from '../version.ts'
import type { Sent } from './request-context.ts'

export interface RequestSpan {
  readonly traceId: string
  /** Runs the request; what it asks meanwhile is its child. */
  run<T>(work: () => Promise<T>): Promise<T>
  /** @param answer.route the pattern, which takes the address's place in the span */
  end(answer: { route: string; status: number; requestId: string; sent?: Sent }): void
}

export interface Tracing {
  /** Begins a request's span, within the caller's trace where `traceparent` names one (W3C Trace Context). */
  startRequest(method: string, headers: Headers): RequestSpan
  /** A query that is over becomes a child of what is under way; what nobody has asked for gets no span. */
  query(query: FinishedQuery): void
  /** What is under way, to be given to `group` later. */
  origin(): unknown
  /** The span of a group is in the trace of its first batch, and linked to those of the others. */
  group(group: Group, work: () => Promise<readonly Receipt[] | undefined>): Promise<readonly Receipt[] | undefined>
  /** Sends what is left, for FLUSH_MS at most. */
  close(): Promise<void>
}

/** How long a collector may keep the service from ending. */
const FLUSH_MS = 2_000
const COMPLAINTS_MS = 60_000

const ignore = () => {}

/** Undefined where the settings name no endpoint. The SDK's own variables (`OTEL_…`) hold beside them. */
export async function startTracing(config: Config, log: Log): Promise<Tracing | undefined> {
  const base = config.OTEL_EXPORTER_OTLP_ENDPOINT
  const url = config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ?? (base && `${base.replace(/\/$/, '')}/v1/traces`)
  if (!url) return undefined
  const [api, { OTLPTraceExporter }, resources, sdk] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/sdk-trace-base'),
  ])
  const { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, trace } = api
  // A collector that is away must show somewhere, but not with every batch.
  let complainedAt = -Infinity
  const complain = (text: string) => {
    if (performance.now() - complainedAt < COMPLAINTS_MS) return
    complainedAt = performance.now()
    // The exporter gives an error as JSON, with its stack.
    const error = /"message":"((?:[^"\\]|\\.)*)"/.exec(text)?.[1] ?? text.slice(0, 300)
    log('warn', 'traces cannot be sent', { error })
  }
  api.diag.setLogger(
    { error: complain, warn: complain, info: ignore, debug: ignore, verbose: ignore },
    {
      logLevel: api.DiagLogLevel.WARN,
      suppressOverrideMessage: true,
    },
  )
  const provider = new sdk.BasicTracerProvider({
    resource: resources
      .resourceFromAttributes({
        'service.name': 'agnt-analytics',
        'service.version': VERSION,
        'service.instance.id': randomUUID(),
      })
      .merge(resources.detectResources({ detectors: [resources.envDetector] })),
    spanProcessors: [new sdk.BatchSpanProcessor(new OTLPTraceExporter({ url }))],
  })
  const tracer = provider.getTracer('agnt-analytics', VERSION)
  /** What runs within a request or a group, however many steps away. It costs every promise a little: hence only here. */
  const underWay = new AsyncLocalStorage<Context>()

  return {
    startRequest(method, headers) {
      // A tool call's request is made within the request of the agent.
      const parent = remoteContext(headers) ?? underWay.getStore() ?? ROOT_CONTEXT
      const span = tracer.startSpan(method, { kind: SpanKind.SERVER, attributes: { 'http.request.method': method } }, parent)
      const context = trace.setSpan(parent, span)
      return {
        traceId: span.spanContext().traceId,
        run: (work) => underWay.run(context, work),
        end({ route, status, requestId, sent }) {
          span.updateName(`${method} ${route}`)
          span.setAttributes({ 'http.route': route, 'http.response.status_code': status, 'agnt.request_id': requestId })
          if (sent) span.setAttributes({ 'agnt.export': sent.outcome, 'http.response.body.size': sent.bytes })
          if (status >= 500 || sent?.outcome === 'failed') {
            span.setAttribute('error.type', status >= 500 ? String(status) : 'broken_off')
            span.setStatus({ code: SpanStatusCode.ERROR })
          }
          span.end()
        },
      }
    },

    query({ name, id, startedAt, ms, outcome, rows, bytes }) {
      const context = underWay.getStore()
      if (!context) return
      const attributes = {
        'db.system.name': 'clickhouse',
        'db.query.summary': name,
        'agnt.query_id': id,
        'agnt.read_rows': rows,
        'agnt.read_bytes': bytes,
      }
      const span = tracer.startSpan(name, { kind: SpanKind.CLIENT, startTime: startedAt, attributes }, context)
      if (outcome !== 'ok') span.setAttribute('error.type', outcome)
      if (outcome === 'failed') span.setStatus({ code: SpanStatusCode.ERROR })
      span.end(startedAt + ms)
    },

    origin: () => underWay.getStore(),

    async group({ events, origins }, work) {
      const contexts = origins.filter((origin) => origin !== undefined) as Context[]
      const [parent = ROOT_CONTEXT, ...others] = contexts
      const links = others.map((context) => ({ context: trace.getSpanContext(context) as SpanContext }))
      const attributes = { 'agnt.batches': origins.length, 'agnt.events': events }
      const span = tracer.startSpan('store events', { kind: SpanKind.INTERNAL, links, attributes }, parent)
      try {
        const receipts = await underWay.run(trace.setSpan(parent, span), work)
        if (!receipts) span.setStatus({ code: SpanStatusCode.ERROR })
        return receipts
      } finally {
        span.end()
      }
    },

    async close() {
      const sent = provider.shutdown().catch((error: unknown) => complain(String(error)))
      if (await Promise.race([sent, sleep(FLUSH_MS, 'late' as const, { ref: false })])) complain('the last ones took too long')
      api.diag.disable()
    },
  }

  function remoteContext(headers: Headers): Context | undefined {
    const [, version, traceId = '', spanId = '', flags = ''] =
      /^([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(-|$)/.exec(headers.get('traceparent') ?? '') ?? []
    const context = { traceId, spanId, traceFlags: parseInt(flags, 16) & TraceFlags.SAMPLED, isRemote: true }
    if (version === undefined || version === 'ff' || !api.isSpanContextValid(context)) return undefined
    const state = headers.get('tracestate')
    return trace.setSpanContext(ROOT_CONTEXT, state ? { ...context, traceState: api.createTraceState(state) } : context)
  }
}
