/**
 * Which files a power cut would leave without their content: system calls of running processes are followed with strace,
 * and a file counts as written until it is synced. What was there before counts as synced.
 *
 * The names of files are taken to be kept, as file systems with an ordered journal of their metadata keep them (ext4, XFS): a
 * name that is on the disk stands for every change of names before it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { normalize } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const CALLS =
  'openat,creat,write,writev,pwrite64,pwritev,ftruncate,copy_file_range,fsync,fdatasync,rename,renameat,renameat2,link,linkat'

export interface Traced {
  /** Files below `directory` whose content is not on the disk, by the names they have now. */
  readonly unsynced: Set<string>
  /** How often each call was made: `fsync` and `fdatasync` among them. */
  readonly calls: Map<string, number>
}

/** Follows processes, threads and all, from when it returns until the function that it returns is called. */
export async function trace(pids: readonly number[], file: string, directory: string): Promise<() => Promise<Traced>> {
  const processes = pids.flatMap((pid) => ['-p', String(pid)])
  const tracer = spawn('strace', ['-f', '-y', '-s', '0', '-e', `trace=${CALLS}`, '-e', 'signal=none', '-o', file, ...processes], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let complaints = ''
  tracer.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text))
  for (const pid of pids) {
    while (!isTraced(pid)) {
      if (tracer.exitCode !== null) throw new Error(`strace cannot follow ${pid}: ${complaints}`)
      await sleep(20)
    }
  }
  // Threads are attached to one after the other.
  await sleep(1_000)
  return async () => {
    if (tracer.exitCode === null) {
      tracer.kill('SIGINT')
      await once(tracer, 'exit')
    }
    return parse(await readFile(file, 'utf8'), directory)
  }
}

const isTraced = (pid: number) => !/^TracerPid:\s+0$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))

/** Reads the output of `strace -f -y`. */
export function parse(text: string, directory: string): Traced {
  const unsynced = new Set<string>()
  const calls = new Map<string, number>()
  for (const line of text.split('\n')) {
    const [, call, given = ''] = /^\d+ +(\w+)\((.*)$/.exec(line) ?? []
    if (!call || / = -1 E/.test(given)) continue
    calls.set(call, (calls.get(call) ?? 0) + 1)
    const [, ofDescriptor] = /^\d+<([^>]+)>/.exec(given) ?? []
    const [from, to] = [...given.matchAll(/"([^"]*)"/g)].map(([, path = '']) => normalize(path).replace(/\/$/, ''))
    if (call === 'openat' || call === 'creat') {
      if (from?.startsWith(directory) && (call === 'creat' || /O_CREAT|O_TRUNC/.test(given))) unsynced.add(from)
    } else if (call.startsWith('rename')) {
      if (from === undefined || to === undefined) throw new Error(`not understood: ${line}`)
      unsynced.delete(to)
      for (const path of Array.from(unsynced)) {
        if (path !== from && !path.startsWith(`${from}/`)) continue
        unsynced.delete(path)
        unsynced.add(to + path.slice(from.length))
      }
    } else if (call.startsWith('link')) {
      if (from !== undefined && to !== undefined && unsynced.has(from)) unsynced.add(to)
    } else if (ofDescriptor?.startsWith(directory)) {
      if (call === 'fsync' || call === 'fdatasync') unsynced.delete(ofDescriptor)
      else unsynced.add(ofDescriptor)
    }
  }
  return { unsynced, calls }
}
