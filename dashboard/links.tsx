import type { ComponentChildren } from 'preact'
import type { Navigation } from './navigation.ts'
import type { State } from './state.ts'

interface StateLinkProps {
  navigation: Navigation
  change: Partial<State>
  class?: string
  label?: string
  children: ComponentChildren
}

/** A link to another state: an ordinary one, so that it can be copied and opened in a tab of its own. */
export function StateLink({ navigation, change, label, children, ...rest }: StateLinkProps) {
  const follow = (event: MouseEvent) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    event.preventDefault()
    navigation.go(change)
  }
  return (
    <a {...rest} href={navigation.href(change)} onClick={follow} {...(label ? { 'aria-label': label } : {})}>
      {children}
    </a>
  )
}
