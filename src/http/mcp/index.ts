/**
 * POST /mcp: the GET endpoints as tools of the Model Context Protocol, so that an agent can ask whether something broke.
 *
 * Each call of a tool is a request to the endpoint by the same token, so tokens, limits, kept answers and errors are those
 * of the API and are written nowhere else. Nothing is kept between requests but the calls under way, for cancelling.
 */
import { randomUUID } from 'node:crypto'
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js'
import type { CallToolResult, GetPromptResult, Tool } from '@modelcontextprotocol/sdk/types.js'
import type { Context, Handler } from 'hono'
import type { StatusCode } from 'hono/utils/http-status'
import { createMiddleware } from 'hono/factory'
import type { Endpoint } from '../../analytics/endpoint.ts'
import { ENDPOINTS } from '../../analytics/endpoints/index.ts'
import { ApiError, type Complaint } from '../../domain/errors.ts'
import { VERSION } from '../../version.ts'
import type { Env } from '../environment.ts'
import { parametersOf } from '../reference/document.ts'

/** Sends a request to the service itself. */
type Send = (url: string, init: RequestInit) => Response | Promise<Response>

/** Calls of tools are short; so is a batch of a hundred of them. */
const MAX_BODY_BYTES = 262_144
/** About as much as a model can read; a longer answer is refused with the advice to ask for less. */
const MAX_ANSWER_BYTES = 262_144

const INSTRUCTIONS =
  'Analytics of a fleet of AI assistants. To find out whether something broke, call regressions; to see why, call events ' +
  'with the arguments in the evidence of a finding. Counts are incomingMessages, outgoingMessages, tasksInitiated, ' +
  'tasksCompleted and their total; completionRate is null where no task was initiated. Dates in answers are UTC.'

/** By tool name. */
const TOOLS: ReadonlyMap<string, Endpoint> = new Map(
  (Object.values(ENDPOINTS) as unknown as Endpoint[]).map((endpoint) => [nameOf(endpoint), endpoint]),
)

/**
 * The handler of POST /mcp, after `allowOrigins`, `authenticate` and `countRequest`.
 * @param send calls an endpoint, with the token of the agent
 */
export function mcp(send: Send): Handler<Env> {
  const tools = [...TOOLS.values()].map(toolOf)
  /** By tenant, session and request: what a later request may cancel. */
  const underWay = new Map<string, AbortController>()
  let loading: ReturnType<typeof loadSdk> | undefined

  return async (c) => {
    const principal = c.get('principal')
    c.header('Cache-Control', 'no-store')
    // 230 ms of loading, which the start of the service is spared.
    const sdk = await (loading ??= loadSdk())
    // It names the caller's run of requests and nothing else, so that the ids of two callers are told apart.
    const session = c.req.header('Mcp-Session-Id')
    const keyOf = (id: string | number) => JSON.stringify([principal.tenant, session, id])
    const server = new sdk.Server(
      { name: 'agnt-analytics', title: 'AGNT Analytics', version: VERSION },
      { capabilities: { tools: {}, prompts: {} }, instructions: INSTRUCTIONS, jsonSchemaValidator: sdk.validator },
    )
    server.setRequestHandler(sdk.ListToolsRequestSchema, () => ({ tools }))
    server.setRequestHandler(sdk.CallToolRequestSchema, async ({ params }, { requestId, signal }) => {
      const endpoint = TOOLS.get(params.name)
      if (!endpoint) throw new sdk.McpError(sdk.ErrorCode.InvalidParams, `There is no tool ${params.name.slice(0, 100)}.`)
      const cancelling = new AbortController()
      if (session) underWay.set(keyOf(requestId), cancelling)
      try {
        return await call(send, endpoint, params.arguments ?? {}, {
          headers: { Authorization: c.req.header('Authorization') as string, 'X-Request-Id': c.get('requestId') },
          signal: AbortSignal.any([signal, cancelling.signal, c.req.raw.signal]),
        })
      } finally {
        if (underWay.get(keyOf(requestId)) === cancelling) underWay.delete(keyOf(requestId))
      }
    })
    server.setNotificationHandler(sdk.CancelledNotificationSchema, ({ params }) => {
      if (params.requestId !== undefined) underWay.get(keyOf(params.requestId))?.abort()
    })
    server.setRequestHandler(sdk.ListPromptsRequestSchema, () => ({ prompts: [OVERNIGHT] }))
    server.setRequestHandler(sdk.GetPromptRequestSchema, ({ params }) => {
      if (params.name === OVERNIGHT.name) return overnight(params.arguments)
      throw new sdk.McpError(sdk.ErrorCode.InvalidParams, `There is no prompt ${params.name.slice(0, 100)}.`)
    })

    const transport = new sdk.WebStandardStreamableHTTPServerTransport({
      enableJsonResponse: true,
      maxRequestBodySize: MAX_BODY_BYTES,
    })
    // Its optional callbacks are declared in a way that exactOptionalPropertyTypes tells apart from Transport's.
    await server.connect(transport as Transport)
    try {
      const response = await transport.handleRequest(c.req.raw)
      if (!session) response.headers.set('Mcp-Session-Id', randomUUID())
      // A Response that is returned as it is would go without the headers that were set before.
      for (const [name, value] of response.headers) c.header(name, value)
      return c.newResponse(response.body, response.status as StatusCode)
    } finally {
      await server.close()
    }
  }
}

