/**
 * `npm run screenshots`: the dashboard with the demo's traffic, and the reference, as pictures in docs/screenshots. The service runs on a
 * directory of its own, which is removed with it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { BrowserContextOptions, Page } from 'playwright-core'
import { launch, settled } from './browser.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const FOLDER = process.argv[2] ?? join(ROOT, 'docs/screenshots')
/** A month of traffic is made first. */
const START_MS = 180_000
const MAX_BYTES = 250_000

const DESKTOP = { width: 1440, height: 1240 }
const REFERENCE = { width: 1280, height: 1000 }
const PHONE = { width: 390, height: 1180 }

interface Picture {
  name: string
  /** Of the address. */
  search: string
  options: BrowserContextOptions
}

/** A whole number of days ago, YYYY-MM-DD in UTC. */
const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10)

const PICTURES: readonly Picture[] = [
  {
    name: 'dashboard-light',
    // As long as the demo has a past to compare it with.
    search: `?from=${daysAgo(13)}&to=${daysAgo(0)}&timezone=UTC`,
    options: { viewport: DESKTOP, colorScheme: 'light' },
  },
  {
    name: 'dashboard-dark',
    search: '?range=7d&timezone=Europe/Berlin&assistant=billing-helper',
    options: { viewport: DESKTOP, colorScheme: 'dark' },
  },
  {
    name: 'dashboard-phone',
    search: '?range=7d&timezone=UTC',
    options: { viewport: PHONE, colorScheme: 'light', isMobile: true, hasTouch: true },
  },
]

const dataDir = await mkdtemp(join(tmpdir(), 'analytics-screenshots-'))
const service = spawn(process.execPath, ['--import', 'tsx', 'src/commands/demo/index.ts'], {
  cwd: ROOT,
  env: { ...process.env, DATA_DIR: dataDir, HOST: '127.0.0.1', PORT: '0', LOG_LEVEL: 'error' },
  stdio: ['ignore', 'pipe', 'inherit'],
})
try {
  const link = await linkOf(service.stdout)
  await mkdir(FOLDER, { recursive: true })
  const browser = await launch()
  try {
    for (const picture of PICTURES) await take(picture, link)
    await takeReference(link)
  } finally {
    await browser.close()
  }

  async function take({ name, search, options }: Picture, { url, token }: Link): Promise<void> {
    const context = await browser.newContext({ ...options, reducedMotion: 'reduce' })
    const page = await context.newPage()
    await page.goto(`${url}/${search}#token=${token}`)
    await settled(page)
    // The charts are drawn in the frame after.
    await page.waitForTimeout(300)
    await save(page, name)
    await context.close()
  }

  async function takeReference({ url }: Link): Promise<void> {
    const context = await browser.newContext({ viewport: REFERENCE, colorScheme: 'light' })
    const page = await context.newPage()
    await page.goto(`${url}/docs`)
    await save(page, 'reference')
    await context.close()
  }

  async function save(page: Page, name: string): Promise<void> {
    const path = join(FOLDER, `${name}.png`)
    await page.screenshot({ path })
    const { size } = await stat(path)
    process.stdout.write(`${path} ${Math.round(size / 1_000)} kB\n`)
    if (size > MAX_BYTES) throw new Error(`${path} is larger than ${MAX_BYTES} bytes`)
  }
} finally {
  if (service.exitCode === null) {
    service.kill('SIGTERM')
    await once(service, 'exit')
  }
  await rm(dataDir, { recursive: true, force: true, maxRetries: 5 })
}

interface Link {
  url: string
  token: string
}

/** What the service prints for people to follow. */
function linkOf(stdout: Readable): Promise<Link> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('the service took too long to start')), START_MS)
    let text = ''
    stdout.on('data', (chunk) => {
      text += String(chunk)
      const [, url, token] = /(http:\/\/\S+)\/#token=(\S+)\n/.exec(text) ?? []
      if (!url || !token) return
      clearTimeout(late)
      resolve({ url, token })
    })
    stdout.on('end', () => {
      clearTimeout(late)
      reject(new Error(`the service ended:\n${text}`))
    })
  })
}
