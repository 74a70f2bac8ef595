import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { ConfigError, readConfig, SETTING_NAMES } from '../src/config.ts'

describe('settings', () => {
  it('are the ones that docs/settings.md lists, no more and no fewer', () => {
    const documented = readFileSync(new URL('../docs/settings.md', import.meta.url), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .flatMap((line) => [...(line.split('|')[1] ?? '').matchAll(/`([A-Z_]+)`/g)].map(([, name]) => name))
    expect(documented.sort()).toEqual([...SETTING_NAMES].sort())
  })

  it('have the defaults that docs/settings.md states', () => {
    const rows = readFileSync(new URL('../docs/settings.md', import.meta.url), 'utf8').matchAll(
      /^\| `([A-Z_]+)` \| `([^`]+)` \|/gm,
    )
    const stated = Object.fromEntries([...rows].map(([, name, value]) => [name, value]))
    expect(Object.keys(stated).length).toBeGreaterThan(15)
    const actual = readConfig({})
    expect(stated).toEqual(
      Object.fromEntries(Object.keys(stated).map((name) => [name, String(actual[name as keyof typeof actual])])),
    )
  })

  it('default to a service of its own on loopback', () => {
    expect(readConfig({})).toMatchObject({ HOST: '127.0.0.1', PORT: 8787, DATA_DIR: './data', localKey: true })
  })

  it.each([ConfigError, /PORT/, /CACHE_MB/, /JWT_SECRET/, /LOG_LEVEL/])('names every bad one at once: %s', (expected) => {
    const bad = { PORT: '99999', CACHE_MB: '-1', JWT_SECRET: 'short', LOG_LEVEL: 'loud' }
    expect(() => readConfig(bad)).toThrow(expected)
  })

  it('does not serve the world with a key that anybody on the machine can read', () => {
    expect(() => readConfig({ HOST: '0.0.0.0' })).toThrow(/JWT_/)
    expect(readConfig({ HOST: '0.0.0.0', JWT_SECRET: 'x'.repeat(32) }).localKey).toBe(false)
  })

  it('takes one kind of key, since two would be two ways in', () => {
    expect(() => readConfig({ JWT_SECRET: 'x'.repeat(32), JWT_JWKS_URL: 'https://example.com/jwks' })).toThrow(/one of/)
  })

  it('takes a cluster by name, and with the servers of one that has no Keeper', () => {
    const url = { CLICKHOUSE_URL: 'http://a:8123' }
    expect(readConfig({ ...url, CLICKHOUSE_CLUSTER: 'fleet' })).toMatchObject({ CLICKHOUSE_CLUSTER_URLS: [] })
    expect(
      readConfig({ ...url, CLICKHOUSE_CLUSTER: 'fleet', CLICKHOUSE_CLUSTER_URLS: 'http://a:8123, http://b:8123' }),
    ).toMatchObject({
      CLICKHOUSE_CLUSTER_URLS: ['http://a:8123', 'http://b:8123'],
    })
    expect(() => readConfig({ CLICKHOUSE_CLUSTER: 'fleet' })).toThrow(/CLICKHOUSE_URL/)
    expect(() => readConfig({ ...url, CLICKHOUSE_CLUSTER_URLS: 'http://b:8123' })).toThrow(/CLICKHOUSE_CLUSTER/)
    expect(() => readConfig({ ...url, CLICKHOUSE_CLUSTER: "fl'eet" })).toThrow(/identifier/)
    expect(() => readConfig({ ...url, CLICKHOUSE_CLUSTER: 'fleet', CLICKHOUSE_CLUSTER_URLS: 'b:8123' })).toThrow(/URLS/)
  })

  it('takes an empty value for one that is not set', () => {
    expect(readConfig({ PORT: '', JWT_SECRET: '' })).toMatchObject({ PORT: 8787, localKey: true })
  })
})
