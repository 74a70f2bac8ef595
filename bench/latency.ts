/**
 * How long one question takes, one at a time. Service, floors and SELECT 1 take turns, so that whatever the machine is
 * doing meanwhile happens to all of them.
 */
import { Agent, request } from 'node:http'
import type { ClickHouseClient } from '@clickhouse/client'
import { FLOOR, type Figures, type Question, type Variant } from './questions.ts'
import { replay, type Steps } from './service.ts'
import { percentiles, say, seconds, type Percentiles } from './support.ts'

export interface Measured {
  readonly name: string
  readonly service: Percentiles
  readonly client: Percentiles
  readonly raw: Percentiles
  /** Queries that the service sends for one request. */
  readonly queries: number
}

export interface Latencies {
  /** SELECT 1 through the client. */
  readonly floor: Percentiles
  readonly questions: Measured[]
}

export interface Parties {
  readonly url: string
  readonly authorization: string
  readonly client: ClickHouseClient
  /** What the service sends to ClickHouse, by path. */
  readonly heard: ReadonlyMap<string, Steps>
}

const WARM_UP = 5
/** One question may take this much of the run, after which it has fewer samples, at least MIN_SAMPLES. */
const BUDGET_SECONDS = 12
const MIN_SAMPLES = 15
const RAW_SAMPLES = 3
const RAW_BUDGET_SECONDS = 5

/** Projections are what the product adds to the log; the exact answer from raw events does without them. */
const RAW_SETTINGS = {
  optimize_use_projections: 0,
  max_execution_time: 600,
  output_format_json_quote_64bit_integers: 0,
} as const

export async function measureLatencies(parties: Parties, questions: readonly Question[], rounds: number): Promise<Latencies> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const ask = (path: string) => get(agent, parties.url + path, parties.authorization)
  const selectOne = async () => void (await (await parties.client.query({ query: FLOOR, format: 'JSONEachRow' })).json())
  const straight = ({ path }: Variant) => replay(parties.client, parties.heard.get(path) as Steps)
  try {
    const entries = questions.map((question) => ({
      question,
      service: [] as number[],
      client: [] as number[],
      raw: [] as number[],
      spent: 0,
    }))
    const floor: number[] = []

    for (const { question, raw } of entries) {
      let spent = 0
      for (let round = 0; round < RAW_SAMPLES && spent < RAW_BUDGET_SECONDS; round++) {
        const variant = question.variants[round % question.variants.length] as Variant
        const started = performance.now()
        const expected = await exactly(parties.client, variant)
        raw.push(performance.now() - started)
        spent += seconds(started)
        if (round < question.variants.length) {
          same(question, variant, question.figures(JSON.parse(await ask(variant.path)) as unknown), expected)
        }
      }
      say(`  ${question.name}: right; from raw events in ${Math.round(Math.min(...raw))} ms`)
    }

    for (let round = -WARM_UP; round < rounds; round++) {
      for (const entry of entries) {
        if (entry.spent > BUDGET_SECONDS && entry.service.length >= MIN_SAMPLES) continue
        const { variants } = entry.question
        const variant = variants[(round + WARM_UP) % variants.length] as Variant
        const one = await timed(selectOne)
        // Whoever goes second finds the caches warm: they take turns.
        const [service, client] =
          round % 2 === 0
            ? [await timed(() => ask(variant.path)), await timed(() => straight(variant))]
            : ([await timed(() => straight(variant)), await timed(() => ask(variant.path))].reverse() as [number, number])
        entry.spent += (service + client) / 1000
        if (round < 0) continue
        floor.push(one)
        entry.service.push(service)
        entry.client.push(client)
      }
    }
    return {
      floor: percentiles(floor),
      questions: entries.map(({ question, service, client, raw }) => ({
        name: question.name,
        service: percentiles(service),
        client: percentiles(client),
        raw: percentiles(raw),
        queries: (parties.heard.get(question.variants[0]?.path ?? '') ?? []).flat().length,
      })),
    }
  } finally {
    agent.destroy()
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

/** Runs the statements over the raw events, side by side as the service does with its own, and adds up the figures. */
async function exactly(client: ClickHouseClient, { raw }: Variant): Promise<Figures> {
  const results = await Promise.all(
    raw.map(async (query) => {
      const result = await client.query({ query, format: 'JSONEachRow', clickhouse_settings: RAW_SETTINGS })
      return result.json<Figures>()
    }),
  )
  return sumUp(results[0] ?? [])
}

/** Adds up the rows of a first statement, whatever type the database gives its numbers. */
export function sumUp(rows: ReadonlyArray<Record<keyof Figures, unknown>>): Figures {
  const sum = (column: keyof Figures) => rows.reduce((all, row) => all + Number(row[column]), 0)
  return { total: sum('total'), users: sum('users') }
}

/** @throws Error where two ways to answer a question disagree: there is no point in measuring a wrong answer. */
export function same(question: Question, variant: Variant, answered: Figures, expected: Figures): void {
  if (answered.total === expected.total && answered.users === expected.users) return
  const [a, b] = [JSON.stringify(answered), JSON.stringify(expected)]
  throw new Error(`${question.name}: ${variant.path} gives ${a}, the raw events ${b}`)
}

/** A GET over a connection that is kept open; Node's own client, as in @clickhouse/client. */
export function get(agent: Agent, url: string, authorization: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { agent, headers: { Authorization: authorization } }, (response) => {
      response.setEncoding('utf8')
      let text = ''
      response.on('data', (chunk: string) => (text += chunk))
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text)
        else reject(new Error(`${url} answers ${response.statusCode}: ${text.slice(0, 500)}`))
      })
    })
    outgoing.on('error', reject)
    outgoing.setTimeout(60_000, () => outgoing.destroy(new Error(`${url} does not answer within 60 s`)))
    outgoing.end()
  })
}
