/** Migration files are what they were: a database refuses a file that is not the one that was applied to it. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { checksumsOfFiles, readChecksums } from '../../src/clickhouse/checksums.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const SQL = join(ROOT, 'clickhouse')

test('every migration file has the checksum that is committed for it (npm run freeze adds new ones)', async () => {
  const { files } = await readChecksums(SQL)
  expect(Object.keys(files).length).toBeGreaterThan(5)
  expect(await checksumsOfFiles(SQL)).toEqual(files)
})

test('the list takes changes until the first release; from then on it takes new files alone', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'analytics-freeze-'))
  const run = (...args: string[]) =>
    new Promise<{ code: number; out: string }>((done) => {
      const command = ['--import', 'tsx', 'src/commands/freeze.ts', '--directory', directory, ...args]
      execFile(process.execPath, command, { cwd: ROOT }, (error, stdout, stderr) =>
        done({ code: error ? Number(error.code) : 0, out: stdout + stderr }),
      )
    })
  const list = () => readFile(join(directory, 'checksums.json'), 'utf8')
  try {
    await writeFile(join(directory, '001_a.sql'), 'SELECT 1')
    expect(await run()).toEqual({
      code: 0,
      out: expect.stringMatching(/^1 migration files, 1 of them new; nothing is released yet/),
    })
    await writeFile(join(directory, '001_a.sql'), 'SELECT 2')
    expect(await run('--release')).toEqual({ code: 0, out: '1 migration files, 0 of them new; they are frozen\n' })
    const released = await list()

    await writeFile(join(directory, '001_a.sql'), 'SELECT 3')
    await writeFile(join(directory, '002_b.sql'), 'SELECT 1')
    expect(await run()).toEqual({
      code: 1,
      out: expect.stringMatching(/^001_a\.sql: a migration file of a release must not change.*new file/),
    })
    expect(await list()).toBe(released)
    await rm(join(directory, '001_a.sql'))
    expect((await run()).code).toBe(1)

    await writeFile(join(directory, '001_a.sql'), 'SELECT 2')
    expect(await run()).toEqual({ code: 0, out: '2 migration files, 1 of them new; they are frozen\n' })
    expect(Object.keys((await readChecksums(directory)).files)).toEqual(['001_a.sql', '002_b.sql'])
  } finally {
    await rm(directory, { recursive: true })
  }
})
