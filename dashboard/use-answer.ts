import { useCallback, useEffect, useState } from 'preact/hooks'
import { ApiFailure, type Api } from './api.ts'
import { nameOf, type AnswerTo, type Method, type Question } from './questions.ts'

/** What there is to show of one request. */
export interface Answer<T> {
  /** The last good answer; while `stale`, one to an earlier question. */
  readonly value: T | undefined
  readonly stale: boolean
  readonly loading: boolean
  readonly failure: ApiFailure | undefined
  /** When `value` was last confirmed, epoch milliseconds; 0 where there is none. */
  readonly at: number
  retry(): void
}

interface Held<T> {
  question: string
  value?: T
  failure?: ApiFailure
  loading: boolean
  at: number
}

/**
 * Asks, and asks again whenever the question or `round` changes; what is under way is then aborted.
 * @param fixed what is asked, without the moving end of a range: an answer to the same question is only refreshed, one
 *   to another is stale
 * @param asked the same with its end; undefined asks nothing
 * @param read makes of the answer what is shown, with what was known when it was asked for
 */
export function useAnswer<M extends Method, T>(
  api: Api,
  fixed: Question<M>,
  asked: Question<M> | undefined,
  round: number,
  read: (answer: AnswerTo<M>) => T,
): Answer<T> {
  const question = nameOf(fixed)
  const [held, setHeld] = useState<Held<T>>({ question, loading: true, at: 0 })
  const [attempt, setAttempt] = useState(0)
  useEffect(() => {
    if (!asked) return
    const controller = new AbortController()
    setHeld((before) => ({ ...before, loading: true }))
    const ask = async () => {
      try {
        const value = read(await api.ask(asked, controller.signal))
        if (!controller.signal.aborted) setHeld({ question, value, loading: false, at: Date.now() })
      } catch (error) {
        if (controller.signal.aborted) return
        const failure = error instanceof ApiFailure ? error : new ApiFailure(0, 'The answer cannot be read.')
        // Beside its old figures a panel says that they are old; figures of another question would be wrong.
        setHeld((before) =>
          before.question === question ? { ...before, failure, loading: false } : { question, failure, loading: false, at: 0 },
        )
      }
    }
    void ask()
    return () => controller.abort()
  }, [api, question, asked && nameOf(asked), round, attempt])
  const retry = useCallback(() => setAttempt((count) => count + 1), [])
  return {
    value: held.value,
    stale: held.question !== question,
    loading: held.loading || held.question !== question,
    failure: held.question === question ? held.failure : undefined,
    at: held.at,
    retry,
  }
}