async function loadSdk() {
  const [server, transport, types, ajv] = await Promise.all([
    import('@modelcontextprotocol/sdk/server/index.js'),
    import('@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js'),
    import('@modelcontextprotocol/sdk/types.js'),
    import('@modelcontextprotocol/sdk/validation/ajv'),
  ])
  // Each server would make one of its own, which takes longer than all the rest of a request.
  return { ...server, ...transport, ...types, validator: new ajv.AjvJsonSchemaValidator() }
}

/**
 * Pages of other sites must not reach a service on the reader's own machine. A page of the same host is let in on a
 * loopback address alone: under any other name the page may have been put there by whoever owns that name (DNS rebinding).
 */
export const allowOrigins = (allowed: readonly string[]) =>
  createMiddleware<Env>((c, next) => {
    checkOrigin(c, allowed)
    return next()
  })

function checkOrigin(c: Context, allowed: readonly string[]): void {
  const origin = c.req.header('Origin')
  if (origin === undefined || allowed.includes(origin) || allowed.includes('*')) return
  const url = URL.canParse(origin) ? new URL(origin) : undefined
  const host = c.req.header('Host') ?? new URL(c.req.url).host
  if (url && url.host === host && ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)) return
  throw new ApiError(403, 'forbidden', 'Pages of this origin may not call the service; CORS_ORIGINS names those that may.')
}

/** Calls the endpoint; what is not a 200 becomes a tool error that says all that is wrong. */
async function call(
  send: Send,
  endpoint: Endpoint,
  given: Record<string, unknown>,
  init: { headers: Record<string, string>; signal: AbortSignal },
): Promise<CallToolResult> {
  const { query, complaints } = queryOf(given)
  if (query.get('format') === 'parquet')
    complaints.push({ parameter: 'format', message: 'must be json, ndjson or csv: parquet is no text' })
  if (complaints.length > 0) return failed('400 bad_request: Some arguments cannot be used.', complaints)
  const response = await send(`${endpoint.path}?${query}`, init)
  const text = await boundedText(response)
  if (text === undefined) {
    const smaller = 'limit' in endpoint.parameters ? 'a lower limit' : 'a shorter range or longer periods'
    return failed(`The answer is longer than ${MAX_ANSWER_BYTES} bytes: ask for ${smaller}.`)
  }
  if (!response.headers.get('Content-Type')?.startsWith('application/json')) return { content: [{ type: 'text', text }] }
  const body = JSON.parse(text) as Record<string, unknown>
  if (response.ok) return { content: [{ type: 'text', text }], structuredContent: body }
  const { error } = body as { error: { code: string; message: string; details: Complaint[] } }
  const after = response.headers.get('Retry-After')
  const advice = after ? ` Try again in ${after} s.` : ''
  return failed(`${response.status} ${error.code}: ${error.message}${advice}`, error.details, body)
}

