/** The dashboard in a browser, on the real service. */
import { EventEmitter, once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Locator, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { formatCost, formatCount, formatRate } from '../../dashboard/format.ts'
import { chromiumPath, NO_CHROMIUM, settled } from './browser.ts'
import { HOSTILE, startSite, type Site } from './page.ts'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

const available = chromiumPath() !== undefined
if (!available) console.warn(`test/dashboard/dashboard.test.ts is skipped: ${NO_CHROMIUM}`)

let site: Site

/** A page that is signed in, at a state. */
async function signedIn(search = '?range=7d&timezone=UTC', options: Parameters<Site['open']>[0] = {}, grant = {}) {
  const opened = await site.open(options)
  await opened.page.goto(`${site.origin}/${search}#token=${await site.token(grant)}`)
  await settled(opened.page)
  return opened
}

const stateOf = (page: Page) => Object.fromEntries(new URL(page.url()).searchParams)
const choose = (page: Page, period: string) => page.getByRole('radio', { name: period }).check()
const card = (page: Page, label: string) => page.locator('.figure', { has: page.getByText(label, { exact: true }) })
const textOf = async (locator: Locator) => (await locator.innerText()).replaceAll(/\s+/g, ' ')

const busy = (seconds: number, status: number) =>
  Response.json(
    { success: false, error: { code: 'unavailable', message: 'Too many questions are being answered right now.', details: [] } },
    { status, headers: { 'Retry-After': String(seconds) } },
  )

/** What axe finds, told so that it can be found again. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE)
  const run = `axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations'] })`
  const found = (await page.evaluate(run)) as {
    passes: unknown[]
    violations: Array<{ id: string; help: string; nodes: Array<{ html: string; failureSummary: string }> }>
  }
  expect(found.passes.length).toBeGreaterThan(10)
  return found.violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0]?.html} ${nodes[0]?.failureSummary}`)
}

describe.skipIf(!available)('the dashboard', () => {
  beforeAll(async () => {
    site = await startSite()
  })
  afterEach(async () => {
    site.instead.clear()
    await site.closePages()
  })
  afterAll(() => site?.close())

  describe('signing in', () => {
    test('takes a pasted token, keeps it in the tab and out of every address, and forgets it', async () => {
      const { page, requests } = await site.open()
      const scripts: Array<Promise<number>> = []
      page.on('requestfinished', (request) => {
        if (request.resourceType() === 'script') scripts.push(request.sizes().then(({ responseBodySize }) => responseBodySize))
      })
      await page.goto(`${site.origin}/?range=30d`)
      const field = page.getByLabel('Access token')
      await page.getByRole('button', { name: 'Sign in' }).click()
      expect(await page.getByRole('alert').innerText()).toBe('Paste a token first.')
      await field.fill('nonsense')
      await field.press('Enter')
      await page.getByText('The token is refused: malformed.').waitFor()

      const token = await site.token()
      await field.fill(` Bearer ${token}\n`)
      await page.getByRole('button', { name: 'Sign in' }).click()
      await settled(page)
      // All the JavaScript that a first paint costs, as transferred; the project allows itself 200 kB.
      const transferred = (await Promise.all(scripts)).reduce((total, size) => total + size, 0)
      expect(transferred).toBeGreaterThan(5_000)
      expect(transferred).toBeLessThan(60_000)
      expect(stateOf(page)).toEqual({ range: '30d', timezone: 'Europe/Berlin' })
      expect(requests.take().filter(({ request }) => request.url().includes(token))).toEqual([])
      expect(await page.evaluate('JSON.stringify([localStorage, document.cookie])')).not.toContain(token)
      await page.reload()
      await settled(page)

      await page.getByRole('button', { name: 'Sign out' }).click()
      await field.waitFor()
      expect(await page.evaluate('sessionStorage.length')).toBe(0)
      await page.reload()
      await field.waitFor()
    })

    test('says why a token is of no use, and keeps the place', async () => {
      for (const [grant, reason] of [
        [{ expiresInSeconds: -60 }, 'The token has expired. Sign in with a new one.'],
        [{ scope: 'analytics:write' }, 'The token lacks the scope analytics:read. Sign in with a token that has it.'],
      ] as const) {
        const { page } = await site.open()
        await page.goto(`${site.origin}/?range=90d&timezone=UTC#token=${await site.token(grant)}`)
        await page.getByText(reason).waitFor()
        expect(await page.evaluate('sessionStorage.length')).toBe(0)
        // The same by hand.
        await page.getByLabel('Access token').fill(await site.token(grant))
        await page.getByRole('button', { name: 'Sign in' }).click()
        await page.getByText(reason).waitFor()
        await page.getByLabel('Access token').fill(await site.token())
        await page.getByRole('button', { name: 'Sign in' }).click()
        await settled(page)
        expect(stateOf(page)).toEqual({ range: '90d', timezone: 'UTC' })
        await page.close()
      }
    })
  })

  describe('the figures', () => {
    test('are those of the API, each panel from one request', async () => {
      const { page, requests } = await signedIn()
      expect(
        requests
          .take()
          .map(({ path }) => path)
          .sort(),
      ).toEqual(['assistants', 'events', 'rolling', 'users/top'])

      const end = { endDate: '2026-03-01T12:01:00Z' }
      const dates = { startDate: '2026-02-22T12:01:00Z', ...end }
      const rolling = await site.service.data('rolling', { window: 7, ...end })
      expect(rolling.tasksInitiated).toBeGreaterThan(0)
      const messages = rolling.incomingMessages + rolling.outgoingMessages
      expect(await textOf(card(page, 'Messages'))).toContain(formatCount(messages))
      expect(await textOf(card(page, 'Active users'))).toContain(formatCount(rolling.activeUsers))
      expect(await textOf(card(page, 'Tasks completed'))).toContain(formatCount(rolling.tasksCompleted))
      expect(await textOf(card(page, 'Completion rate'))).toContain(formatRate(rolling.completionRate))
      const cost = await textOf(card(page, 'Cost'))
      expect(cost).toContain(formatCost(rolling.cost))
      expect(cost).toContain(`from ${formatCost(rolling.previous.cost)}`)
      expect(cost).toContain(`+${(rolling.change.cost * 100).toFixed(1)}%`)

      const assistants = await site.service.data('assistants', dates)
      const names = await page.locator('#assistants tbody th .name').allInnerTexts()
      expect(names).toEqual(assistants.map(({ assistant }: { assistant: string }) => assistant))
      expect(names.length).toBe(4)
      const users = await site.service.data('users/top', { ...dates, limit: 10 })
      expect(await page.locator('#users tbody th .name').allInnerTexts()).toEqual(users.map(({ user }: { user: string }) => user))
      expect(await page.locator('#events tbody tr').count()).toBe(50)
      expect(await page.locator('#events .pages').innerText()).toContain(`1 to 50 of ${formatCount(rolling.total)} events`)
    })

    test('say which assistants are idle, and which have fallen quiet, in the order that is asked for', async () => {
      const { page } = await signedIn()
      const names = () => page.locator('#assistants tbody .name').allInnerTexts()
      const busiest = await names()
      await page.getByRole('button', { name: 'Events', exact: true }).click()
      expect(await names()).toEqual(busiest.toReversed())
      expect(await page.getByRole('columnheader', { name: 'Events' }).first().getAttribute('aria-sort')).toBe('ascending')
      await page.getByRole('button', { name: 'Last active' }).first().click()
      expect((await names())[0]).toBe('night-owl')

      const idle = page.locator('#assistants tbody tr', { hasText: 'Idle' })
      expect(await idle.locator('.name').allInnerTexts()).toEqual(['night-owl'])
      expect(await textOf(page.locator('#assistants .notice'))).toContain('night-owl, idle in the whole range')
      await choose(page, '30 days')
      await settled(page)
      expect(await page.locator('#assistants tbody tr', { hasText: 'Quiet' }).locator('.name').allInnerTexts()).toEqual([
        'night-owl',
      ])
    })

    test('of the charts are there to be read, too', async () => {
      const { page } = await signedIn('?range=7d&timezone=Asia/Tokyo')
      const { series } = await site.service.data('rolling', {
        window: 7,
        endDate: '2026-03-01T12:01:00Z',
        timezone: 'Asia/Tokyo',
      })
      for (const [panel, figure] of [
        ['messages', ({ incomingMessages }: Record<string, number>) => String(incomingMessages)],
        ['completion', ({ completionRate }: Record<string, number>) => formatRate(completionRate ?? null)],
        ['cost', ({ cost }: Record<string, number>) => formatCost(cost ?? 0)],
      ] as const) {
        expect(await page.locator(`#${panel} canvas`).count()).toBe(1)
        expect(await page.locator(`#${panel} [role=img]`).getAttribute('aria-label')).toMatch(/a day, 22 Feb to 1 Mar: /)
        await page.locator(`#${panel} summary`).click()
        const cells = page.locator(`#${panel} tbody td:nth-of-type(1)`)
        expect(await cells.allInnerTexts()).toEqual(series.toReversed().map(figure))
      }
      // Something is drawn.
      const drawn = `[...document.querySelectorAll('.chart canvas')].map((canvas) => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
        return data.some((value, at) => at % 4 === 3 && value > 200)
      })`
      expect(await page.evaluate(drawn)).toEqual([true, true, true])
      await page.getByRole('link', { name: 'Thu, 26 Feb 2026' }).first().click()
      await settled(page)
      expect(stateOf(page)).toEqual({ from: '2026-02-26', to: '2026-02-26', timezone: 'Asia/Tokyo' })
    })

    test('show ids as they are, whatever is in them', async () => {
      const { page, requests } = await signedIn()
      requests.take()
      const link = page.locator('#users').getByRole('link', { name: HOSTILE })
      expect(await link.innerText()).toBe(HOSTILE)
      await link.click()
      await settled(page)
      expect(stateOf(page)['user']).toBe(HOSTILE)
      expect(await page.title()).toContain(HOSTILE)
      expect(await page.locator('img').count()).toBe(0)
      const asked = requests.take()
      expect(asked.find(({ path }) => path === 'rolling')?.parameters['user']).toBe(HOSTILE)
      const { total } = await site.service.data('rolling', { window: 7, endDate: '2026-03-01T12:01:00Z', user: HOSTILE })
      expect(total).toBeGreaterThan(0)
      expect(await page.locator('#events .pages').innerText()).toContain(`1 to ${total} of ${total} events`)
    })

    test('are none where there is nothing', async () => {
      const { page } = await signedIn('?range=7d&timezone=UTC', {}, { org: 'nobody-yet' })
      expect(await page.getByText('No events in this range or the one before.').isVisible()).toBe(true)
      for (const [panel, text] of [
        ['messages', 'No messages in this range.'],
        ['assistants', 'No assistant was active'],
        ['users', 'Nobody was active'],
        ['events', 'No events match.'],
      ] as const) {
        expect(await page.locator(`#${panel}`).innerText()).toContain(text)
      }
    })
  })

  describe('the controls', () => {
    test('change what is asked, what is shown and the address; back and forward move through it', async () => {
      const { page, requests } = await signedIn()
      const after = async (change: () => Promise<unknown>) => {
        requests.take()
        await change()
        await settled(page)
        const asked = requests.take()
        return {
          state: stateOf(page),
          of: (path: string) => asked.find((one) => one.path === path)?.parameters,
          count: asked.length,
        }
      }

      for (const [label, range, window] of [
        ['24 hours', '24h', '1'],
        ['30 days', '30d', '30'],
        ['90 days', '90d', '90'],
        ['7 days', '7d', '7'],
      ] as const) {
        const { state, of, count } = await after(() => choose(page, label))
        expect(state).toEqual({ range, timezone: 'UTC' })
        expect(of('rolling')?.['window']).toBe(window)
        // A day has no trend of its own.
        expect(count).toBe(range === '24h' ? 5 : 4)
      }

      await choose(page, 'Dates')
      await page.getByLabel('First day').fill('2026-02-25')
      await page.getByLabel('Last day').fill('2026-02-20')
      await page.getByRole('button', { name: 'Show', exact: true }).click()
      await page.getByText('The last day is before the first.').waitFor()
      await page.getByLabel('Last day').fill('2026-02-26')
      const dates = await after(() => page.getByRole('button', { name: 'Show', exact: true }).click())
      expect(dates.state).toEqual({ from: '2026-02-25', to: '2026-02-26', timezone: 'UTC' })
      expect(dates.of('rolling')).toEqual({ window: '2', endDate: '2026-02-27', timezone: 'UTC' })
      expect(dates.of('assistants')).toEqual({ startDate: '2026-02-25', endDate: '2026-02-27', timezone: 'UTC' })

      const assistant = await after(() => page.getByLabel('Assistant', { exact: true }).selectOption('billing'))
      expect(assistant.state).toMatchObject({ assistant: 'billing' })
      for (const path of ['rolling', 'users/top', 'events']) expect(assistant.of(path)?.['assistant']).toBe('billing')
      // The list to choose from stays whole: it is not asked again.
      expect(assistant.of('assistants')).toBeUndefined()
      expect(await page.locator('#assistants tr[aria-current] .name').innerText()).toBe('billing')

      const user = await after(async () => {
        await page.getByLabel('User', { exact: true }).fill('user-3')
        await page.getByLabel('User', { exact: true }).press('Enter')
      })
      expect(user.state).toMatchObject({ assistant: 'billing', user: 'user-3' })
      for (const path of ['rolling', 'assistants', 'events']) expect(user.of(path)?.['user']).toBe('user-3')

      const zone = await after(() => page.getByLabel('Time zone').selectOption('Asia/Tokyo'))
      expect(zone.state).toMatchObject({ timezone: 'Asia/Tokyo' })
      for (const path of ['rolling', 'assistants', 'users/top', 'events']) expect(zone.of(path)?.['timezone']).toBe('Asia/Tokyo')

      const type = await after(() => page.getByLabel('Type', { exact: true }).selectOption('incomingMessages'))
      expect(type.state).toMatchObject({ type: 'incomingMessages' })
      expect(type.of('events')?.['eventType']).toBe('incomingMessages')
      expect(type.count).toBe(1)
      expect(new Set(await page.locator('#events tbody .type').allInnerTexts())).toEqual(new Set(['Message in']))

      const cleared = await after(() => page.getByRole('link', { name: 'Remove the filter by assistant' }).click())
      expect(cleared.state).not.toHaveProperty('assistant')
      expect(cleared.state).toMatchObject({ user: 'user-3', type: 'incomingMessages' })

      const full = page.url()
      await page.goBack()
      await settled(page)
      expect(stateOf(page)).toMatchObject({ assistant: 'billing' })
      expect(await page.getByLabel('Assistant', { exact: true }).inputValue()).toBe('billing')
      for (let step = 0; step < 4; step++) await page.goBack()
      await settled(page)
      expect(stateOf(page)).toEqual({ from: '2026-02-25', to: '2026-02-26', timezone: 'UTC' })
      expect(await page.getByLabel('User', { exact: true }).inputValue()).toBe('')
      for (let step = 0; step < 5; step++) await page.goForward()
      await settled(page)
      expect(page.url()).toBe(full)
    })

    test('stand as a link says', async () => {
      const { page, requests } = await signedIn(
        '?from=2026-02-20&to=2026-02-28&assistant=support&user=user-1&timezone=America/New_York&type=tasksInitiated',
      )
      const asked = requests.take()
      expect(asked.length).toBe(4)
      // The token came in the fragment, which is gone from the address and from the history.
      expect(page.url()).not.toContain('#')
      expect(await page.evaluate('history.length')).toBeLessThanOrEqual(2)
      expect(asked.find(({ path }) => path === 'events')?.parameters).toEqual({
        startDate: '2026-02-20',
        endDate: '2026-03-01',
        assistant: 'support',
        user: 'user-1',
        timezone: 'America/New_York',
        eventType: 'tasksInitiated',
        limit: '50',
      })
      expect(await page.getByRole('radio', { name: 'Dates' }).isChecked()).toBe(true)
      expect(await page.getByLabel('First day').inputValue()).toBe('2026-02-20')
      expect(await page.getByLabel('Last day').inputValue()).toBe('2026-02-28')
      expect(await page.getByLabel('Assistant', { exact: true }).inputValue()).toBe('support')
      expect(await page.getByLabel('User', { exact: true }).inputValue()).toBe('user-1')
      expect(await page.getByLabel('Time zone').inputValue()).toBe('America/New_York')
      expect(await page.getByLabel('Type', { exact: true }).inputValue()).toBe('tasksInitiated')
      expect(await page.locator('.heading h2').innerText()).toBe('20 Feb to 28 Feb')
    })

    test('page through the log without missing or repeating an event', async () => {
      const { page } = await signedIn('?range=7d&timezone=UTC&type=incomingMessages')
      const times = async () => page.locator('#events tbody time').evaluateAll((all) => all.map((one) => one.dateTime as string))
      const pages = [await times()]
      const older = page.getByRole('button', { name: 'Older' })
      while (await older.isEnabled()) {
        await older.click()
        await settled(page)
        pages.push(await times())
      }
      const { pagination, data } = await site.service.whole('events', {
        startDate: '2026-02-22T12:01:00Z',
        endDate: '2026-03-01T12:01:00Z',
        eventType: 'incomingMessages',
        limit: 1_000,
      })
      expect(pages.length).toBe(Math.ceil(pagination.total / 50))
      expect(pages.length).toBeGreaterThan(3)
      expect(pages.flat()).toEqual(data.map(({ timestamp }: { timestamp: string }) => timestamp))
      expect(await page.locator('#events .pages').innerText()).toContain(`to ${pagination.total} of ${pagination.total} events`)

      await page.getByRole('button', { name: 'Newer' }).click()
      await settled(page)
      expect(await times()).toEqual(pages.at(-2))
      await page.reload()
      await settled(page)
      expect(await times()).toEqual(pages.at(-2))
      await page.goBack()
      await settled(page)
      expect(await times()).toEqual(pages.at(-1))
      await page.getByRole('button', { name: 'Newest' }).click()
      await settled(page)
      expect(await times()).toEqual(pages[0])
      expect(stateOf(page)).not.toHaveProperty('cursor')

      await page
        .locator('#events')
        .getByRole('button', { name: /^Details/ })
        .first()
        .click()
      expect(await textOf(page.locator('#events .details'))).toBe('Id e0 UTC 2026-03-01T11:01:00.000Z channel web')
    })

    test('abort what nobody waits for any more', async () => {
      const { page } = await signedIn()
      const failed: string[] = []
      page.on('requestfailed', (request) => {
        const { pathname, searchParams } = new URL(request.url())
        if (pathname.endsWith('/rolling')) failed.push(`${searchParams.get('window')} ${request.failure()?.errorText}`)
      })
      const release = new EventEmitter()
      site.instead.set('/analytics/rolling', async (request, next) => {
        if (new URL(request.url).searchParams.get('window') === '30') await once(release, 'now')
        return next()
      })
      await choose(page, '30 days')
      await page.locator('.stale').first().waitFor()
      await choose(page, '90 days')
      await settled(page)
      expect(failed).toEqual(['30 net::ERR_ABORTED'])
      expect(await page.locator('.heading h2').innerText()).toBe('Last 90 days')
      release.emit('now')
    })

    test('work from the keyboard', async () => {
      const { page } = await signedIn()
      await page.keyboard.press('Tab')
      expect(await page.evaluate('document.activeElement.textContent')).toBe('Skip to the figures')
      await page.keyboard.press('Enter')
      expect(await page.evaluate('document.activeElement.id')).toBe('figures')
      await page.getByRole('radio', { name: '7 days' }).focus()
      await page.keyboard.press('ArrowRight')
      await settled(page)
      expect(stateOf(page)['range']).toBe('30d')
      await page.getByRole('radio', { name: 'Dates' }).press('Space')
      await page.keyboard.press('Tab')
      expect(await page.evaluate('document.activeElement.id')).toBe('from')
      const link = page.locator('#assistants .name').first()
      await link.focus()
      expect(await page.evaluate('getComputedStyle(document.activeElement).outlineStyle')).toBe('solid')
      await page.keyboard.press('Enter')
      await settled(page)
      expect(stateOf(page)['assistant']).toBe('support')
      expect(await page.getByRole('status').innerText()).toMatch(/^last 30 days, support: [\d,]+ messages, completion rate/)
    })
  })

  describe('new events', () => {
    test('are looked for on demand and by itself; what has not changed costs a 304', async () => {
      const { page, requests } = await signedIn()
      const statuses: number[] = []
      page.on('response', (response) => {
        if (response.url().includes('/analytics/')) statuses.push(response.status())
      })
      requests.take()
      await page.getByRole('button', { name: 'Refresh' }).click()
      await expect.poll(() => statuses.length).toBe(4)
      expect(statuses).toEqual([304, 304, 304, 304])
      await settled(page)
      expect(await page.locator('#events tbody tr').count()).toBe(50)

      statuses.length = 0
      await site.service.store([
        {
          id: 'just-now',
          eventType: 'incomingMessages',
          timestamp: '2026-03-01T11:59:59Z',
          assistant: 'support',
          user: 'user-1',
        },
      ])
      await page.clock.fastForward(16_000)
      await expect.poll(() => statuses.length).toBe(4)
      expect(statuses).toEqual([200, 200, 200, 200])
      await page.locator('#events time[datetime="2026-03-01T11:59:59.000Z"]').waitFor()

      statuses.length = 0
      await page.getByRole('button', { name: 'Live' }).click()
      await page.getByRole('button', { name: 'Live', pressed: false }).waitFor()
      await page.clock.fastForward(60_000)
      await page.waitForTimeout(200)
      expect(statuses).toEqual([])
    })
  })

  describe('an API that fails', () => {
    test('is told where it fails, and asked again when it said', async () => {
      site.instead.set('/analytics/assistants', () => busy(2, 503))
      site.instead.set('/analytics/users/top', () => busy(60, 429))
      const { page, requests } = await signedIn()
      const [assistants, users] = [page.locator('#assistants'), page.locator('#users')]
      expect(await textOf(assistants.getByRole('alert'))).toMatch(/^The service is busy. Too many questions .* Retry in [12] s$/)
      expect(await textOf(users.getByRole('alert'))).toMatch(/^Too many requests. Too many questions .* Retry in [56]\d s$/)
      expect(await assistants.getByRole('button', { name: /Retry/ }).isDisabled()).toBe(true)
      expect(await page.locator('#events tbody tr').count()).toBe(50)
      expect(await violations(page)).toEqual([])
      site.instead.clear()
      requests.take()
      await assistants.getByRole('button', { name: 'Retry', exact: true }).click()
      await assistants.locator('tbody tr').first().waitFor()
      expect(await assistants.getByRole('alert').count()).toBe(0)
      expect(requests.take().map(({ path }) => path)).toEqual(['assistants'])

      // What looks for news by itself waits for the longer pause.
      await page.clock.fastForward(40_000)
      await page.waitForTimeout(100)
      expect(requests.take()).toEqual([])
      expect(await users.getByRole('alert').count()).toBe(1)
      await page.clock.fastForward(30_000)
      await users.locator('tbody tr').first().waitFor()
      expect(await users.getByRole('alert').count()).toBe(0)
    })

    test('while it is looked for news keeps the old figures, and says so', async () => {
      const { page } = await signedIn()
      site.instead.set('/analytics/rolling', () => Response.json({}, { status: 500 }))
      await page.getByRole('button', { name: 'Refresh' }).click()
      const alert = page.locator('.summary').getByRole('alert')
      await alert.waitFor()
      expect(await alert.innerText()).toMatch(
        /This could not be loaded. The service answered 500. The figures below are from 12:00:\d\d/,
      )
      expect(await page.locator('.figure').count()).toBe(6)
      // Figures of another question would be wrong ones.
      await choose(page, '30 days')
      await settled(page)
      expect(await page.locator('.figure').count()).toBe(0)
      expect(await page.getByRole('alert').count()).toBeGreaterThanOrEqual(2)
    })

    test('by being away is told from one that answers', async () => {
      const { page, context } = await signedIn()
      await context.setOffline(true)
      await page.getByRole('button', { name: 'Refresh' }).click()
      await page.getByText('The service cannot be reached.').first().waitFor()
      await context.setOffline(false)
      await page.locator('#events').getByRole('button', { name: 'Retry' }).click()
      await settled(page)
      expect(await page.locator('#events').getByRole('alert').count()).toBe(0)
    })

    test('by refusing the token leads back to the sign-in', async () => {
      const { page } = await signedIn()
      const refusal = { error: { message: 'The token is refused: expired.' } }
      site.instead.set('/analytics/events', () => Response.json(refusal, { status: 401 }))
      await page.getByRole('button', { name: 'Refresh' }).click()
      await page.getByText('The token has expired. Sign in with a new one.').waitFor()
      expect(await page.evaluate('sessionStorage.length')).toBe(0)
    })
  })

  describe('for everybody', () => {
    test('fits a narrow screen', async () => {
      const { page } = await signedIn('?range=7d&timezone=UTC&assistant=support', {
        viewport: { width: 360, height: 740 },
        isMobile: true,
        hasTouch: true,
      })
      const widths = () => page.evaluate('[document.documentElement.scrollWidth, document.body.scrollWidth]')
      expect(await widths()).toEqual([360, 360])
      await choose(page, 'Dates')
      await page
        .locator('#events')
        .getByRole('button', { name: /^Details/ })
        .first()
        .tap()
      for (const summary of await page.locator('summary').all()) await summary.tap()
      expect(await widths()).toEqual([360, 360])
      // What one points at is large enough, and not cut off.
      for (const name of ['Live', 'Refresh', 'Sign out', 'Older']) {
        const box = await page.getByRole('button', { name }).boundingBox()
        expect(box?.height).toBeGreaterThanOrEqual(32)
        expect((box?.x ?? 0) + (box?.width ?? 0)).toBeLessThanOrEqual(360)
      }
    })

    test('is dark where the system is, and as somebody chose', async () => {
      const { page } = await signedIn('?range=7d&timezone=UTC', { colorScheme: 'dark' })
      const ground = () => page.evaluate(`getComputedStyle(document.documentElement).backgroundColor`)
      const dark = await ground()
      expect(dark).toBe('rgb(13, 16, 21)')
      await page.getByRole('button', { name: 'Use the light theme' }).click()
      expect(await ground()).toBe('rgb(244, 245, 247)')
      expect(new URL(page.url()).search).toBe('?range=7d&timezone=UTC')
      await page.reload()
      await settled(page)
      expect(await ground()).toBe('rgb(244, 245, 247)')
      await page.getByRole('button', { name: 'Use the dark theme' }).click()
      expect(await ground()).toBe(dark)
      await page.emulateMedia({ colorScheme: 'light' })
      await expect.poll(ground).toBe('rgb(244, 245, 247)')
    })

    test.each(['light', 'dark'] as const)('has no accessibility violations in the %s theme', async (colorScheme) => {
      const { page } = await signedIn('?range=7d&timezone=UTC&assistant=support&user=user-1', { colorScheme })
      await choose(page, 'Dates')
      for (const summary of await page.locator('summary').all()) await summary.click()
      await page
        .locator('#events')
        .getByRole('button', { name: /^Details/ })
        .first()
        .click()
      expect(await page.locator('#assistants .badge').count()).toBeGreaterThan(0)
      expect(await violations(page)).toEqual([])
      await page.getByRole('button', { name: 'Sign out' }).click()
      await page.getByRole('button', { name: 'Sign in' }).click()
      expect(await violations(page)).toEqual([])
    })
  })

  test('asked no other host, broke no policy, and put no token into an address', () => {
    expect(site.asked.length).toBeGreaterThan(100)
    expect(site.asked.filter((url) => new URL(url).origin !== site.origin)).toEqual([])
    expect(site.asked.filter((url) => url.split('#')[0]?.includes('eyJ'))).toEqual([])
    expect(site.complaints).toEqual([])
  })
})
