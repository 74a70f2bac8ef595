import { describe, expect, test } from 'vitest'
import { RequestRate } from '../../src/limits/request-rate.ts'
import { refused } from './refused.ts'

const spend = (rate: RequestRate, tenant: string, requests: number, now: number) => {
  for (let n = 0; n < requests; n++) rate.count(tenant, now)
}

describe('requests a second', () => {
  test("a burst passes up to a second's worth and not one request further", async () => {
    const rate = new RequestRate(10)
    spend(rate, 'acme', 10, 0)
    expect(await refused(() => rate.count('acme', 0))).toEqual({
      status: 429,
      code: 'too_many_requests',
      message: 'More than 10 requests a second.',
      headers: { 'RateLimit-Policy': '"tenant";q=10;w=1', RateLimit: '"tenant";r=0;t=1', 'Retry-After': '1' },
    })
  })

  test("requests come back at the rate, not all at once, and never pile up beyond a second's worth", async () => {
    const rate = new RequestRate(10)
    spend(rate, 'acme', 10, 0)
    spend(rate, 'acme', 3, 300)
    await refused(() => rate.count('acme', 300))
    spend(rate, 'acme', 10, 3_600_000)
    await refused(() => rate.count('acme', 3_600_000))
  })

  test('a refused request costs nothing, so that a caller who keeps knocking is not locked out for good', async () => {
    const rate = new RequestRate(10)
    spend(rate, 'acme', 10, 0)
    for (let n = 0; n < 1_000; n++) await refused(() => rate.count('acme', 50))
    spend(rate, 'acme', 1, 100)
  })

  test('the headers count down to what is really left', () => {
    const rate = new RequestRate(3)
    const left = Array.from({ length: 3 }, () => rate.count('acme', 0)['RateLimit'])
    expect(left).toEqual(['"tenant";r=2;t=1', '"tenant";r=1;t=1', '"tenant";r=0;t=1'])
  })

  test('a tenant that spends all it has takes nothing from another', async () => {
    const rate = new RequestRate(5)
    spend(rate, 'acme', 5, 0)
    await refused(() => rate.count('acme', 0))
    expect(rate.count('globex', 0)['RateLimit']).toBe('"tenant";r=4;t=1')
  })

  test('ten thousand other tenants do not give a busy one its requests back', async () => {
    const rate = new RequestRate(2)
    for (let n = 0; n < 30_000; n++) {
      // Each second request of the busy one is one too many, whoever came in between.
      if (n % 5_000 === 0) {
        spend(rate, 'busy', n === 0 ? 2 : 0, 0)
        await refused(() => rate.count('busy', 0))
      }
      rate.count(`tenant ${n}`, 0)
    }
  })
})
