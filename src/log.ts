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
