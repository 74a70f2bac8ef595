import { useEffect, useRef, useState } from 'preact/hooks'
import { Api, ApiFailure } from './api.ts'
import { Logo } from './icons.tsx'

/** @param reason why somebody who was signed in no longer is, '' where nobody was */
export function SignIn({ reason, onToken }: { reason: string; onToken(token: string): void }) {
  const [token, setToken] = useState('')
  const [fault, setFault] = useState(reason)
  const [checking, setChecking] = useState(false)
  const input = useRef<HTMLInputElement>(null)
  useEffect(() => {
    document.title = 'Sign in – AGNT Analytics'
    input.current?.focus()
  }, [])

  const submit = async (event: Event) => {
    event.preventDefault()
    // As it is pasted: out of a header, a shell or an e-mail.
    const given = token
      .trim()
      .replace(/^(export\s+TOKEN=|Bearer\s+)/i, '')
      .replaceAll(/["'\s]/g, '')
    if (!given) {
      setFault('Paste a token first.')
      input.current?.focus()
      return
    }
    setChecking(true)
    setFault('')
    try {
      // The cheapest question there is tells whether the token is any good.
      await new Api(given, () => {}).ask({ method: 'overview', query: { period: 'day' } })
      onToken(given)
    } catch (error) {
      setFault(explain(error))
      setChecking(false)
      input.current?.focus()
    }
  }

  return (
    <main class="sign-in">
      <form class="card" method="post" onSubmit={submit} noValidate>
        <h1>
          <Logo /> AGNT Analytics
        </h1>
        <p>What your assistants did, for whom, how well and at what cost.</p>
        <label for="token">Access token</label>
        <input
          ref={input}
          id="token"
          type="password"
          autocomplete="off"
          spellcheck={false}
          value={token}
          aria-describedby="token-hint token-fault"
          aria-invalid={fault !== ''}
          onInput={(event) => setToken(event.currentTarget.value)}
        />
        <p id="token-fault" class="fault" role="alert">
          {fault}
        </p>
        <button type="submit" class="primary" disabled={checking}>
          {checking ? 'Signing in…' : 'Sign in'}
        </button>
        <p id="token-hint" class="hint">
          A token with the scope <code>analytics:read</code>. A local service prints one when it starts, and{' '}
          <code>npm run --silent token</code> makes more. It stays in this tab and goes nowhere but to this service.
        </p>
      </form>
    </main>
  )
}

/** What somebody with a useless token has to know. */
export function explain(error: unknown): string {
  if (!(error instanceof ApiFailure)) return 'Something went wrong. Try again.'
  if (error.status === 401 && /expired/.test(error.message)) return 'The token has expired. Sign in with a new one.'
  if (error.status === 403) return `${error.message} Sign in with a token that has it.`
  return error.message
}
