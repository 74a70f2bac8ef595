/** How the dashboard is served; what it does in a browser is in test/dashboard. */
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startService, type TestService } from '../../support.ts'

/** A first paint may cost this much JavaScript, gzipped, in bytes; 200 kB is what the project allows itself. */
const MAX_SCRIPT_BYTES = 60_000

let service: TestService
beforeAll(async () => (service = await startService()))
afterAll(() => service.close())

const get = (path: string, headers: Record<string, string> = {}) => service.app.request(path, { headers })
const assetsOf = (page: string) => [...page.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path]) => `/${path}`)

describe('the dashboard', () => {
  test('is a page that anybody may fetch, with a strict policy of its own and nothing inline', async () => {
    const response = await get('/')
    expect(response.status).toBe(200)
    expect(response.headers.get('Content-Type')).toBe('text/html; charset=utf-8')
    expect(response.headers.get('Cache-Control')).toBe('no-cache')
    const policy = response.headers.get('Content-Security-Policy')?.split('; ')
    expect(policy).toEqual(
      expect.arrayContaining([
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
      ]),
    )
    expect(policy?.join()).not.toMatch(/unsafe|\*|data:|blob:|https?:/)
    expect(response.headers.get('Referrer-Policy')).toBe('no-referrer')
    const page = await response.text()
    expect(page).not.toMatch(/<style|style=|\son\w+=|<script(?![^>]*\ssrc=)|https?:\/\//)
    expect(page).not.toContain('{{')
  })

  test('refers to assets that may be kept for ever, compressed beforehand', async () => {
    const assets = assetsOf(await (await get('/')).text())
    expect(assets.map((path) => path.replace(/-[\w-]{12}\./, '-HASH.'))).toEqual([
      '/dashboard/icon-HASH.svg',
      '/dashboard/app-HASH.css',
      '/dashboard/app-HASH.js',
    ])
    for (const path of assets) {
      const plain = await get(path)
      const content = Buffer.from(await plain.arrayBuffer())
      expect(plain.status).toBe(200)
      expect(plain.headers.get('Content-Encoding')).toBeNull()
      expect(plain.headers.get('Cache-Control')).toBe('public, max-age=31536000, immutable')
      expect(plain.headers.get('Vary')).toBe('Accept-Encoding')
      for (const [accept, coding, unpack] of [
        ['gzip, deflate', 'gzip', gunzipSync],
        ['gzip, deflate, br', 'br', brotliDecompressSync],
        ['br;q=0, gzip', 'gzip', gunzipSync],
      ] as const) {
        const packed = await get(path, { 'Accept-Encoding': accept })
        expect(packed.headers.get('Content-Encoding')).toBe(coding)
        expect(unpack(Buffer.from(await packed.arrayBuffer())).equals(content)).toBe(true)
      }
      const etag = plain.headers.get('ETag') as string
      expect((await get(path, { 'If-None-Match': etag })).status).toBe(304)
    }
  })

  test(`sends less than ${MAX_SCRIPT_BYTES} bytes of JavaScript`, async () => {
    const script = assetsOf(await (await get('/')).text()).find((path) => path.endsWith('.js')) as string
    const packed = await get(script, { 'Accept-Encoding': 'gzip' })
    const { byteLength } = await packed.arrayBuffer()
    expect(byteLength).toBeGreaterThan(5_000)
    expect(byteLength).toBeLessThan(MAX_SCRIPT_BYTES)
  })

  test('leaves everything else to the API, with the headers of data', async () => {
    for (const path of ['/dashboard/app-000000000000.js', '/dashboard/', '/dashboard/../package.json', '/index.html']) {
      const response = await get(path)
      expect(response.status).toBe(404)
      expect(await response.json()).toMatchObject({ error: { code: 'not_found' } })
      expect(response.headers.get('Content-Security-Policy')).toBe("default-src 'none'; frame-ancestors 'none'")
    }
    const data = await get('/analytics/overview')
    expect(data.status).toBe(401)
    expect(data.headers.get('Content-Security-Policy')).toBe("default-src 'none'; frame-ancestors 'none'")
  })
})
