/** The token: in the tab's sessionStorage, never in an address. */

const KEY = 'agnt-analytics-token'

/**
 * The token of this tab. One in the fragment of the address wins, and is taken out of the address and of the history.
 * @returns '' where nobody is signed in
 */
export function takeToken(): string {
  const token = new URLSearchParams(location.hash.slice(1)).get('token')
  if (token === null) return sessionStorage.getItem(KEY) ?? ''
  history.replaceState(history.state, '', location.pathname + location.search)
  if (token) keepToken(token)
  return token
}

export const keepToken = (token: string): void => sessionStorage.setItem(KEY, token)
export const dropToken = (): void => sessionStorage.removeItem(KEY)

/**
 * What a token says of itself, unverified and for display only.
 * @returns the claims, {} where it is no JWT
 */
export function claimsOf(token: string): { org?: unknown } {
  try {
    const payload = (token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/')
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0))
    const claims: unknown = JSON.parse(new TextDecoder().decode(bytes))
    return typeof claims === 'object' && claims !== null ? claims : {}
  } catch {
    return {}
  }
}
