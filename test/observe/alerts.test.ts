/** The alert rules: of metrics that there are, and right to Prometheus' own tool. */
import { execFile, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startService } from '../support.ts'

const RULES = fileURLToPath(new URL('../../docs/prometheus/alerts.yml', import.meta.url))
const TESTS = fileURLToPath(new URL('../../docs/prometheus/alerts.test.yml', import.meta.url))

let exposed: string
let rules: string
beforeAll(async () => {
  rules = await readFile(RULES, 'utf8')
  const service = await startService()
  await service.get('rolling')
  exposed = (await service.request('GET', '/metrics', {})).body as string
  await service.close()
})

/** Names of samples that the service writes, or would as soon as there is something to tell. */
function exported(): Set<string> {
  const names = [...exposed.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name = '', type]) =>
    type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
  )
  return new Set(names)
}

test('rules and their tests use metrics that /metrics exports, and no others', async () => {
  const expressions = [...rules.matchAll(/expr:((?:.|\n)*?)\n {8}(?:for|labels):/g)].map(([, text = '']) => text)
  expect(expressions).toHaveLength(rules.split('- alert:').length - 1)
  const series = [...(await readFile(TESTS, 'utf8')).matchAll(/series: '(\w+)/g)].map(([, name = '']) => name)
  const used = expressions
    .flatMap((text) => text.match(/\b(?!humanize)[a-z]+_[a-z0-9_]+\b(?!\()/g) ?? [])
    .filter((name) => name !== 'histogram_quantile')
  expect(used.length).toBeGreaterThanOrEqual(expressions.length)
  const there = exported()
  expect([...used, ...series].filter((name) => !there.has(name))).toEqual([])
})

test('every alert has a test that lets it fire', async () => {
  const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name)
  const tests = await readFile(TESTS, 'utf8')
  const firing = [...tests.matchAll(/alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:/g)].map(([, name = '']) => name)
  expect(firing.sort()).toEqual(alerts.sort())
})

const missing = spawnSync('promtool', ['--version']).error !== undefined
if (missing)
  console.warn(
    'test/observe/alerts.test.ts: promtool is not installed (Debian’s package prometheus), so what it says of the rules is skipped.',
  )

const promtool = (...args: string[]) => promisify(execFile)('promtool', args)

describe.skipIf(missing)('promtool', () => {
  let directory: string
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'analytics-alerts-'))
  })
  afterAll(() => rm(directory, { recursive: true, force: true }))

  test('finds the rules right, and the tests of them pass', async () => {
    expect((await promtool('check', 'rules', RULES)).stdout).toContain(
      `SUCCESS: ${rules.split('- alert:').length - 1} rules found`,
    )
    expect((await promtool('test', 'rules', TESTS)).stdout).toContain('SUCCESS')
  })

  test.each([
    ['AgntRequestsFailing', '> 0.02', '> 0.2'],
    ['AgntRefusing', 'service|exports|ingest', 'service|exports'],
    ['AgntDrift', 'agnt_drift > 0', 'agnt_drift >= 0'],
  ])('would notice a mistake in %s', async (_, from, to) => {
    expect(rules).toContain(from)
    await writeFile(join(directory, 'alerts.yml'), rules.replace(from, to))
    await writeFile(join(directory, 'alerts.test.yml'), await readFile(TESTS))
    await expect(promtool('test', 'rules', join(directory, 'alerts.test.yml'))).rejects.toMatchObject({ code: 1 })
  })

  test('has nothing to say against the names and help texts of the service’s own metrics', () => {
    const { stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: exposed, encoding: 'utf8' })
    expect(`${stdout}${stderr}`.split('\n').filter((line) => /agnt_|error/i.test(line))).toEqual([])
  })
})
