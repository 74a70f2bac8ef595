/** The key of a company: computed from its name alone, another one for every other name. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isTenantKey, keyLiteral, tenantKey, type TenantKey } from '../../src/domain/tenant.ts'

/** Computed with Python: hashlib.sha256(namespace.bytes + name.encode()), uuid.UUID. They must never change. */
const VECTORS: Record<string, string> = {
  '': 'faaa826f-9e2d-8eb2-b0d2-f19ff0a3d421',
  acme: '74edf7b5-1f46-88d0-ae46-04c3a7898a76',
  Acme: '1654cbbe-53c7-8412-9d84-1140fa160290',
  ' acme': 'c226e1a4-8cac-81cf-ac21-662c704ccd3c',
  é: 'ab2d6a3d-3cfb-828b-ab56-b41af7cb141a',
  'e\u0301': 'edc2b4cb-9624-8c35-b24e-350c1e8b9ec7',
  '😀': '4c27f754-64cc-8e03-9db7-bcd9f3b9e479',
  demo: '2e82955e-3af8-8950-a65c-ab99f3114564',
}

describe('the key of a name', () => {
  test.each(Object.entries(VECTORS))('is the same for ever: %j', (name, key) => {
    expect(tenantKey(name)).toBe(key)
  })

  test('is a UUID of version 8 and of the variant of RFC 9562, and the same each time', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 256 }), (name) => {
        const key = tenantKey(name)
        expect(key).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
        expect(isTenantKey(key)).toBe(true)
        expect(tenantKey(Buffer.from(name).toString())).toBe(key)
      }),
      { numRuns: 1_000 },
    )
  })

  test('differs where names differ, however little: spaces, case, normalization, order', () => {
    const variants = [
      (name: string) => `${name} `,
      (name: string) => ` ${name}`,
      (name: string) => name.trim(),
      (name: string) => name.toLowerCase(),
      (name: string) => name.toUpperCase(),
      ...['NFC', 'NFD', 'NFKC', 'NFKD'].map((form) => (name: string) => name.normalize(form)),
      (name: string) => [...name].reverse().join(''),
      (name: string) => `${name}\0`,
    ]
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), fc.string({ unit: 'binary', maxLength: 40 }), (one, other) => {
        for (const name of [other, ...variants.map((vary) => vary(one))]) {
          expect(tenantKey(name) === tenantKey(one), JSON.stringify([one, name])).toBe(name === one)
        }
      }),
      { numRuns: 1_000 },
    )
  })

  test('of 100,000 names is shared by no two', () => {
    expect(new Set(Array.from({ length: 100_000 }, (_, n) => tenantKey(`company ${n}`)))).toHaveProperty('size', 100_000)
  })

  test.each(['\ud800', 'acme \udfff', '\udc00\ud800'])('does not exist for a name that has no UTF-8: %j', (name) => {
    expect(() => tenantKey(name)).toThrow(RangeError)
  })
})

describe('a key as SQL', () => {
  test('is a quoted text', () => {
    expect(keyLiteral(tenantKey('acme'))).toBe(`'74edf7b5-1f46-88d0-ae46-04c3a7898a76'`)
  })

  test.each<[unknown, string]>([
    ['', 'nothing'],
    ['acme', 'a name'],
    ['74EDF7B5-1F46-88D0-AE46-04C3A7898A76', 'upper case'],
    ['74edf7b5-1f46-48d0-ae46-04c3a7898a76', 'another version'],
    ['74edf7b5-1f46-88d0-ce46-04c3a7898a76', 'another variant'],
    ['74edf7b5-1f46-88d0-ae46-04c3a7898a76\n', 'something behind it'],
    [`74edf7b5-1f46-88d0-ae46-04c3a7898a76' OR '1`, 'something that is run'],
    [1, 'a number'],
    [['74edf7b5-1f46-88d0-ae46-04c3a7898a76'], 'a list'],
  ])('%j is refused: %s', (text) => {
    expect(() => keyLiteral(text as TenantKey)).toThrow(TypeError)
  })
})
