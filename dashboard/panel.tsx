/** What every panel has: a title, and something to show while it loads, where it is empty and when it fails. */
import type { ComponentChildren } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { ApiFailure } from './api.ts'
import { formatTime } from './format.ts'
import type { Answer } from './use-answer.ts'

interface PanelProps<T> {
  id: string
  title: string
  note?: ComponentChildren
  /** Controls beside the title. */
  actions?: ComponentChildren
  answer: Answer<T>
  timezone: string
  /** How many lines the placeholder has while the first answer is under way. */
  lines?: number
  /** @returns what to show; null where there is nothing */
  children(value: T): ComponentChildren | null
  empty: ComponentChildren
}

export function Panel<T>({ id, title, note, actions, answer, timezone, lines = 6, children, empty }: PanelProps<T>) {
  const { value, loading, stale } = answer
  return (
    <section id={id} class="card panel" aria-labelledby={`${id}-title`} aria-busy={loading}>
      <header>
        <div>
          <h2 id={`${id}-title`}>{title}</h2>
          {note && <p class="note">{note}</p>}
        </div>
        {actions}
      </header>
      <Failure answer={answer} timezone={timezone} />
      {value === undefined ? (
        loading && <Skeleton lines={lines} />
      ) : (
        <div class={stale ? 'content stale' : 'content'}>{children(value) ?? <p class="empty">{empty}</p>}</div>
      )}
    </section>
  )
}

export const Skeleton = ({ lines }: { lines: number }) => (
  <div class="skeleton" aria-hidden="true">
    {Array.from({ length: lines }, (_, line) => (
      <span key={line} />
    ))}
  </div>
)

/** Why there is no answer, and a way to ask again once the service may be asked again. */
export function Failure({ answer, timezone }: { answer: Answer<unknown>; timezone: string }) {
  const { failure, loading, retry, value, at } = answer
  const wait = useSecondsUntil(failure?.notBefore ?? 0)
  if (!failure) return null
  return (
    <div class="failure" role="alert">
      <p>
        <strong>{titleOf(failure)}</strong> {failure.message}
        {value !== undefined && at > 0 && ` The figures below are from ${formatTime(at, timezone)}.`}
      </p>
      <button type="button" onClick={retry} disabled={wait > 0 || loading}>
        {loading ? 'Asking…' : wait > 0 ? `Retry in ${wait} s` : 'Retry'}
      </button>
    </div>
  )
}

function titleOf({ status }: ApiFailure): string {
  if (status === 0) return 'No connection.'
  if (status === 429) return 'Too many requests.'
  if (status === 503) return 'The service is busy.'
  if (status === 400) return 'This cannot be asked.'
  return 'This could not be loaded.'
}

/** Whole seconds until an instant, counting down to 0. */
function useSecondsUntil(instant: number): number {
  const left = () => Math.max(0, Math.ceil((instant - Date.now()) / 1_000))
  const [seconds, setSeconds] = useState(left)
  useEffect(() => {
    setSeconds(left())
    if (instant <= Date.now()) return
    const timer = setInterval(() => {
      setSeconds(left())
      if (left() === 0) clearInterval(timer)
    }, 250)
    return () => clearInterval(timer)
  }, [instant])
  return seconds
}
