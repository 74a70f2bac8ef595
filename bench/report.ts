/** Results as JSON for later comparison, and as tables for people, which are Markdown that also reads well in a terminal. */
import type { Generated, TableSize } from './fleet.ts'
import type { Ingested, Ingestion } from './ingest.ts'
import type { Latencies } from './latency.ts'
import type { Throughput } from './load.ts'
import type { Other, Skipped } from './others.ts'
import { FLOOR, type Question } from './questions.ts'

export interface Results {
  readonly events: number
  /** ISO 8601, when the run began. */
  readonly date: string
  readonly machine: { cpu: string; cores: number; memoryGb: number; system: string; node: string; clickhouse: string }
  /** Absent where a kept fleet was used. */
  generated?: Generated
  sizes?: TableSize[]
  latencies?: Latencies
  throughput?: { uncached: Throughput[]; cached: Throughput[] }
  ingestion?: Ingestion
  soak?: Ingested
  others?: Array<Other | Skipped>
}

/** One measurement held against a target; those of the same `group` and `target` become one line, which shows the worst. */
interface Verdict {
  readonly group: string
  readonly what: string
  readonly target: string
  /** The worse, the larger: how many times over the limit. */
  readonly strain: number
  readonly measured: string
}

const atMost = (group: string, what: string, times: number, limit: number, of: string): Verdict => ({
  group,
  what,
  target: `≤ ${limit} × ${of}`,
  strain: times / limit,
  measured: `${times.toFixed(2)} ×`,
})

const atLeast = (group: string, what: string, share: number, limit: number, of: string): Verdict => ({
  group,
  what,
  target: `≥ ${percent(limit)} of ${of}`,
  strain: limit / share,
  measured: percent(share),
})

const GROWTH = 1.25
const RAW_FACTOR = 100
const UNCACHED_SHARE = 0.7
const CACHED_SHARE = 0.5
const INGEST_SHARE = 0.5
const VIEWS_SHARE = 0.4
const CALLERS_SHARE = 0.3
const MEMORY_MB = 300

export function report(results: Results, questions: readonly Question[], earlier?: Results): string {
  const verdicts: Verdict[] = []
  const sections = [
    heading(results),
    results.generated && generation(results),
    results.latencies && latency(results.latencies, questions, verdicts),
    results.throughput && throughput(results.throughput, verdicts),
    results.ingestion && ingestion(results.ingestion, verdicts),
    results.soak && soaked(results.soak, verdicts),
    results.latencies && results.others && others(results.latencies, results.others, verdicts),
    results.sizes && disk(results.sizes, results.events),
    results.latencies && earlier?.latencies && growth(results, earlier, verdicts),
  ]
  return [...sections, verdicts.length > 0 && summary(verdicts)].filter(Boolean).join('\n\n')
}

function summary(verdicts: readonly Verdict[]): string {
  const lines = new Map<string, Verdict[]>()
  for (const verdict of verdicts) {
    const line = `${verdict.group}\0${verdict.target}`
    lines.set(line, [...(lines.get(line) ?? []), verdict])
  }
  const rows = [...lines.values()].map((line) => {
    const worst = line.reduce((a, b) => (b.strain > a.strain ? b : a))
    const missed = line.filter(({ strain }) => !(strain <= 1)).length
    const verdict = missed === 0 ? 'met' : line.length === 1 ? '**missed**' : `**missed by ${missed} of ${line.length}**`
    const which = line.length > 1 ? `, worst: ${worst.what}` : ''
    return [worst.group, `${worst.measured}${which}`, worst.target, verdict]
  })
  return table(['target for', 'measured', 'target', ''], rows)
}

function heading({ events, date, machine }: Results): string {
  const { cpu, cores, memoryGb, system, node, clickhouse } = machine
  return (
    `## ${count(events)} events, ${date.slice(0, 10)}\n\n` +
    `${cpu}, ${cores} cores, ${memoryGb} GB; ${system}; Node.js ${node}, ClickHouse ${clickhouse}`
  )
}

function generation({ events, generated }: Results): string {
  if (!generated) return ''
  const { eventsPerSecond, generateSeconds, sealSeconds, mergeSeconds, settled } = generated
  return (
    `Generated through all views in ${Math.round(generateSeconds)} s (${count(eventsPerSecond)} events a second), sealed in ` +
    `${Math.round(sealSeconds)} s, merges ${settled ? 'settled' : '**still running**'} after ${Math.round(mergeSeconds)} s; ` +
    `${count(events)} events over 90 days, 30 tenants.`
  )
}

