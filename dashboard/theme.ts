/** Light or dark: the system's choice, until somebody chooses otherwise here. */
import { useEffect, useState } from 'preact/hooks'

const KEY = 'agnt-analytics-theme'
const system = matchMedia('(prefers-color-scheme: dark)')

export type Theme = 'light' | 'dark'

function currentTheme(): Theme {
  const chosen = localStorage.getItem(KEY)
  return chosen === 'light' || chosen === 'dark' ? chosen : system.matches ? 'dark' : 'light'
}

export function applyTheme(): void {
  document.documentElement.dataset['theme'] = currentTheme()
}

export function useTheme(): [theme: Theme, toggle: () => void] {
  const [theme, setTheme] = useState(currentTheme)
  const update = () => {
    applyTheme()
    setTheme(currentTheme())
  }
  useEffect(() => {
    system.addEventListener('change', update)
    return () => system.removeEventListener('change', update)
  }, [])
  const toggle = () => {
    const wanted = theme === 'dark' ? 'light' : 'dark'
    // What the system says anyway is not kept, so that the page follows the system again.
    if (wanted === (system.matches ? 'dark' : 'light')) localStorage.removeItem(KEY)
    else localStorage.setItem(KEY, wanted)
    update()
  }
  return [theme, toggle]
}
