/**
 * `npm run test:faults [-- --rounds 50 --seed N --short]`: loses power to everything at once, over and over, and counts.
 *
 * Real processes: the service with its ClickHouse, four writers that retry, re-batch and repeat themselves, and a proxy
 * between them that breaks connections. In each round ClickHouse, or the service, or both are killed with SIGKILL at a
 * random moment, or ClickHouse is stopped for a while first; then everything recovers, and every event that a 2xx has
 * acknowledged must be there exactly once, nothing else may be there, and the rollups must equal the raw log. Then
 * ClickHouse goes away for longer than callers are kept waiting, and a disk fills up.
 *
 * The seed repeats the choices, not the timing: processes race as they like. Exits with 1 where anything was lost,
 * doubled, unexpected, adrift or answered wrongly, and keeps the logs of the service then.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { NOTHING, type Findings } from './check.ts'
import { createDice, type Dice } from './dice.ts'
import { mountDisk, type Disk } from './disk.ts'
import { running, World } from './world.ts'

const USAGE = 'usage: npm run test:faults -- [--rounds 50] [--seed N] [--short]'
/** A round lists every event this often; the others compare counts. */
const FULL_EVERY = 10
/** Callers are kept waiting for 10 s. */
const AWAY_MS = 12_000
const DISK_MB = 384
/** The whole suite, by number of rounds. */
const deadlineMs = (rounds: number) => 240_000 + rounds * 40_000

interface Tally extends Findings {
  rounds: number
  eventsSent: number
  acknowledged: number
  requests: number
  refusals: number
  clickhouseKills: number
  serviceKills: number
  pauses: number
  cuts: number
  daysAhead: number
  completed: number
  putRight: number
  away: number
  diskFull: number | string
  wrongReceipts: number
}

const tally: Tally = {
  rounds: 0,
  requests: 0,
  eventsSent: 0,
  acknowledged: 0,
  refusals: 0,
  clickhouseKills: 0,
  serviceKills: 0,
  pauses: 0,
  cuts: 0,
  daysAhead: 0,
  completed: 0,
  putRight: 0,
  away: 0,
  diskFull: 0,
  ...NOTHING,
  wrongReceipts: 0,
}

const started = performance.now()
const say = (text: string) =>
  process.stdout.write(`${((performance.now() - started) / 1_000).toFixed(1).padStart(6)} s  ${text}\n`)

const given = options()
const directory = mkdtempSync(join(tmpdir(), 'analytics-faults-'))
const disks = new Set<Disk>()

