/** Structured logs: one JSON object a line on stderr. Values given here must never be tokens, keys or bodies. */
const LEVELS = { debug: 10, info: 20, warn: 30, error: 40, silent: 100 } as const

export type Level = Exclude<keyof typeof LEVELS, 'silent'>
export type Log = (level: Level, message: string, fields?: Record<string, unknown>) => void

// Where stderr is a file on a full disk, its lines are lost, and nothing else.
process.stderr.on('error', () => {})

export function createLog(minimum: keyof typeof LEVELS): Log {
  return (level, message, fields) => {
    if (LEVELS[level] < LEVELS[minimum]) return
    process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), level, message, ...fields })}\n`)
  }
}

/** So often a line is written of what keeps happening. */
const SELDOM_MS = 10_000
const MAX_KINDS = 1_000

/**
 * A log for what may happen with every request while something is wrong: of lines with the same message and the same `error`
 * or `cause`, the first is written, and after `everyMs` the next, with the number of those left out as `alike`. Those left out
 * are written at the level debug.
 */
export function seldom(log: Log, everyMs = SELDOM_MS): Log {
  const kinds = new Map<string, { writtenAt: number; alike: number }>()
  return (level, message, fields) => {
    const kind = `${level} ${message} ${String(fields?.['error'] ?? fields?.['cause'])}`
    const known = kinds.get(kind)
    const now = performance.now()
    if (known && now - known.writtenAt < everyMs) {
      known.alike++
      log('debug', message, fields)
      return
    }
    if (kinds.size >= MAX_KINDS) kinds.clear()
    kinds.set(kind, { writtenAt: now, alike: 0 })
    log(level, message, known && known.alike > 0 ? { ...fields, alike: known.alike } : fields)
  }
}