function latency({ floor, questions: measured }: Latencies, questions: readonly Question[], verdicts: Verdict[]): string {
  const p50 = new Map(measured.map(({ name, service }) => [name, service.p50]))
  p50.set(FLOOR, floor.p50)
  const rows = measured.map(({ name, service, client, raw, queries }) => {
    for (const { times, of, group } of questions.find((question) => question.name === name)?.targets ?? []) {
      const base = p50.get(of)
      if (base !== undefined) verdicts.push(atMost(group, name, service.p50 / base, times, of))
    }
    return [
      name,
      ms(service.p50),
      ms(service.p90),
      ms(service.p99),
      `${(service.p50 / floor.p50).toFixed(1)} ×`,
      ms(client.p50),
      String(queries),
      ms(raw.p50),
      `${count(raw.p50 / service.p50)} ×`,
      String(service.samples),
    ]
  })
  for (const { name, service, raw } of measured) {
    const times = raw.p50 / service.p50
    // A page of events is read from the raw events either way; only its total is not.
    const group = name.startsWith('events')
      ? 'pages of events against raw events'
      : 'figures against exact answers from raw events'
    verdicts.push({
      group,
      what: name,
      target: `≥ ${RAW_FACTOR} × faster`,
      strain: RAW_FACTOR / times,
      measured: `${times < 10 ? times.toFixed(1) : count(times)} ×`,
    })
  }
  const head = [
    'one at a time, ms',
    'p50',
    'p90',
    'p99',
    '÷ SELECT 1',
    'same SQL, client',
    'queries',
    'raw events',
    'raw ÷ p50',
    'n',
  ]
  return table(head, [
    ['SELECT 1, client', ms(floor.p50), ms(floor.p90), ms(floor.p99), '1.0 ×', '', '', '', '', String(floor.samples)],
    ...rows,
  ])
}

function throughput({ uncached, cached }: NonNullable<Results['throughput']>, verdicts: Verdict[]): string {
  const rows = (list: Throughput[], kind: string, least: number, of: string) =>
    list.map(({ name, service, floor }) => {
      const [mine, its] = [service.requests / service.seconds, floor.requests / floor.seconds]
      // Alone, a question shows where the mix is won or lost; the target is about the mix.
      if (name === 'a dashboard') verdicts.push(atLeast(`requests per second, ${kind}`, name, mine / its, least, of))
      return [
        `${name}, ${kind}`,
        count(mine),
        ms(service.latency.p50),
        ms(service.latency.p99),
        count(its),
        percent(mine / its),
        String(service.failed),
      ]
    })
  return table(
    ['32 connections', 'requests/s', 'p50 ms', 'p99 ms', 'floor requests/s', 'share', 'failed'],
    [
      ...rows(uncached, 'cache off', UNCACHED_SHARE, 'the same SQL through the client'),
      ...rows(cached, 'cache on', CACHED_SHARE, 'a bare JSON route'),
    ],
  )
}

function ingestion(measured: Ingestion, verdicts: Verdict[]): string {
  const { service, callers, views, viewsGrouped, raw, rawGrouped } = measured
  const share = (what: string, a: Ingested, b: Ingested, least: number, target: string) =>
    verdicts.push(atLeast(what, what, a.eventsPerSecond / b.eventsPerSecond, least, target))
  share('POST, batches of 1,000', service, views, INGEST_SHARE, 'the client, same tables')
  share('POST, batches of 1,000', service, viewsGrouped, INGEST_SHARE, 'the client with async_insert, same tables')
  share('all views', views, raw, VIEWS_SHARE, 'the raw table alone')
  share('all views, async_insert', viewsGrouped, rawGrouped, VIEWS_SHARE, 'the raw table alone, async_insert')
  share('POST, 100 callers of 10', callers, service, CALLERS_SHARE, 'the batched rate')
  for (const one of [service, callers]) remembered(one, verdicts)
  const rows = [service, callers, views, viewsGrouped, raw, rawGrouped].map(({ name, eventsPerSecond, rate, memory }) => [
    name,
    count(eventsPerSecond),
    ms(rate.latency.p50),
    ms(rate.latency.p99),
    String(rate.failed),
    memory ? `${memory.first} to ${memory.last}, at most ${memory.peak}` : '',
  ])
  return table(['ingestion', 'events/s', 'p50 ms', 'p99 ms', 'failed', 'memory of the service, MB'], rows)
}

function remembered({ name, memory }: Ingested, verdicts: Verdict[]): void {
  if (!memory) return
  const measured = `${memory.peak} MB`
  verdicts.push({
    group: 'memory of the service',
    what: name,
    target: `≤ ${MEMORY_MB} MB`,
    strain: memory.peak / MEMORY_MB,
    measured,
  })
}

