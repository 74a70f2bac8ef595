/** Takes traces as an OpenTelemetry collector does: OTLP over HTTP, as JSON. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface TakenSpan {
  name: string
  traceId: string
  spanId: string
  parentSpanId?: string
  /** 1 internal, 2 server, 3 client. */
  kind: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: Record<string, string | number>
  links: Array<{ traceId: string; spanId: string }>
  /** 2 where it failed. */
  status: number
}

interface Attribute {
  key: string
  value: { stringValue?: string; intValue?: number | string; doubleValue?: number }
}
interface OtlpSpan extends Omit<TakenSpan, 'attributes' | 'links' | 'status'> {
  attributes: Attribute[]
  links?: Array<{ traceId: string; spanId: string }>
  status?: { code?: number }
}
interface OtlpTraces {
  resourceSpans: Array<{ resource: { attributes: Attribute[] }; scopeSpans: Array<{ spans: OtlpSpan[] }> }>
}

const attributesOf = (list: Attribute[]) =>
  Object.fromEntries(list.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue ?? value.doubleValue)]))

/** @param options.silent takes what is sent and never answers */
export async function startCollector({ silent = false } = {}) {
  const spans: TakenSpan[] = []
  const paths = new Set<string>()
  /** Everything that was sent, as it was. */
  let raw = ''
  let resource: Record<string, string | number> = {}
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      if (silent) return
      paths.add(`${request.method} ${request.url}`)
      const text = Buffer.concat(chunks).toString()
      raw += text
      for (const { resource: of, scopeSpans } of (JSON.parse(text) as OtlpTraces).resourceSpans) {
        resource = attributesOf(of.attributes)
        for (const span of scopeSpans.flatMap((scope) => scope.spans)) {
          spans.push({
            ...span,
            attributes: attributesOf(span.attributes),
            links: span.links ?? [],
            status: span.status?.code ?? 0,
          })
        }
      }
      response.setHeader('Content-Type', 'application/json')
      response.end('{}')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    paths,
    raw: () => raw,
    resource: () => resource,
    close() {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(resolve))
    },
  }
}
