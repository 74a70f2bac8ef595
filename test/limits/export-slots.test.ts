import { describe, expect, test } from 'vitest'
import { ExportSlots, MAX_EXPORTS } from '../../src/limits/export-slots.ts'
import { refused } from './refused.ts'

describe('exports at a time', () => {
  test('open ones are counted until they are over, however often that is said', async () => {
    const slots = new ExportSlots(2)
    const first = slots.open('acme')
    slots.open('acme')
    expect(await refused(() => slots.open('acme'))).toEqual({
      status: 429,
      code: 'too_many_requests',
      message: 'Too many exports are being sent to this tenant.',
      headers: { 'Retry-After': '1' },
    })
    slots.open('globex')
    first()
    first()
    slots.open('acme')
    await refused(() => slots.open('acme'))
  })

  test('all tenants together have as many as there are connections for', async () => {
    const slots = new ExportSlots(2)
    const open = Array.from({ length: MAX_EXPORTS }, (_, n) => slots.open(`tenant ${n}`))
    expect(await refused(() => slots.open('one more'))).toEqual({
      status: 503,
      code: 'unavailable',
      message: 'Too many exports are being sent right now.',
      headers: { 'Retry-After': '1' },
    })
    open[0]?.()
    slots.open('one more')
  })
})