function soaked(soak: Ingested, verdicts: Verdict[]): string {
  remembered(soak, verdicts)
  const { name, eventsPerSecond, rate, memory } = soak
  return (
    `${name}: ${count(rate.events)} events, ${count(eventsPerSecond)} a second, ${rate.failed} failed requests; memory of the ` +
    `service ${memory?.first} MB in the first quarter, ${memory?.last} MB in the last, ${memory?.peak} MB at most`
  )
}

function others({ questions }: Latencies, measured: ReadonlyArray<Other | Skipped>, verdicts: Verdict[]): string {
  const there = measured.flatMap((one) => ('skipped' in one ? [] : [one]))
  const skipped = measured.flatMap((one) => ('skipped' in one ? [`${one.name} is missing: ${one.skipped}.`] : []))
  const names = there[0]?.questions.map(({ name }) => name) ?? []
  const factors = new Map(there.map((one) => [one.name, [] as number[]]))
  const rows = names.map((name) => {
    const service = questions.find((question) => question.name === name)?.service.p50 ?? Number.NaN
    const cells = there.flatMap((other) => {
      const time = other.questions.find((question) => question.name === name)?.time.p50 ?? Number.NaN
      factors.get(other.name)?.push(time / service)
      return [ms(time), `${time / service < 10 ? (time / service).toFixed(1) : count(time / service)} ×`]
    })
    return [name, ms(service), ...cells]
  })
  for (const [name, list] of factors) {
    const least = Math.min(...list)
    const measuredFactors = `${least.toFixed(1)} × to ${count(Math.max(...list))} × faster`
    verdicts.push({
      group: `against ${name}`,
      what: name,
      target: 'ahead on every question',
      strain: 1 / least,
      measured: measuredFactors,
    })
  }
  const notes = there.map(
    ({ name, version, loadSeconds, bytes }) =>
      `${name} (${version}): loaded and indexed in ${Math.round(loadSeconds)} s, ${count(bytes / 1_048_576)} MB.`,
  )
  const text = [...notes, ...skipped].join(' ')
  if (there.length === 0) return text
  return `${table(['p50, ms', 'service', ...there.flatMap(({ name }) => [name, '÷ service'])], rows)}\n\n${text}`
}

function disk(sizes: readonly TableSize[], events: number): string {
  const all = sizes.reduce((sum, { bytes }) => sum + bytes, 0)
  const listed = sizes.filter(({ bytes }) => bytes / events >= 0.05)
  return table(
    ['on disk', 'rows', 'parts', 'MB', 'bytes an event'],
    [
      ...listed.map(({ table: name, rows, parts, bytes }) => [
        name,
        count(rows),
        String(parts),
        count(bytes / 1_048_576),
        (bytes / events).toFixed(1),
      ]),
      ['all', '', '', count(all / 1_048_576), (all / events).toFixed(1)],
    ],
  )
}

/** How the questions grew with the events, each run measured by its own SELECT 1. */
function growth(now: Results, earlier: Results, verdicts: Verdict[]): string {
  const floorNow = now.latencies?.floor.p50 ?? Number.NaN
  const floorThen = earlier.latencies?.floor.p50 ?? Number.NaN
  const rows = (now.latencies?.questions ?? []).flatMap(({ name, service }) => {
    const then = earlier.latencies?.questions.find((question) => question.name === name)?.service.p50
    if (then === undefined) return []
    const times = service.p50 / floorNow / (then / floorThen)
    verdicts.push(atMost('growth', name, times, GROWTH, `${count(earlier.events)} events`))
    return [[name, `${(then / floorThen).toFixed(1)} ×`, `${(service.p50 / floorNow).toFixed(1)} ×`, `${times.toFixed(2)} ×`]]
  })
  const head = ['growth, ÷ SELECT 1', `${count(earlier.events)} events`, `${count(now.events)} events`, 'growth']
  return table(head, rows)
}

/** A Markdown table with aligned columns; all but the first are numbers or short words. */
function table(head: readonly string[], rows: ReadonlyArray<readonly string[]>): string {
  const widths = head.map((name, at) => Math.max(3, name.length, ...rows.map((row) => row[at]?.length ?? 0)))
  const line = (cells: readonly string[]) => `| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}

const ms = (value: number) => (Number.isNaN(value) ? '' : value < 100 ? value.toFixed(1) : count(value))
const count = (value: number) => Math.round(value).toLocaleString('en-US')
const percent = (value: number) => `${Math.round(value * 100)} %`
