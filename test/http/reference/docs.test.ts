/** The reference as a page: in a browser, since what it must be is what a browser makes of it. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { chromium, type Browser, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { listen } from '../../../src/http/server.ts'
import { openApi } from '../../../src/http/reference/document.ts'
import { reference } from '../../../src/http/reference/routes.ts'

/** Debian's package; another with CHROMIUM=… */
const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium'
const missing = !existsSync(CHROMIUM)
if (missing) console.warn(`skipped: there is no browser at ${CHROMIUM}; install chromium or set CHROMIUM`)

const app = reference()
const document = openApi()

test('is one page with everything that the document has', async () => {
  const response = await app.request('/docs')
  expect([response.status, response.headers.get('Content-Type')]).toEqual([200, 'text/html; charset=utf-8'])
  expect(response.headers.get('Content-Security-Policy')).toBe(
    "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  )
  const text = await response.text()
  for (const [path, item] of Object.entries(document.paths)) {
    for (const operation of Object.values(item)) {
      expect(text).toContain(`<section id="${operation.operationId}"`)
      for (const { name } of operation.parameters)
        expect([path, name, text.includes(`id="${operation.operationId}-${name}"`)]).toEqual([path, name, true])
    }
  }
  for (const name of Object.keys(document.components.responses)) expect(text).toContain(`id="error-${name}"`)
  expect(text).not.toMatch(/\[object|undefined|<style|style="|onclick|<script>/)
  const ids = [...text.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id)
  expect(
    ids.filter((id, at) => ids.indexOf(id) !== at),
    'no id twice',
  ).toEqual([])
  const links = [...text.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id)
  expect(
    links.filter((id) => !ids.includes(id)),
    'no link leads nowhere',
  ).toEqual([])
})

test('its files have validators', async () => {
  for (const path of ['/docs', '/docs/reference.css', '/docs/reference.js', '/openapi.json']) {
    const { headers } = await app.request(path)
    const again = await app.request(path, { headers: { 'If-None-Match': headers.get('ETag') ?? '' } })
    expect([path, again.status, headers.get('X-Content-Type-Options')]).toEqual([path, 304, 'nosniff'])
  }
})

describe.skipIf(missing)('in a browser', () => {
  let server: Server
  let browser: Browser
  let origin: string
  let axe: string
  beforeAll(async () => {
    axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
    server = await listen(app.fetch, { host: '127.0.0.1', port: 0 })
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] })
  })
  afterAll(async () => {
    await browser?.close()
    server?.closeAllConnections()
    await new Promise((closed) => server.close(closed))
  })

  async function open(
    { width = 1280, colorScheme = 'light' as 'light' | 'dark', javaScriptEnabled = true },
    work: (page: Page) => Promise<void>,
  ) {
    const context = await browser.newContext({
      viewport: { width, height: 900 },
      colorScheme,
      javaScriptEnabled,
      reducedMotion: 'reduce',
      permissions: ['clipboard-read', 'clipboard-write'],
    })
    const page = await context.newPage()
    const trouble: string[] = []
    page.on('console', (message) => message.type() === 'error' && trouble.push(message.text()))
    page.on('pageerror', (error) => trouble.push(String(error)))
    page.on('request', (request) => new URL(request.url()).origin !== origin && trouble.push(request.url()))
    try {
      await page.goto(`${origin}/docs`)
      await work(page)
      expect(trouble, 'nothing is refused, fails, or comes from elsewhere').toEqual([])
    } finally {
      await context.close()
    }
  }

  const violations = (page: Page) =>
    page.evaluate(
      `${axe}; axe.run().then(({ violations }) => violations.map(({ id, nodes }) => id + ': ' + nodes.slice(0, 3).map(({ html }) => html.slice(0, 120)).join(' | ')))`,
    )

  test.each([
    { width: 1440, colorScheme: 'light' },
    { width: 1440, colorScheme: 'dark' },
    { width: 360, colorScheme: 'light' },
    { width: 360, colorScheme: 'dark' },
  ] as const)('nothing that axe would complain of, and nothing too wide: $width $colorScheme', (how) =>
    open(how, async (page) => {
      expect(await violations(page)).toEqual([])
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(how.width)
      const seen = await page.evaluate('getComputedStyle(document.body).backgroundColor')
      expect(seen).toBe(how.colorScheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(18, 23, 31)')
    }),
  )

  test('an example is copied with one key, as it is shown', () =>
    open({}, async (page) => {
      const block = page.locator('#events .code').first()
      await block.getByRole('button', { name: 'Copy' }).press('Enter')
      await block.getByText('Copied').waitFor()
      const copied = await page.evaluate('navigator.clipboard.readText()')
      expect(copied).toBe(await block.locator('code').textContent())
      expect(copied).toContain('curl "$URL/analytics/events?startDate=2011-02-23&endDate=2011-02-24&limit=2"')
    }))

  test('by keyboard: past the contents at once, and a link of the contents leads to its section', () =>
    open({}, async (page) => {
      await page.keyboard.press('Tab')
      expect(await page.evaluate('document.activeElement.textContent')).toBe('Skip to the content')
      await page.keyboard.press('Enter')
      expect(await page.evaluate('document.activeElement.id')).toBe('content')
      await page.getByRole('navigation').getByRole('link', { name: 'GET /snapshots' }).press('Enter')
      await page.waitForURL('**/docs#snapshots')
      await expect
        .poll(() => page.evaluate('Math.round(document.querySelector("#snapshots").getBoundingClientRect().top)'))
        .toBeLessThan(200)
    }))

  test('on a narrow screen the contents are closed until they are asked for', () =>
    open({ width: 360 }, async (page) => {
      const link = page.getByRole('navigation').getByRole('link', { name: 'Errors' })
      expect(await link.isVisible()).toBe(false)
      await page.getByText('Contents', { exact: true }).click()
      await link.click()
      await page.waitForURL('**/docs#errors')
      expect(await link.isVisible()).toBe(false)
    }))

  test('without scripts it is whole', () =>
    open({ javaScriptEnabled: false }, async (page) => {
      expect(await page.getByRole('heading', { name: 'Event log' }).isVisible()).toBe(true)
      expect(await page.getByRole('button').count()).toBe(0)
    }))
})