function failed(message: string, details: readonly Complaint[] = [], body?: Record<string, unknown>): CallToolResult {
  const lines = details.map((detail) => `- ${detail.parameter}: ${detail.message}`)
  return {
    isError: true,
    content: [{ type: 'text', text: [message, ...lines].join('\n') }],
    ...(body ? { structuredContent: body } : {}),
  }
}

/** Arguments as the query string of a URL: a list is a repeated parameter, null is as good as absent. */
function queryOf(given: Record<string, unknown>) {
  const query = new URLSearchParams()
  const complaints: Complaint[] = []
  for (const [parameter, value] of Object.entries(given)) {
    for (const one of Array.isArray(value) ? value : [value ?? []].flat()) {
      if (['string', 'number', 'boolean'].includes(typeof one)) query.append(parameter, String(one))
      else complaints.push({ parameter: parameter.slice(0, 100), message: 'must be a text or a number, or a list of them' })
    }
  }
  return { query, complaints }
}

/** undefined where there is more of it than MAX_ANSWER_BYTES; the rest is then not made. */
async function boundedText(response: Response): Promise<string | undefined> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength
    if (size > MAX_ANSWER_BYTES) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** The name of an endpoint's tool: `users_top`. */
function nameOf({ path }: Endpoint): string {
  return path.replace(/^\/analytics\//, '').replaceAll('/', '_')
}

/** The words and parameters of the reference, where a list is a list and not a repeated parameter. */
function toolOf(endpoint: Endpoint): Tool {
  const parameters = parametersOf(endpoint.parameters)
  return {
    name: nameOf(endpoint),
    title: endpoint.summary,
    description: `${endpoint.description} ${endpoint.agentHint}`,
    inputSchema: {
      type: 'object',
      properties: Object.fromEntries(parameters.map(({ name, description, schema }) => [name, { ...schema, description }])),
      required: parameters.filter(({ required }) => required).map(({ name }) => name),
      additionalProperties: false,
    },
    annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  }
}

const OVERNIGHT = {
  name: 'overnight',
  title: 'Did something break overnight?',
  description: 'Looks for regressions of the last hours and for the events that explain them.',
  arguments: [
    { name: 'hours', description: 'How far to look back, 1 to 168; 24 if not given', required: false },
    { name: 'timezone', description: 'IANA time zone of the fleet’s users; UTC if not given', required: false },
  ],
}

function overnight(given: Record<string, string> = {}): GetPromptResult {
  const hours = /^\d{1,3}$/.test(given['hours'] ?? '') ? Number(given['hours']) : 24
  const zone = /^[\w+/-]{1,64}$/.test(given['timezone'] ?? '') ? given['timezone'] : undefined
  const asked = JSON.stringify({ hours, ...(zone ? { timezone: zone } : {}) })
  const text = [
    `Did something break in the last ${hours} hours?`,
    '',
    `1. Call regressions with ${asked}.`,
    '2. Where status is ok, say so, with the figures of fleet. Where it is insufficient_data, say what is missing.',
    '3. Else, for each finding, the critical ones first: call events with the arguments that the query of its evidence URL',
    '   holds, and look for what the events have in common: user, model, metadata, traceId.',
    '4. Report for each finding: what, which assistant, since when, how far from what is usual, and what you saw in the',
    '   events. Say what you have not checked.',
  ]
  return {
    description: OVERNIGHT.description,
    messages: [{ role: 'user', content: { type: 'text', text: text.join('\n') } }],
  }
}
