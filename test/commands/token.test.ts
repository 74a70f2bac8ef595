import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { createVerifier } from '../../src/auth/verifier.ts'
import { loadLocalKey } from '../../src/auth/local-key.ts'

const COMMAND = fileURLToPath(new URL('../../src/commands/token.ts', import.meta.url))
const SECRET = 'x'.repeat(64)

let directory: string

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'agnt-token-'))
})

afterAll(() => rm(directory, { recursive: true }))

/** Runs the command in an environment of its own: DATA_DIR and what `env` adds. */
function token(args: string[], env: Record<string, string> = {}) {
  return new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
    execFile(
      process.execPath,
      ['--import', 'tsx', COMMAND, ...args],
      { env: { PATH: process.env['PATH'], DATA_DIR: directory, ...env } },
      (error, stdout, stderr) => resolve({ code: error ? error.code : 0, stdout, stderr }),
    )
  })
}

describe('npm run token', { timeout: 30_000 }, () => {
  it('prints a token that a local service accepts, and nothing else', async () => {
    const { code, stdout, stderr } = await token(['--org', 'acme'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/)
    const verifier = createVerifier(readConfig({}), { localKey: await loadLocalKey(directory) })
    expect(await verifier.verify(`Bearer ${stdout.trim()}`)).toEqual({
      tenant: 'acme',
      scopes: new Set(['analytics:read', 'analytics:write']),
      assistants: null,
      subject: null,
      expiresAt: expect.any(Number),
    })
    const { iat, exp } = decodeJwt(stdout)
    expect(exp! - iat!).toBe(30 * 86_400)
  })

  it('takes scope, assistants and expiry, and signs with JWT_SECRET as the settings say', async () => {
    const env = {
      JWT_SECRET: SECRET,
      JWT_ALGORITHMS: 'HS512',
      JWT_ISSUER: 'https://issuer.test',
      JWT_AUDIENCE: 'fleet',
      JWT_ORG_CLAIM: 'company',
    }
    const options = ['--scope', 'analytics:read', '--assistant', 'a', '--assistant', 'b', '--expires', '3600']
    const { code, stdout, stderr } = await token(['--org', 'acme', ...options], env)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const { iat } = decodeJwt(stdout)
    expect(decodeJwt(stdout)).toEqual({
      iss: 'https://issuer.test',
      aud: 'fleet',
      company: 'acme',
      scope: 'analytics:read',
      assistants: ['a', 'b'],
      iat,
      exp: iat! + 3_600,
    })
    expect((await createVerifier(readConfig(env)).verify(`Bearer ${stdout.trim()}`)).tenant).toBe('acme')
  })

  it.each([
    [[], '--org is needed'],
    [['--org', ''], '--org is needed'],
    [['--org', 'acme', '--expires', '0'], '--expires must be an integer of seconds, at least 1'],
    [['--org', 'acme', '--expires', '1h'], '--expires must be an integer of seconds, at least 1'],
    [['--org', 'acme', '--tenant', 'b'], "Unknown option '--tenant'"],
    [['--org', 'a\nb'], 'The token is refused: missing tenant.'],
    [['--org', 'acme', '--assistant', ''], 'The token is refused: malformed.'],
  ])('exits 2 with its usage for %j', async (args, message) => {
    const { code, stdout, stderr } = await token(args)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr.startsWith(message)).toBe(true)
    expect(stderr).toContain('\n\nusage: npm run --silent token -- --org NAME')
  })

  it.each([
    [
      { JWT_JWKS_URL: 'https://issuer.test/jwks' },
      'with JWT_JWKS_URL or JWT_PUBLIC_KEY tokens come from the issuer: this service only verifies them\n',
    ],
    [
      { JWT_PUBLIC_KEY: 'any' },
      'with JWT_JWKS_URL or JWT_PUBLIC_KEY tokens come from the issuer: this service only verifies them\n',
    ],
    [{ JWT_SECRET: 'short' }, 'bad settings: JWT_SECRET must be at least 32 bytes (256 bits)\n'],
    [{ JWT_SECRET: 'x'.repeat(32), JWT_ALGORITHMS: 'HS512' }, 'bad settings: HS512 needs a secret of 64 bytes\n'],
  ])('exits 1 without usage for the settings %j', async (env, message) => {
    expect(await token(['--org', 'acme'], env)).toEqual({ code: 1, stdout: '', stderr: message })
  })
})
