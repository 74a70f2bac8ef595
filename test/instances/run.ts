/**
 * `npm run test:instances [-- --rounds 50 --seed N --short --only KIND --instances N]`: several instances on one ClickHouse.
 *
 * Real processes: instances of the service, each of which takes itself for one of several, on one ClickHouse; callers that
 * retry through another instance; a network between each instance and ClickHouse that is slow, stalls and breaks. Each
 * round is of one kind (rounds.ts). After it everything recovers, and then every event of a 2xx is stored exactly once,
 * nothing else is, no name has two numbers and no number two names, no company reads another's events, the rollups equal
 * the raw log, and each instance answers what the callers' own books say.
 *
 * Rounds follow each other on one database until one finds something, so that each finding is of one round. The seed
 * repeats the choices, not the timing. Exits with 1 where anything was found, and keeps the logs of the instances then.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { createDice, type Dice } from '../faults/dice.ts'
import { NOTHING, type Findings } from './books.ts'
import { check } from './check.ts'
import { startClickHouse, type ClickHouse } from './clickhouse.ts'
import { Deployment, running } from './deployment.ts'
import { KINDS, type Kind, type Scene } from './rounds.ts'
import { shuffled } from './traffic.ts'

const USAGE = `usage: npm run test:instances -- [--rounds 50] [--seed N] [--short] [--only KIND] [--instances N]

KIND is one of ${Object.keys(KINDS).join(', ')}; it may be given several times.
One instance alone shows what the suite itself gets wrong.`
/** A deployment that knows more events than this is replaced: every round looks at all of them. */
const MAX_EVENTS = 60_000
/** Lines of one round about what was found. */
const MAX_REPORTS = 12
/** Tenants that read with their own token after a round, and those whose figures are compared. */
const SAMPLE = { readers: 8, figures: 3 }
/** Of one round; then the suite goes on with the next one. */
const ROUND_MS = 300_000
/** The whole suite, by number of rounds. */
const deadlineMs = (rounds: number) => 300_000 + rounds * 120_000

interface Row {
  kind: string
  rounds: number
  bad: number
  seconds: number
  found: Findings
}

const started = performance.now()
const say = (text: string) =>
  process.stdout.write(`${((performance.now() - started) / 1_000).toFixed(1).padStart(6)} s  ${text}\n`)

const given = options()
const directory = mkdtempSync(join(tmpdir(), 'analytics-instances-'))
const rows = new Map<string, Row>()
const totals = { requests: 0, events: 0, acknowledged: 0, refusals: 0, unanswered: 0, faults: 0 }

// However the suite ends, nothing that it started goes on; ClickHouse is a child that ends with its parent.
function endEverything(): void {
  for (const { instances } of running) for (const { service } of instances) service.kill()
}
process.on('exit', endEverything)
// Whoever reads the output may be gone.
process.stdout.on('error', () => {})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    printTable()
    process.exit(130)
  })
}
const deadline = setTimeout(() => {
  say(`the suite gives up after ${deadlineMs(given.rounds) / 1_000} s`)
  printTable()
  process.exit(1)
}, deadlineMs(given.rounds))

let failed = false
let clickhouse: ClickHouse | undefined
try {
  say(`seed ${given.seed}`)
  clickhouse = await startClickHouse(join(directory, 'clickhouse'), () => {})
  await allRounds(clickhouse, createDice(given.seed))
} catch (error) {
  failed = true
  say(`the suite failed: ${String((error as Error).stack)}`)
}
clearTimeout(deadline)
await Promise.race([Promise.all([...running].map((site) => site.close().catch(() => {}))), later(30_000)])
endEverything()
await clickhouse?.stop()
printTable()
const bad = [...rows.values()].reduce((sum, row) => sum + row.bad, 0)
if (failed || bad > 0) {
  rmSync(join(directory, 'clickhouse'), { recursive: true, force: true, maxRetries: 5 })
  say(`what the instances logged is in ${directory}`)
} else rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
process.exit(failed || bad > 0 ? 1 : 0)

