/** A small disk of its own, to fill up: a tmpfs, where this system lets us mount one. */
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'

export interface Disk {
  readonly directory: string
  /** Takes up all that is free. */
  fill(): void
  /** Gives it back. */
  free(): void
  unmount(): void
}

/** @returns the disk, or why there is none */
export function mountDisk(directory: string, megabytes: number): Disk | string {
  if (process.platform !== 'linux') return `mounting a tmpfs is not possible on ${process.platform}`
  mkdirSync(directory, { recursive: true })
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', directory], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: Buffer }
    return `a tmpfs cannot be mounted: ${stderr?.toString().trim() || message}`
  }
  const filler = join(directory, 'filler')
  let mounted = true
  return {
    directory,
    fill() {
      const file = openSync(filler, 'a')
      try {
        // Smaller and smaller pieces, until not a page is left.
        for (const size of [1_048_576, 4_096, 1]) {
          const piece = Buffer.alloc(size)
          for (let i = 0; i < 10_000; i++) if (!wrote(file, piece)) break
        }
      } finally {
        closeSync(file)
      }
    },
    free: () => rmSync(filler, { force: true }),
    unmount() {
      if (!mounted) return
      mounted = false
      // Lazily: a process that is only just ending may still have files open.
      execFileSync('umount', ['-l', directory], { stdio: 'ignore' })
    },
  }
}

function wrote(file: number, piece: Buffer): boolean {
  try {
    return writeSync(file, piece) === piece.length
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return false
    throw error
  }
}
