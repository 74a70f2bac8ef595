/** The state in the address bar; back and forward move through it. */
import { useCallback, useEffect, useState } from 'preact/hooks'
import { changed, homeTimeZone, readState, writeState, type State } from './state.ts'

export interface Navigation {
  readonly state: State
  /** Cursors of the newer pages of the event log that led to this one, oldest step first. */
  readonly trail: readonly string[]
  go(change: Partial<State>, trail?: readonly string[]): void
  /** The address of a state that differs by `change`, to be used as a link. */
  href(change: Partial<State>): string
}

const read = () => ({
  state: readState(location.search, homeTimeZone()),
  trail: ((history.state as { trail?: string[] } | null)?.trail ?? []) as readonly string[],
})

/** The state of the address bar, and how to change it. */
export function useNavigation(): Navigation {
  const [current, setCurrent] = useState(read)
  useEffect(() => {
    history.replaceState(history.state, '', writeState(current.state))
    const onPop = () => setCurrent(read())
    addEventListener('popstate', onPop)
    return () => removeEventListener('popstate', onPop)
    // Only the state that the page begins with is completed.
  }, [])
  const go = useCallback((change: Partial<State>, trail: readonly string[] = []) => {
    const state = changed(read().state, change)
    if (writeState(state) !== location.search) history.pushState({ trail }, '', writeState(state))
    setCurrent({ state, trail })
  }, [])
  return { ...current, go, href: (change) => writeState(changed(current.state, change)) }
}
