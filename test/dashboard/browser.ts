/** The browser of the dashboard's tests and screenshots: CHROMIUM, or the one of Debian's package `chromium`. */
import { existsSync } from 'node:fs'
import { chromium, type Browser, type Page } from 'playwright-core'

const INSTALLED = '/usr/bin/chromium'

export function chromiumPath(): string | undefined {
  const named = process.env['CHROMIUM']
  // A name that is wrong must not make the tests disappear.
  if (named && !existsSync(named)) throw new Error(`CHROMIUM=${named} does not exist`)
  return named || (existsSync(INSTALLED) ? INSTALLED : undefined)
}

export const NO_CHROMIUM = `no Chromium: install Debian's package "chromium" (${INSTALLED}), or name one in CHROMIUM`

export function launch(): Promise<Browser> {
  const executablePath = chromiumPath()
  if (!executablePath) throw new Error(NO_CHROMIUM)
  return chromium.launch({
    executablePath,
    args: [
      // Tests run as root in containers, where the sandbox does not start.
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
  })
}

/** All panels have their answers, or their failures. (Not waitForFunction: it evaluates text, which the page's policy refuses.) */
export async function settled(page: Page): Promise<void> {
  await page.locator('#events').waitFor()
  await page.locator('main:not(:has([aria-busy="true"]))').waitFor()
}
