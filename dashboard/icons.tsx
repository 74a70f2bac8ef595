/** Drawn here: no other host is asked for anything. All are decoration beside a text or a label. */
import type { ComponentChildren } from 'preact'

const Icon = ({ children }: { children: ComponentChildren }) => (
  <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
    {children}
  </svg>
)

const line = {
  fill: 'none',
  stroke: 'currentColor',
  'stroke-width': '1.5',
  'stroke-linecap': 'round',
  'stroke-linejoin': 'round',
} as const

export const Logo = () => (
  <svg class="logo" viewBox="0 0 32 32" width="24" height="24" aria-hidden="true" focusable="false">
    <rect width="32" height="32" rx="7" class="logo-ground" />
    <path d="M9 25v-8M16 25V11M23 25V7" class="logo-bars" />
  </svg>
)
export const Sun = () => (
  <Icon>
    <circle cx="8" cy="8" r="3" {...line} />
    <path d="M8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.4 3.4l.7.7M11.9 11.9l.7.7M3.4 12.6l.7-.7M11.9 4.1l.7-.7" {...line} />
  </Icon>
)
export const Moon = () => (
  <Icon>
    <path d="M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1Z" {...line} />
  </Icon>
)
export const Refresh = () => (
  <Icon>
    <path d="M13.2 6.2A5.6 5.6 0 0 0 3 5.4M2.8 9.8a5.6 5.6 0 0 0 10.2.8M3 2.4v3h3M13 13.6v-3h-3" {...line} />
  </Icon>
)
export const Chevron = () => (
  <Icon>
    <path d="M6 3.5 10.5 8 6 12.5" {...line} />
  </Icon>
)
export const Cross = () => (
  <Icon>
    <path d="m4.5 4.5 7 7M11.5 4.5l-7 7" {...line} />
  </Icon>
)
