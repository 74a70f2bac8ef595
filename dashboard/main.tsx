/** The dashboard's entry: who is signed in, and then the page. */
import { render } from 'preact'
import { useCallback, useState } from 'preact/hooks'
import { Dashboard } from './dashboard.tsx'
import { dropToken, keepToken, takeToken } from './session.ts'
import { SignIn } from './sign-in.tsx'
import { applyTheme } from './theme.ts'
import './styles.css'

// First of all: the token leaves the address bar before anything else can read the address.
const initialToken = takeToken()
applyTheme()

function App() {
  const [token, setToken] = useState(initialToken)
  const [reason, setReason] = useState('')
  const signIn = useCallback((given: string) => {
    keepToken(given)
    setReason('')
    setToken(given)
  }, [])
  const signOut = useCallback((why = '') => {
    dropToken()
    setReason(why)
    setToken('')
  }, [])
  return token ? <Dashboard key={token} token={token} onSignOut={signOut} /> : <SignIn reason={reason} onToken={signIn} />
}

render(<App />, document.body)
