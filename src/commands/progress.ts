/** Progress on stderr: a bar drawn over itself on a terminal, a plain line every few seconds anywhere else. */

/** How far the work is; `done` and `total` have one unit, whatever it is. */
export interface State {
  done: number
  /** Absent where nobody knows it, as with a pipe: then there is no percentage and no end in sight. */
  total?: number | undefined
  /** Events dealt with since the start. */
  events: number
}

const BAR_MS = 100
const LINE_MS = 5_000
const BAR_WIDTH = 24

export class Progress {
  readonly #label: string
  readonly #state: () => State
  readonly #started = performance.now()
  /** What was done already when this run began says nothing about its speed. */
  readonly #doneBefore: number
  readonly #bar = process.stderr.isTTY
  readonly #timer: NodeJS.Timeout

  constructor(label: string, state: () => State) {
    this.#label = label
    this.#state = state
    this.#doneBefore = state().done
    this.#timer = setInterval(() => this.#show(), this.#bar ? BAR_MS : LINE_MS)
    this.#timer.unref()
  }

  /** A line of its own, above the bar. */
  note(text: string): void {
    process.stderr.write(this.#bar ? `\r\x1b[K${text}\n` : `${text}\n`)
  }

  /** Shows the last state and stays silent from then on. */
  stop(): void {
    clearInterval(this.#timer)
    if (this.#bar) {
      this.#show()
      process.stderr.write('\n')
    }
  }

  #show(): void {
    const { done, total, events } = this.#state()
    const seconds = (performance.now() - this.#started) / 1000
    const parts = [`${formatCount(events)} events`, `${formatCount(events / Math.max(seconds, 0.001))}/s`, formatTime(seconds)]
    if (total !== undefined && total > 0) {
      const share = Math.min(done / total, 1)
      const speed = (done - this.#doneBefore) / seconds
      if (share < 1 && speed > 0) parts.push(`${formatTime((total - done) / speed)} left`)
      parts.unshift(`${Math.floor(share * 100)} %`.padStart(5))
      if (this.#bar) {
        const filled = Math.round(share * BAR_WIDTH)
        parts.unshift('█'.repeat(filled) + '░'.repeat(BAR_WIDTH - filled))
      }
    }
    const line = `${this.#label}  ${parts.join('  ')}`
    process.stderr.write(this.#bar ? `\r\x1b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}` : `${line}\n`)
  }
}

/** 204246 as `204,246`, on any machine. */
export const formatCount = (count: number): string => Math.round(count).toLocaleString('en-US')

export function formatBytes(bytes: number): string {
  if (bytes < 1e3) return `${bytes} B`
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`
}

const two = (value: number) => String(value).padStart(2, '0')

/** Seconds as `0:07` or `1:02:30`. */
function formatTime(seconds: number): string {
  const whole = Math.round(seconds)
  const minutes = Math.floor(whole / 60)
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`
}
