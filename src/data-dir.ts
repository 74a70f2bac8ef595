/**
 * One service a DATA_DIR: the journal in it is replayed by whoever starts on it, so two would count each other's events
 * twice. The embedded ClickHouse locks its directory itself; this lock is for a service with a ClickHouse elsewhere.
 */
import { link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Another process uses the directory; the message is meant for whoever started the service. */
export class DataDirInUseError extends Error {
  override name = 'DataDirInUseError'
}

/** Two that find the same dead owner at once have settled by then who moved whose lock away. */
const SETTLE_MS = 50

/**
 * Takes the directory for this process, until it lets go or ends, in whatever way. A lock whose owner is gone is taken
 * over. Processes are told apart by number and time of start, so that process 1 of a container that was started anew is
 * another one. Containers that share a directory, and not their process numbers, do not see each other.
 * @returns what lets go
 * @throws DataDirInUseError where a live process has it
 */
export async function lockDataDir(dataDir: string): Promise<() => Promise<void>> {
  const path = join(resolve(dataDir), 'service.lock')
  const me = `${process.pid} ${await startOf(process.pid)}`
  await mkdir(resolve(dataDir), { recursive: true })
  const own = `${path}.${process.pid}`
  await writeFile(own, me, { mode: 0o600 })
  try {
    for (;;) {
      // A link appears at once and with its content, or not at all.
      const taken = await link(own, path).then(() => true, isExisting)
      if (taken) {
        await sleep(SETTLE_MS)
        if ((await ownerOf(path)) === me) break
        continue
      }
      const owner = await ownerOf(path)
      if (owner === undefined) continue
      const [pid, started] = owner.split(' ')
      if (owner === me || started === (await startOf(Number(pid)))) {
        throw new DataDirInUseError(`the data directory ${resolve(dataDir)} is in use: process ${pid} runs on it`)
      }
      await rename(path, `${own}.gone`).catch(ignoreMissing)
    }
  } finally {
    await rm(own, { force: true })
    await rm(`${own}.gone`, { force: true })
  }
  return async () => {
    if ((await ownerOf(path)) === me) await rm(path, { force: true })
  }
}

const ownerOf = (path: string): Promise<string | undefined> => readFile(path, 'utf8').catch(ignoreMissing)

function isExisting(error: NodeJS.ErrnoException): false {
  if (error.code !== 'EEXIST') throw error
  return false
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

/**
 * When a process was started, as text that no other process with its number has; undefined where there is none. Where the
 * system does not tell (no /proc), every live process counts as the owner.
 */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return undefined
  }
  try {
    const [stat, boot] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
    ])
    // Field 22 of proc(5), counted after the name, which may hold blanks and parentheses; state Z is a process that ended.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? undefined : `${boot.trim()}/${fields[19]}`
  } catch {
    return 'alive'
  }
}