// However the suite ends, nothing that it started goes on.
function endEverything(): void {
  for (const end of [
    ...[...running].map(
      ({ service }) =>
        () =>
          service.kill(),
    ),
    ...[...disks].map((disk) => disk.unmount),
  ]) {
    try {
      end()
    } catch (error) {
      process.stderr.write(`${String(error)}\n`)
    }
  }
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
try {
  const dice = createDice(given.seed)
  say(`seed ${given.seed}`)
  await killRounds(dice)
  await diskRounds(given.short ? 1 : 3)
} catch (error) {
  failed = true
  say(`the suite failed: ${String((error as Error).stack)}`)
}
clearTimeout(deadline)
endEverything()
printTable()
const bad = tally.lost + tally.doubled + tally.unexpected + tally.drift + tally.wrong + tally.wrongReceipts
if (failed || bad > 0) say(`what the service logged is in ${directory}`)
else rmSync(directory, { recursive: true, force: true })
process.exit(failed || bad > 0 ? 1 : 0)

function options() {
  try {
    const { values } = parseArgs({
      options: { rounds: { type: 'string' }, seed: { type: 'string' }, short: { type: 'boolean', default: false } },
    })
    const rounds = Number(values.rounds ?? (values.short ? 5 : 50))
    const seed = Number(values.seed ?? Date.now() % 1_000_000)
    if (!Number.isInteger(rounds) || rounds < 1 || rounds > 1_000) throw new Error('--rounds wants a number from 1 to 1000')
    if (!Number.isInteger(seed) || seed < 0) throw new Error('--seed wants a whole number')
    return { rounds, seed, short: values.short }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`)
    process.exit(2)
  }
}

/** Checks after a fault, and adds up what is wrong. */
async function settle(world: World, what: string, full: boolean): Promise<void> {
  const { found, seconds } = await world.settle(full, say)
  for (const [name, count] of Object.entries(found)) tally[name as keyof Findings] += count
  const complaints = world.ledger.complaints.splice(0)
  tally.wrongReceipts += complaints.length
  for (const complaint of complaints.slice(0, 20)) say(`wrong answer to a writer: ${complaint}`)
  const { lost, doubled, unexpected, drift, wrong } = found
  const verdict = lost + doubled + unexpected + drift + wrong + complaints.length === 0 ? 'all there once' : JSON.stringify(found)
  const [ready, drained, checked] = seconds
  const times = `back in ${ready} s, retries ${drained} s, check ${checked} s`
  say(`${what}: ${world.ledger.counts.stored} acknowledged, ${full ? 'every event' : 'counts'} checked, ${verdict} (${times})`)
}

function addCounts(world: World): void {
  tally.requests += world.ledger.counts.requests
  tally.eventsSent += world.ledger.counts.sent
  tally.acknowledged += world.ledger.counts.stored
  tally.cuts += world.cuts
  tally.refusals += world.refusals
  tally.daysAhead += world.daysAhead
  tally.completed += world.logged('completing an insert of an earlier run')
  tally.putRight += world.logged('an insert was cut off and had to be put right')
}

async function killRounds(dice: Dice): Promise<void> {
  const world = await World.open({
    dataDir: join(directory, 'kills'),
    logFile: join(directory, 'kills.log'),
    seed: given.seed,
    clockMoves: true,
  })
  try {
    for (let round = 1; round <= given.rounds; round++) {
      const what = await breakSomething(world, dice)
      tally.rounds++
      await settle(world, `round ${round}, ${what}`, round % FULL_EVERY === 0 || round === given.rounds)
    }
    await goAway(world, 'goes on')
    if (!given.short) await goAway(world, 'is killed')
  } finally {
    addCounts(world)
    await world.close()
  }
}

/** One fault at a random moment, while the writers write. */
async function breakSomething(world: World, dice: Dice): Promise<string> {
  const { service } = world
  const kill = async (whom: 'service' | 'clickhouse') => {
    await service.signal(whom, 'SIGKILL')
    if (whom === 'service') tally.serviceKills++
    else tally.clickhouseKills++
  }
  await sleep(dice.between(200, 2_000))
  const kind = dice.pick([
    'clickhouse',
    'clickhouse',
    'clickhouse',
    'service',
    'service',
    'service',
    'both',
    'starting',
    'paused',
  ] as const)
  switch (kind) {
    case 'clickhouse':
    case 'service':
      await kill(kind)
      return `${kind} killed`
    case 'both': {
      await kill('clickhouse')
      await sleep(dice.between(0, 1_500))
      await kill('service')
      return 'ClickHouse killed, then the service'
    }
    case 'starting': {
      // Just as it is back: while it completes what the first kill left, and seals.
      await kill('service')
      await service.ready(60_000)
      await sleep(dice.between(0, 400))
      const next = dice.pick(['service', 'clickhouse'] as const)
      await kill(next)
      return `service killed, then ${next} as soon as it was back`
    }
    case 'paused': {
      tally.pauses++
      const pid = await service.signal('clickhouse', 'SIGSTOP')
      await sleep(dice.between(1_000, 3_000))
      const after = dice.pick(['goes on', 'killed', 'service killed'] as const)
      if (after === 'killed') await kill('clickhouse')
      else if (after === 'service killed') {
        await kill('service')
        await sleep(dice.between(100, 1_000))
      }
      if (after !== 'killed') service.resume(pid)
      return `ClickHouse paused, then ${after}`
    }
  }
}

/** ClickHouse does not answer for longer than callers are kept waiting: they are told so, and it all comes back. */
async function goAway(world: World, end: 'goes on' | 'is killed'): Promise<void> {
  const { service } = world
  tally.away++
  const pid = await service.signal('clickhouse', 'SIGSTOP')
  const probes = [world.probe(), sleep(AWAY_MS - 1_000).then(() => world.probe())]
  const answers = await Promise.all(probes)
  await sleep(500)
  if (end === 'goes on') service.resume(pid)
  else {
    await service.signal('clickhouse', 'SIGKILL')
    tally.clickhouseKills++
  }
  for (const { status, retryAfter, ms } of answers) {
    if (status === 503 && retryAfter !== null) continue
    tally.wrongReceipts++
    say(`ClickHouse away: ${status} with Retry-After ${retryAfter} after ${ms} ms`)
  }
  const waits = answers.map(({ ms }) => `${(ms / 1_000).toFixed(1)} s`).join(' and ')
  await settle(world, `ClickHouse away for more than ${AWAY_MS / 1_000} s, 503 after ${waits}, then it ${end}`, true)
}

async function diskRounds(rounds: number): Promise<void> {
  const disk = mountDisk(join(directory, 'disk'), DISK_MB)
  if (typeof disk === 'string') {
    tally.diskFull = `skipped: ${disk}`
    return
  }
  disks.add(disk)
  try {
    const world = await World.open({
      dataDir: join(disk.directory, 'data'),
      logFile: join(directory, 'disk.log'),
      seed: given.seed + 100,
      clockMoves: false,
    })
    try {
      for (let round = 1; round <= rounds; round++) await fillDisk(world, disk, round)
    } finally {
      addCounts(world)
      await world.close()
    }
  } finally {
    disk.unmount()
    disks.delete(disk)
  }
}

/** Nothing can be written for a while. In every other round the service, or ClickHouse, is killed in the middle of it. */
async function fillDisk(world: World, disk: Disk, round: number): Promise<void> {
  await sleep(1_500)
  const { ledger } = world
  const refusals = world.refusals
  disk.fill()
  const acknowledged = ledger.counts.stored
  const reads = new Map<number | string, number>()
  const victims = { 2: 'clickhouse', 3: 'service' } as const
  const victim = victims[round as keyof typeof victims]
  // A caller may wait for seconds before it is told: long enough for the first refusal.
  for (let i = 0; i < 24 || (i < 100 && world.refusals === refusals); i++) {
    if (i === 8 && victim) {
      await world.service.signal(victim, 'SIGKILL')
      if (victim === 'service') tally.serviceKills++
      else tally.clickhouseKills++
    }
    // Merges give back and take up space.
    disk.fill()
    const status = await world.read(5_000).catch(() => 'no answer')
    reads.set(status, (reads.get(status) ?? 0) + 1)
    await sleep(250)
  }
  const [refused, stored] = [world.refusals - refusals, ledger.counts.stored - acknowledged]
  disk.free()
  tally.diskFull = Number(tally.diskFull) + 1
  if (refused === 0) {
    tally.wrongReceipts++
    say('disk full: no writer got a 503')
  }
  for (const status of reads.keys()) {
    // While a killed service cannot start there is nobody to answer.
    if (status === 200 || status === 503 || (status === 'no answer' && victim === 'service')) continue
    tally.wrongReceipts++
    say(`disk full: a read was answered with ${status}`)
  }
  const answers = [...reads].map(([status, count]) => `${count} × ${status}`).join(', ')
  const what = `disk full${victim ? `, ${victim} killed` : ''}: ${refused} × 503 to writers, ${stored} stored, reads ${answers}; then free`
  await settle(world, what, true)
}

function printTable(): void {
  for (const world of running) addCounts(world)
  const rows: Array<[string, number | string]> = [
    ['rounds', tally.rounds],
    ['requests', tally.requests],
    ['events sent', tally.eventsSent],
    ['acknowledged', tally.acknowledged],
    ['refused (503, 429)', tally.refusals],
    ['kills of ClickHouse', tally.clickhouseKills],
    ['kills of the service', tally.serviceKills],
    ['pauses of ClickHouse', tally.pauses],
    ['connections cut', tally.cuts],
    ['days the clock moved on', tally.daysAhead],
    ['completed from the journal', tally.completed],
    ['put right beyond that', tally.putRight],
    ['ClickHouse away', tally.away],
    ['disk full', tally.diskFull],
    ['lost', tally.lost],
    ['doubled', tally.doubled],
    ['unexpected', tally.unexpected],
    ['drift', tally.drift],
    ['wrong figures', tally.wrong],
    ['wrong receipts', tally.wrongReceipts],
    ['minutes', ((performance.now() - started) / 60_000).toFixed(1)],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  process.stdout.write(`\n${rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')}\n`)
}
