/** Requests per second with 32 connections, with the answers' cache off and on. */
import { Agent } from 'node:http'
import { get } from './latency.ts'
import type { Question } from './questions.ts'
import { packed, type RunningService, type Steps } from './service.ts'
import { end, start, type Connection } from './support.ts'
import type { Get, Rate, Result, Task } from './worker.ts'

export const CONNECTIONS = 32

export interface Throughput {
  readonly name: string
  readonly service: Rate
  readonly floor: Rate
}

/** Time on top of a task's own seconds: start, warm-up, the last answers. */
const PATIENCE_MS = 90_000

/** Runs a task in a process of its own. */
export async function load(task: Task & { seconds: number }): Promise<Rate> {
  const child = start(new URL('worker.ts', import.meta.url))
  try {
    const result = await ask(child, task, task.seconds * 1000 + PATIENCE_MS)
    if ('rate' in result) return result.rate
    throw new Error('error' in result ? result.error : 'a worker answered with a port')
  } finally {
    child.kill('SIGKILL')
  }
}

function ask(child: ReturnType<typeof start>, task: Task, patienceMs: number): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`a ${task.kind} worker did not finish`)), patienceMs)
    child.once('exit', () => reject(new Error(`a ${task.kind} worker ended early`)))
    child.once('message', (result: Result) => {
      clearTimeout(timer)
      resolve(result)
    })
    child.send(task)
  })
}

const getsOf = (questions: readonly Question[], authorization: string): Get[] =>
  interleaved(questions).map(({ path }) => ({ path, headers: { Authorization: authorization } }))

/** First variants of all questions, then second ones, and so on: as many dashboards opening one after the other. */
function interleaved(questions: readonly Question[]) {
  const most = Math.max(...questions.map(({ variants }) => variants.length))
  return Array.from({ length: most }, (_, at) => questions.flatMap(({ variants }) => variants[at] ?? [])).flat()
}

/**
 * Cache off, against the same queries through the client. The service lets equal questions that come at the same time
 * share one answer; here no two connections send the same URL, so nothing is shared and every request costs its queries.
 */
export async function measureUncached(
  service: RunningService,
  authorization: string,
  connection: Connection,
  heard: ReadonlyMap<string, Steps>,
  sets: ReadonlyArray<{ name: string; questions: readonly Question[] }>,
  seconds: number,
): Promise<Throughput[]> {
  const results: Throughput[] = []
  for (const { name, questions } of sets) {
    const requests = getsOf(questions, authorization)
    const steps = packed(interleaved(questions).map(({ path }) => heard.get(path)))
    const floor = await load({ kind: 'client', connection, questions: steps, connections: CONNECTIONS, seconds })
    const rate = await load({ kind: 'get', url: service.url, requests, connections: CONNECTIONS, seconds, unshared: true })
    results.push({ name, service: rate, floor })
  }
  return results
}

/**
 * Cache on, every connection asking the same few questions over and over, against a Hono server that does nothing but
 * `c.json` of the very same answers: no token, no parameters, no limits, no cache.
 */
export async function measureCached(
  service: RunningService,
  authorization: string,
  sets: ReadonlyArray<{ name: string; questions: readonly Question[] }>,
  seconds: number,
): Promise<Throughput[]> {
  const agent = new Agent({ keepAlive: true })
  const results: Throughput[] = []
  try {
    for (const { name, questions } of sets) {
      const paths = questions.flatMap(({ variants }) => variants.slice(0, 1).map(({ path }) => path))
      const answers: Record<string, unknown> = {}
      for (const path of paths) answers[pathOnly(path)] = JSON.parse(await get(agent, service.url + path, authorization))
      const headers = { Authorization: authorization }
      const requests = paths.map((path) => ({ path, headers }))
      const bare = start(new URL('worker.ts', import.meta.url))
      try {
        const serving = await ask(bare, { kind: 'bare', answers }, PATIENCE_MS)
        if (!('port' in serving)) throw new Error('the bare server did not start')
        const shared = { kind: 'get', requests, connections: CONNECTIONS, seconds, unshared: false } as const
        const floor = await load({ ...shared, url: `http://127.0.0.1:${serving.port}` })
        const rate = await load({ ...shared, url: service.url })
        results.push({ name, service: rate, floor })
        const known = await etags(service.url, authorization, paths)
        if (known.length === paths.length) {
          const polling = await load({ ...shared, url: service.url, requests: known })
          results.push({ name: `${name}, polled with If-None-Match`, service: polling, floor })
        }
      } finally {
        bare.kill('SIGKILL')
        await end(bare)
      }
    }
  } finally {
    agent.destroy()
  }
  return results
}

/** The same requests as a browser repeats them. */
async function etags(url: string, authorization: string, paths: readonly string[]): Promise<Get[]> {
  const requests: Get[] = []
  for (const path of paths) {
    const response = await fetch(url + path, { headers: { Authorization: authorization } })
    await response.text()
    const etag = response.headers.get('ETag')
    if (etag) requests.push({ path, headers: { Authorization: authorization, 'If-None-Match': etag } })
  }
  return requests
}

const pathOnly = (path: string) => path.split('?')[0] as string
