/**
 * A load generator, or the server it is compared with, in a process of its own: takes one task over IPC, runs it for its
 * seconds, and answers once. Tasks and results are plain JSON.
 */
import { Agent, request, type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { serve } from '@hono/node-server'
import autocannon from 'autocannon'
import { Hono } from 'hono'
import { Batches } from './batches.ts'
import { replay, unpacked, type Steps } from './service.ts'
import { connect, percentiles, type Connection, type Percentiles } from './support.ts'

export interface Get {
  readonly path: string
  readonly headers: Record<string, string>
}

export type Task =
  /** GETs through autocannon; where `unshared`, no two connections ever send the same URL. */
  | { kind: 'get'; url: string; requests: Get[]; connections: number; seconds: number; unshared: boolean }
  /** The queries of such GETs through @clickhouse/client, so many at a time; `questions` are packed Steps. */
  | { kind: 'client'; connection: Connection; questions: unknown; connections: number; seconds: number }
  /** A server with a route for each path that answers JSON. Its result is its port; it ends with this process. */
  | { kind: 'bare'; answers: Record<string, unknown> }
  /** POST /analytics/events; a token a caller. */
  | { kind: 'post'; url: string; authorizations: string[]; size: number; seconds: number }
  /** INSERT through @clickhouse/client, so many at a time. */
  | { kind: 'insert'; connection: Connection; asynchronous: boolean; size: number; connections: number; seconds: number }

/** What a load generator saw. */
export interface Rate {
  /** Requests, answered as they should be. */
  readonly requests: number
  /** Events stored by the insert and post tasks, in the measured seconds and in all with the warm-up before them. */
  readonly events: number
  readonly eventsInAll: number
  /** Answers of another kind, and broken connections. */
  readonly failed: number
  readonly seconds: number
  readonly latency: Percentiles
}

export type Result = { rate: Rate } | { port: number } | { error: string }

const WARM_UP_SECONDS = 1.5
const WARM_UP_LIMIT_MS = 30_000

async function run(task: Task): Promise<Result> {
  switch (task.kind) {
    case 'get':
      await cannon({ ...task, seconds: WARM_UP_SECONDS })
      return { rate: await cannon(task) }
    case 'client':
      return { rate: await straight(task) }
    case 'bare':
      return { port: await bare(task.answers) }
    case 'post':
      return { rate: await post(task) }
    case 'insert':
      return { rate: await insert(task) }
  }
}

/** autocannon counts whole seconds and wants to know it beforehand. */
async function cannon({ url, requests, connections, seconds, unshared }: Extract<Task, { kind: 'get' }>): Promise<Rate> {
  let connection = 0
  const result = await autocannon({
    url,
    connections,
    duration: seconds,
    timeout: 30,
    requests,
    setupClient(client) {
      const at = connection++
      const own = requests.map(({ path, headers }) => ({ path: unshared ? respelled(path, at) : path, headers }))
      // Each connection starts elsewhere in the round, so that the mix is a mix at every moment.
      const first = Math.floor((at * own.length) / connections)
      client.setRequests([...own.slice(first), ...own.slice(0, first)])
    },
  })
  return {
    requests: result['2xx'] + result['3xx'],
    events: 0,
    eventsInAll: 0,
    failed: result.errors + result.timeouts + result['4xx'] + result['5xx'],
    seconds: result.duration,
    latency: { p50: result.latency.p50, p90: result.latency.p90, p99: result.latency.p99, samples: result.requests.total },
  }
}

/** The same URL with other letters: the bits of `number` say which of the first digits are percent-encoded. */
function respelled(path: string, number: number): string {
  let bit = 0
  return path.replaceAll(/\d/g, (digit) => ((number >> bit++) & 1 ? `%3${digit}` : digit))
}

async function straight({ connection, questions, connections, seconds }: Extract<Task, { kind: 'client' }>): Promise<Rate> {
  const client = connect(connection, connection.reader)
  const all = unpacked(questions) as Steps[]
  try {
    const round = (at: number, turn: number) =>
      replay(client, all[(Math.floor((at * all.length) / connections) + turn) % all.length] as Steps)
    await loops(connections, WARM_UP_SECONDS, round)
    return await loops(connections, seconds, round)
  } finally {
    await client.close()
  }
}

function bare(answers: Record<string, unknown>): Promise<number> {
  const app = new Hono()
  for (const [path, answer] of Object.entries(answers)) app.get(path, (c) => c.json(answer as object))
  return new Promise((resolve) => serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 }, ({ port }) => resolve(port)))
}

