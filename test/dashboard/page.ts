/** The service on a port with a small fleet behind it, and pages of the dashboard that note all they ask for. */
import type { AddressInfo } from 'node:net'
import type { Browser, BrowserContextOptions, Page, Request } from 'playwright-core'
import { listen } from '../../src/http/server.ts'
import { signLocalToken, type Grant } from '../../src/auth/local-key.ts'
import { readConfig } from '../../src/config.ts'
import { startService } from '../support.ts'
import { launch } from './browser.ts'

/** A Sunday; the clocks of the service and of the browser begin here. */
export const NOW = '2026-03-01T12:00:00.000Z'
const HOUR_MS = 3_600_000

/** An id that breaks whatever puts text into markup, or into an address, as it is. */
export const HOSTILE = `<img src=x onerror="document.title='broken'">&user=a#?`

type Answerer = (request: globalThis.Request, next: () => Promise<Response>) => Response | Promise<Response>

export type Site = Awaited<ReturnType<typeof startSite>>

export async function startSite() {
  const service = await startService({ now: NOW })
  await service.store(fleet())
  /** Stands in for the service at some paths, by pathname. */
  const instead = new Map<string, Answerer>()
  const server = await listen(
    (request) => {
      const next = async () => service.app.fetch(request)
      return instead.get(new URL(request.url).pathname)?.(request, next) ?? next()
    },
    { host: '127.0.0.1', port: 0 },
  )
  const browser = await launch()
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  /** Every address that any page asked for, and what was wrong with any. */
  const asked: string[] = []
  const complaints: string[] = []

  return {
    service,
    origin,
    instead,
    asked,
    complaints,

    token: (grant: Partial<Grant> = {}) =>
      signLocalToken(service.localKey as Uint8Array, { org: 'acme', scope: 'analytics:read', ...grant }, readConfig({})),

    open: (options: BrowserContextOptions = {}) => openPage(browser, { asked, complaints, ...options }),

    /** Ends all pages: they would go on looking for what is new. */
    async closePages() {
      for (const context of browser.contexts()) await context.close()
    },

    async close() {
      await browser.close()
      server.closeAllConnections()
      server.close()
      await service.close()
    },
  }
}

interface PageOptions extends BrowserContextOptions {
  asked: string[]
  complaints: string[]
}

async function openPage(browser: Browser, { asked, complaints, ...options }: PageOptions) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 },
    timezoneId: 'Europe/Berlin',
    reducedMotion: 'reduce',
    ...options,
  })
  await context.clock.install({ time: NOW })
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  // What a page must not have: errors, refusals of its policy, dialogs.
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('console', (message) => {
    // Chromium notes every answer that is not a 2xx; those are part of the tests.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) complaints.push(message.text())
  })
  page.on('dialog', (dialog) => complaints.push(dialog.message()))
  page.on('request', (request) => asked.push(request.url()))
  return { page, context, requests: noted(page) }
}

/** Requests to the API since the last look, as path and parameters; none is forgotten while the test looks elsewhere. */
function noted(page: Page) {
  const list: Request[] = []
  page.on('request', (request) => {
    if (new URL(request.url()).pathname.startsWith('/analytics/')) list.push(request)
  })
  return {
    take() {
      return list.splice(0).map((request) => {
        const { pathname, searchParams } = new URL(request.url())
        return { path: pathname.slice('/analytics/'.length), parameters: Object.fromEntries(searchParams), request }
      })
    },
  }
}

/** Ten days of a few assistants; `night-owl` has been idle for nine days. */
function fleet(): object[] {
  const events: object[] = []
  const end = Date.parse(NOW)
  const add = (at: number, eventType: string, assistant: string, user: string, more: object = {}) =>
    events.push({ id: `e${events.length}`, eventType, timestamp: new Date(at).toISOString(), assistant, user, ...more })
  for (let hour = 1; hour <= 240; hour++) {
    const at = end - hour * HOUR_MS + 60_000
    const user = `user-${hour % 13}`
    add(at, 'incomingMessages', 'support', user, { metadata: { channel: 'web' } })
    add(at + 1_000, 'outgoingMessages', 'support', user, { cost: 0.0125, inputTokens: 900, outputTokens: 120, model: 'base-3' })
    if (hour % 3 === 0) {
      add(at + 2_000, 'tasksInitiated', 'support', user, { traceId: `trace-${hour}` })
      if (hour % 9 !== 0) add(at + 3_000, 'tasksCompleted', 'support', user)
    }
    if (hour % 2 === 0) add(at + 4_000, 'incomingMessages', 'billing', `user-${hour % 5}`)
    if (hour > 216) add(at + 5_000, 'incomingMessages', 'night-owl', 'user-1')
    if (hour % 4 === 0) add(at + 6_000, 'incomingMessages', HOSTILE, HOSTILE)
  }
  return events
}
