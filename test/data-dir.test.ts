/** One service a DATA_DIR, whoever comes and however the one before ended. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { DataDirInUseError, lockDataDir } from '../src/data-dir.ts'

const directories: string[] = []
let dataDir: string
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'analytics-lock-'))
  directories.push(dataDir)
})
afterAll(() => Promise.all(directories.map((directory) => rm(directory, { recursive: true }))))

const HOLDER = fileURLToPath(new URL('data-dir-holder.ts', import.meta.url))

/** A process that takes the lock and says whether it got it. */
async function contender(): Promise<{ child: ChildProcess; got: string }> {
  const child = fork(HOLDER, [dataDir], { execArgv: ['--import', import.meta.resolve('tsx')] })
  const [got] = (await once(child, 'message')) as [string]
  return { child, got }
}

async function end(child: ChildProcess) {
  child.kill('SIGKILL')
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

describe('the lock of a DATA_DIR', { timeout: 30_000 }, () => {
  test('is refused while it is held, by this process too, and free afterwards', async () => {
    const unlock = await lockDataDir(dataDir)
    await expect(lockDataDir(dataDir)).rejects.toThrow(DataDirInUseError)
    await expect(lockDataDir(dataDir)).rejects.toThrow(`process ${process.pid} runs on it`)
    await unlock()
    await (
      await lockDataDir(dataDir)
    )()
    expect(await readdir(dataDir)).toEqual([])
  })

  test('outlives nobody: a killed owner is succeeded', async () => {
    const { child, got } = await contender()
    expect(got).toBe('taken')
    await expect(lockDataDir(dataDir)).rejects.toThrow(`process ${child.pid} runs on it`)
    await end(child)
    await (
      await lockDataDir(dataDir)
    )()
  })

  test('a process with the number of the owner that started at another time is no owner', async () => {
    await writeFile(join(dataDir, 'service.lock'), `${process.pid} some-boot/1`)
    const unlock = await lockDataDir(dataDir)
    expect(await readFile(join(dataDir, 'service.lock'), 'utf8')).not.toContain('some-boot')
    await unlock()
  })

  test('of several that find a dead owner at once, one gets it', async () => {
    await writeFile(join(dataDir, 'service.lock'), '999999999 some-boot/1')
    const contenders = await Promise.all(Array.from({ length: 6 }, contender))
    try {
      expect(contenders.map(({ got }) => got).sort()).toEqual([...Array<string>(5).fill('refused'), 'taken'])
    } finally {
      await Promise.all(contenders.map(({ child }) => end(child)))
    }
  })
})