async function post({ url, authorizations, size, seconds }: Extract<Task, { kind: 'post' }>): Promise<Rate> {
  const agent = new Agent({ keepAlive: true, maxSockets: authorizations.length })
  const batches = new Batches('request', size)
  const send = async (at: number) => {
    const { status, body } = await postBatch(agent, url, authorizations[at] as string, batches.next())
    if (status !== 200) {
      await sleep(100)
      throw new Error(`status ${status}: ${body}`)
    }
    const { accepted, duplicates, rejected } = (JSON.parse(body) as { data: Receipt }).data
    if (accepted !== size || duplicates > 0 || rejected.length > 0) throw new Error(`not as sent: ${body.slice(0, 500)}`)
    return accepted
  }
  try {
    const warm = await loops(authorizations.length, 0, send, batches.distinct)
    const rate = await loops(authorizations.length, seconds, send)
    return { ...rate, eventsInAll: rate.events + warm.events }
  } finally {
    agent.destroy()
  }
}

interface Receipt {
  accepted: number
  duplicates: number
  rejected: unknown[]
}

function postBatch(agent: Agent, url: string, authorization: string, body: Buffer) {
  return new Promise<{ status: number; body: string }>((resolve, reject) => {
    const headers = {
      Authorization: authorization,
      'Content-Type': 'application/x-ndjson',
      'Content-Length': body.length,
    }
    const outgoing = request(`${url}/analytics/events`, { method: 'POST', agent, headers }, (response: IncomingMessage) => {
      response.setEncoding('utf8')
      let text = ''
      response.on('data', (chunk: string) => (text += chunk))
      response.on('error', reject)
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
    })
    outgoing.on('error', reject)
    outgoing.setTimeout(60_000, () => outgoing.destroy(new Error('no answer within 60 s')))
    outgoing.end(body)
  })
}

async function insert(task: Extract<Task, { kind: 'insert' }>): Promise<Rate> {
  const { connection, asynchronous, size, connections, seconds } = task
  const client = connect(connection, connection.writer)
  const batches = new Batches('row', size)
  const send = async () => {
    // The client's `insert` wants objects, which it would have to write as JSON first.
    const result = await client.exec({
      query: 'INSERT INTO events FORMAT JSONEachRow',
      values: Readable.from([batches.next()], { objectMode: false }),
      // Either way the answer comes when the rows are written.
      clickhouse_settings: asynchronous
        ? { async_insert: 1, wait_for_async_insert: 1 }
        : { async_insert: 0, parallel_view_processing: 1 },
    })
    result.stream.resume()
    return size
  }
  try {
    const warm = await loops(connections, 0, send, batches.distinct)
    const rate = await loops(connections, seconds, send)
    return { ...rate, eventsInAll: rate.events + warm.events }
  } finally {
    await client.close()
  }
}

/**
 * Runs `work` in so many loops at once for some seconds, or `turns` times in all (30 s at most) where that is longer.
 * @param work resolves to the number of events it stored, if any
 */
async function loops(
  connections: number,
  seconds: number,
  work: (at: number, turn: number) => Promise<number | void>,
  turns = 0,
): Promise<Rate> {
  const latencies: number[] = []
  let [events, failed, begun] = [0, 0, 0]
  const started = performance.now()
  const more = () => {
    const passed = performance.now() - started
    return passed < seconds * 1000 || (begun < turns && passed < WARM_UP_LIMIT_MS)
  }
  await Promise.all(
    Array.from({ length: connections }, async (_, at) => {
      for (let turn = 0; more(); turn++) {
        begun++
        const sent = performance.now()
        try {
          const stored = (await work(at, turn)) ?? 0
          events += stored
          latencies.push(performance.now() - sent)
        } catch (error) {
          if (failed++ === 0) process.stderr.write(`  the first failure: ${String(error).slice(0, 500)}\n`)
        }
      }
    }),
  )
  return {
    requests: latencies.length,
    events,
    eventsInAll: events,
    failed,
    seconds: (performance.now() - started) / 1000,
    latency: percentiles(latencies),
  }
}

process.once('message', (task: Task) => {
  run(task).then(
    (result) => process.send?.(result),
    (error: unknown) => process.send?.({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  )
})