function options() {
  try {
    const { values } = parseArgs({
      options: {
        rounds: { type: 'string' },
        seed: { type: 'string' },
        short: { type: 'boolean', default: false },
        only: { type: 'string', multiple: true },
        instances: { type: 'string' },
      },
    })
    const kinds = values.only ?? Object.keys(KINDS)
    for (const kind of kinds) if (!(kind in KINDS)) throw new Error(`--only ${kind}: there is no such kind`)
    const rounds = Number(values.rounds ?? (values.short ? kinds.length : 50))
    const seed = Number(values.seed ?? Date.now() % 1_000_000)
    if (!Number.isInteger(rounds) || rounds < 1 || rounds > 1_000) throw new Error('--rounds must be an integer from 1 to 1000')
    if (!Number.isInteger(seed) || seed < 0) throw new Error('--seed must be an integer from 0')
    const instances = values.instances === undefined ? undefined : Number(values.instances)
    if (instances !== undefined && ![1, 2, 3].includes(instances)) throw new Error('--instances must be 1, 2 or 3')
    return { rounds, seed, short: values.short, kinds, instances }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`)
    process.exit(2)
  }
}

async function allRounds(server: ClickHouse, dice: Dice): Promise<void> {
  let site: Deployment | undefined
  let plan: string[] = []
  for (let round = 1; round <= given.rounds; round++) {
    if (plan.length === 0) plan = shuffled(dice, given.kinds)
    const kind = plan.shift() as string
    // Every fourth deployment of the long form has a third instance.
    const instances = given.instances ?? (!given.short && dice.chance(0.25) ? 3 : 2)
    site ??= await Deployment.open({ clickhouse: server, directory, instances })
    const isGood = await oneRound(server, site, createDice(given.seed + round), round, kind)
    if (isGood && site.ledger.counts.events < MAX_EVENTS) continue
    await closeSite(site)
    site = undefined
  }
  if (site) await closeSite(site)
}

async function closeSite(site: Deployment): Promise<void> {
  addCounts(site)
  await site.close().catch((error: unknown) => say(`a deployment could not be ended well: ${String(error)}`))
}

/** @returns false where anything was found, or the deployment cannot be used for another round */
async function oneRound(server: ClickHouse, site: Deployment, dice: Dice, round: number, kind: string): Promise<boolean> {
  const { title, run, spends } = KINDS[kind] as Kind
  const begun = performance.now()
  let left = MAX_REPORTS
  const report = (text: string) => {
    if (left-- > 0) say(`    ${text.slice(0, 200)}`)
  }
  const found: Findings = { ...NOTHING }
  const scene: Scene = {
    site,
    clickhouse: server,
    dice,
    name: `r${round}`,
    short: given.short,
    readers: [],
    afterwards: [],
    found,
    report,
  }
  const counted = { ...site.ledger.counts }
  const fails = (error: unknown) => {
    found.failed++
    say(`    the round failed: ${String((error as Error).message)}`)
    return 'failed'
  }
  let did = ''
  let times = ''
  try {
    await Promise.race([
      later(ROUND_MS).then(() => Promise.reject(new Error(`not at its end within ${ROUND_MS / 1_000} s`))),
      (async () => {
        // Where it fails, what it has done so far is checked all the same.
        did = await run(scene).catch(fails)
        const done = performance.now()
        const [ready, drained] = await site.settle()
        const withEvents = site.ledger.tenants.filter((tenant) => site.ledger.of(tenant).size > 0)
        const readers = [...new Set([...scene.readers, ...shuffled(dice, withEvents).slice(0, SAMPLE.readers)])]
        const figures = [...new Set([...withEvents.slice(0, 1), ...shuffled(dice, withEvents).slice(0, SAMPLE.figures - 1)])]
        const laps = await check({ site, readers, figures, found, report })
        times = `${seconds(done - begun)} s, back in ${ready} s, retries ${drained} s, ${laps}`
      })(),
    ])
  } catch (error) {
    fails(error)
  }
  for (const end of scene.afterwards) end()
  const complaints = site.ledger.complaints.splice(0)
  found.receipts += complaints.length
  for (const complaint of complaints.slice(0, 5)) report(`wrong answer to a caller: ${complaint}`)

  const isGood = Object.values(found).every((count) => count === 0)
  const row = rows.get(kind) ?? { kind, rounds: 0, bad: 0, seconds: 0, found: { ...NOTHING } }
  row.rounds++
  row.seconds += (performance.now() - begun) / 1_000
  if (!isGood) row.bad++
  for (const [name, count] of Object.entries(found)) row.found[name as keyof Findings] += count
  rows.set(kind, row)
  const { counts } = site.ledger
  const verdict = isGood
    ? 'all right'
    : JSON.stringify(Object.fromEntries(Object.entries(found).filter(([, count]) => count > 0)))
  say(
    `round ${round}, ${title} (${kind}): ${did ? `${did}, ` : ''}${site.instances.length} instances, ` +
      `${counts.stored - counted.stored} acknowledged: ${verdict} (${times})`,
  )
  return isGood && !spends
}

function seconds(ms: number): string {
  return (ms / 1_000).toFixed(1)
}

function addCounts(site: Deployment): void {
  const { requests, sent, stored, refusals, unanswered } = site.ledger.counts
  totals.requests += requests
  totals.events += sent
  totals.acknowledged += stored
  totals.refusals += refusals
  totals.unanswered += unanswered
  totals.faults += site.faults
}

function printTable(): void {
  const counts: Array<[string, number | string]> = [
    ['requests', totals.requests],
    ['events sent', totals.events],
    ['acknowledged', totals.acknowledged],
    ['refused (503, 429)', totals.refusals],
    ['without an answer', totals.unanswered],
    ['faults before ClickHouse', totals.faults],
    ['minutes', ((performance.now() - started) / 60_000).toFixed(1)],
  ]
  process.stdout.write(`\n${counts.map(([name, value]) => `${name.padEnd(24)}  ${value}`).join('\n')}\n\n`)
  const names = Object.keys(NOTHING) as Array<keyof Findings>
  const lines = [
    ['kind', 'rounds', 'bad', ...names],
    ...[...rows.values()].map(({ kind, rounds, bad: wrong, found }) =>
      [kind, rounds, wrong, ...names.map((name) => found[name])].map(String),
    ),
  ]
  const widths = (lines[0] as string[]).map((_, at) => Math.max(...lines.map((line) => (line[at] as string).length)))
  for (const line of lines) {
    process.stdout.write(
      `${line.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] as number) : cell.padStart(widths[at] as number))).join('  ')}\n`,
    )
  }
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref()
  })
}
