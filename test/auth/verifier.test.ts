import type { webcrypto } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Hono } from 'hono'
import { base64url, exportJWK, exportSPKI, generateKeyPair, jwtVerify, SignJWT, type JWTHeaderParameters } from 'jose'
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { ConfigError, readConfig } from '../../src/config.ts'
import { createVerifier, type Verifier } from '../../src/auth/verifier.ts'
import { ApiError, errorBody } from '../../src/domain/errors.ts'
import { LOCAL_ISSUER, loadLocalKey, signLocalToken } from '../../src/auth/local-key.ts'
import { requireScope } from '../../src/auth/principal.ts'
import type { VerifierOptions } from '../../src/auth/signing-keys.ts'

vi.mock('jose', async (original) => {
  const jose = await original<typeof import('jose')>()
  return { ...jose, jwtVerify: vi.fn(jose.jwtVerify) }
})

const SECRET = 'a secret of thirty-two bytes, yes'
const CHALLENGE = 'Bearer realm="agnt-analytics"'
const ISSUER = 'https://issuer.test'

type Claims = Record<string, unknown>
type SigningKey = Parameters<SignJWT['sign']>[0]

const verifierFor = (env: Record<string, string>, options?: VerifierOptions) => createVerifier(readConfig(env), options)

/** The smallest service that reads: what the real one does with a Principal and an ApiError. */
function serve(verifier: Verifier) {
  const app = new Hono()
  app.get('/', async (c) => {
    const principal = await verifier.verify(c.req.header('authorization'))
    requireScope(principal, 'analytics:read')
    return c.json({ ...principal, scopes: [...principal.scopes] })
  })
  app.onError((error) => {
    if (!(error instanceof ApiError)) throw error
    return Response.json(errorBody(error, 'r1'), { status: error.status, headers: error.headers })
  })
  return app
}

async function ask(app: Hono, authorization?: string) {
  const response = await app.request('/', authorization === undefined ? {} : { headers: { authorization } })
  return {
    status: response.status,
    challenge: response.headers.get('www-authenticate'),
    retryAfter: response.headers.get('retry-after'),
    body: await response.json(),
  }
}

const bearer = (app: Hono, token: string) => ask(app, `Bearer ${token}`)

const now = () => Math.floor(Date.now() / 1_000)

/** Claims that pass, to be spoiled one at a time; `undefined` takes one out. */
const claims = (changes: Claims = {}): Claims => ({
  aud: 'agnt-analytics',
  iss: ISSUER,
  exp: now() + 300,
  org: 'acme',
  scope: 'analytics:read',
  ...changes,
})

const sign = (payload: Claims, key: SigningKey = new TextEncoder().encode(SECRET), header: object = {}) =>
  new SignJWT(payload).setProtectedHeader({ alg: 'HS256', typ: 'JWT', ...header } as JWTHeaderParameters).sign(key)

const answer = (status: number, code: string, message: string, challenge: string | null) => ({
  status,
  challenge,
  retryAfter: null as string | null,
  body: { success: false, error: { code, message, details: [] }, requestId: 'r1' },
})

const noToken = answer(401, 'unauthorized', 'A bearer token is needed.', CHALLENGE)

const refusal = (fault: string) =>
  answer(
    401,
    'unauthorized',
    `The token is refused: ${fault}.`,
    `${CHALLENGE}, error="invalid_token", error_description="${fault}"`,
  )

const noKeys = {
  ...answer(503, 'unavailable', 'The keys that tokens are verified with cannot be had now.', null),
  retryAfter: '5',
}

const accepted = (changes: object = {}) => ({
  status: 200,
  challenge: null,
  retryAfter: null,
  body: {
    tenant: 'acme',
    scopes: ['analytics:read'],
    assistants: null,
    subject: null,
    expiresAt: expect.any(Number),
    ...changes,
  },
})

/** Sets the wall clock alone; timers and sockets keep real time. */
function setClock(ms: number) {
  vi.useFakeTimers({ toFake: ['Date'] })
  vi.setSystemTime(ms)
}

const closers: (() => Promise<unknown>)[] = []

afterEach(async () => {
  vi.useRealTimers()
  vi.mocked(jwtVerify).mockClear()
  await Promise.all(closers.splice(0).map((close) => close()))
})

async function temporaryDirectory() {
  const directory = await mkdtemp(join(tmpdir(), 'agnt-auth-'))
  closers.push(() => rm(directory, { recursive: true }))
  return directory
}

describe('a token verified with a shared secret', () => {
  const app = serve(verifierFor({ JWT_SECRET: SECRET, JWT_ISSUER: ISSUER }))

  it('opens its tenant', async () => {
    const exp = now() + 300
    expect(await bearer(app, await sign(claims({ exp, sub: 'ada' })))).toEqual(
      accepted({ subject: 'ada', expiresAt: exp * 1_000 }),
    )
  })

  it('takes the scheme in any case, as RFC 9110 section 11.1 has it', async () => {
    expect(await ask(app, `bearer ${await sign(claims())}`)).toEqual(accepted())
  })

  it.each([undefined, '', 'Basic YTpi', 'Bearerx', 'Token abc'])(
    'gets a challenge without an error code for %j',
    async (authorization) => {
      expect(await ask(app, authorization)).toEqual(noToken)
    },
  )

  it.each(['Bearer', 'Bearer ', 'Bearer a', 'Bearer a b', 'Bearer a.b.c', 'Bearer a.b.c.d.e', 'Bearer "a.b.c"'])(
    'is malformed as %j',
    async (authorization) => {
      expect(await ask(app, authorization)).toEqual(refusal('malformed'))
    },
  )

  it('is refused with alg none', async () => {
    const parts = [{ alg: 'none', typ: 'JWT' }, claims()].map((part) => base64url.encode(JSON.stringify(part)))
    expect(await bearer(app, `${parts.join('.')}.`)).toEqual(refusal('unsupported algorithm'))
    const signature = (await sign(claims())).split('.')[2]
    expect(await bearer(app, `${parts.join('.')}.${signature}`)).toEqual(refusal('unsupported algorithm'))
  })

  it('is refused with another HMAC than the pinned one', async () => {
    const token = await sign(claims(), Buffer.alloc(64, SECRET), { alg: 'HS512' })
    expect(await bearer(app, token)).toEqual(refusal('unsupported algorithm'))
  })

  it('is refused with a tampered payload', async () => {
    const [header, , signature] = (await sign(claims())).split('.')
    const payload = base64url.encode(JSON.stringify(claims({ org: 'globex' })))
    expect(await bearer(app, `${header}.${payload}.${signature}`)).toEqual(refusal('bad signature'))
  })

  it('is refused under another secret', async () => {
    const token = await sign(claims(), Buffer.alloc(32, 1))
    expect(await bearer(app, token)).toEqual(refusal('bad signature'))
  })

  it('may have expired up to 5 s ago, for clocks that differ', async () => {
    const exp = now()
    setClock((exp + 4) * 1_000)
    expect(await bearer(app, await sign(claims({ exp })))).toEqual(accepted())
    setClock((exp + 5) * 1_000)
    expect(await bearer(app, await sign(claims({ exp, jti: 'uncached' })))).toEqual(refusal('expired'))
  })

  it('may become valid within 5 s, for clocks that differ', async () => {
    setClock(Date.now())
    expect(await bearer(app, await sign(claims({ nbf: now() + 5 })))).toEqual(accepted())
    expect(await bearer(app, await sign(claims({ nbf: now() + 6 })))).toEqual(refusal('not yet valid'))
  })

  it.each<[string, Claims, string]>([
    ['has no exp', { exp: undefined }, 'malformed'],
    ['has an exp that is no number', { exp: 'soon' }, 'malformed'],
    ['has an nbf that is no number', { nbf: '0' }, 'malformed'],
    ['is for another audience', { aud: 'billing' }, 'wrong audience'],
    ['is for no audience', { aud: undefined }, 'wrong audience'],
    ['is from another issuer', { iss: 'https://evil.test' }, 'wrong issuer'],
    ['is from no issuer', { iss: undefined }, 'wrong issuer'],
    ['is from an issuer that only begins alike', { iss: `${ISSUER}.evil.test` }, 'wrong issuer'],
    ['has a subject that is no string', { sub: 1 }, 'malformed'],
    ['has no tenant', { org: undefined }, 'missing tenant'],
    ['has an empty tenant', { org: '' }, 'missing tenant'],
    ['has several tenants', { org: ['acme', 'globex'] }, 'missing tenant'],
    ['has a number for a tenant', { org: 7 }, 'missing tenant'],
    ['has a tenant of 257 characters', { org: 'a'.repeat(257) }, 'missing tenant'],
    ['has a tenant with a NUL', { org: 'acme\0' }, 'missing tenant'],
    ['has a tenant with a line end', { org: 'acme\n' }, 'missing tenant'],
    ['has a tenant with half a surrogate pair', { org: 'acme\ud800' }, 'missing tenant'],
    ['is narrowed to nothing', { assistants: [] }, 'malformed'],
    ['is narrowed to null', { assistants: null }, 'malformed'],
    ['is narrowed by a string', { assistants: 'sales-bot' }, 'malformed'],
    ['is narrowed by an object', { assistants: { 0: 'sales-bot', length: 1 } }, 'malformed'],
    ['is narrowed to a number', { assistants: ['sales-bot', 1] }, 'malformed'],
    ['is narrowed to an empty name', { assistants: [''] }, 'malformed'],
    ['is narrowed to a name of 257 characters', { assistants: ['a'.repeat(257)] }, 'malformed'],
    ['is narrowed to 1,001 names', { assistants: Array.from({ length: 1_001 }, () => 'a') }, 'malformed'],
  ])('is refused where it %s', async (_, changes, fault) => {
    expect(await bearer(app, await sign(claims(changes)))).toEqual(refusal(fault))
  })

  it.each(['at+jwt', 'AT+JWT', 'application/at+jwt', 'jwt', undefined])('may have typ %j', async (typ) => {
    expect(await bearer(app, await sign(claims(), undefined, { typ }))).toEqual(accepted())
  })

  it.each(['logout+jwt', 'dpop+jwt', 'JOSE', '', 1, null])('is refused with typ %j', async (typ) => {
    expect(await bearer(app, await sign(claims(), undefined, { typ }))).toEqual(refusal('wrong type'))
  })

  it('is refused with a critical extension that nobody here knows', async () => {
    const [, payload, signature] = (await sign(claims())).split('.')
    const header = base64url.encode(JSON.stringify({ alg: 'HS256', crit: ['http://x.test'], 'http://x.test': true }))
    expect(await bearer(app, `${header}.${payload}.${signature}`)).toEqual(refusal('malformed'))
  })

  it('is refused beyond 8 KiB without being looked at', async () => {
    expect(await bearer(app, 'x'.repeat(8 * 1_024))).toEqual(refusal('malformed'))
    const good = await sign(claims({ filler: 'x'.repeat(5_850) }))
    expect(good.length).toBeGreaterThan(8_000)
    expect(await bearer(app, good)).toEqual(accepted())
    vi.mocked(jwtVerify).mockClear()
    const long = await sign(claims({ filler: 'x'.repeat(8 * 1_024) }))
    for (const token of [long, 'x'.repeat(8 * 1_024 + 1), '\u00e9'.repeat(8 * 1_024 + 1)]) {
      expect(await bearer(app, token)).toEqual(refusal('too long'))
    }
    expect(jwtVerify).not.toHaveBeenCalled()
  })

  it('may hold a tenant of 256 characters beyond ASCII', async () => {
    const org = '\u{1f600}'.repeat(256)
    expect(await bearer(app, await sign(claims({ org })))).toEqual(accepted({ tenant: org }))
  })

  it('shows only the assistants that it is narrowed to', async () => {
    const assistants = ['sales-bot', "o'brien\n"]
    expect(await bearer(app, await sign(claims({ assistants })))).toEqual(accepted({ assistants }))
  })

  it.each<[Claims, string[]]>([
    [{ scope: 'analytics:read analytics:write' }, ['analytics:read', 'analytics:write']],
    [{ scope: ' openid  analytics:read ' }, ['openid', 'analytics:read']],
    [{ scope: undefined, scp: ['analytics:read', 1, ''] }, ['analytics:read']],
    [{ scope: undefined, permissions: ['analytics:read', 'analytics:write'] }, ['analytics:read', 'analytics:write']],
    [{ scope: 'analytics:read', permissions: ['analytics:write'] }, ['analytics:read']],
  ])('has its scopes from %j', async (changes, scopes) => {
    expect(await bearer(app, await sign(claims(changes)))).toEqual(accepted({ scopes }))
  })

  it.each<Claims>([
    { scope: undefined },
    { scope: '' },
    { scope: 7 },
    { scope: 'analytics:write' },
    { scope: 'analytics:readonly' },
    { scope: 'Analytics:Read' },
    { scope: 'openid', permissions: ['analytics:read'] },
  ])('may not read with %j', async (changes) => {
    expect(await bearer(app, await sign(claims(changes)))).toEqual(
      answer(
        403,
        'forbidden',
        'The token lacks the scope analytics:read.',
        `${CHALLENGE}, error="insufficient_scope", scope="analytics:read"`,
      ),
    )
  })

  it('names its tenant in the claim that JWT_ORG_CLAIM says', async () => {
    const other = serve(verifierFor({ JWT_SECRET: SECRET, JWT_ORG_CLAIM: 'https://agnt.test/org' }))
    expect(await bearer(other, await sign(claims({ 'https://agnt.test/org': 'globex' })))).toEqual(accepted({ tenant: 'globex' }))
    expect(await bearer(other, await sign(claims()))).toEqual(refusal('missing tenant'))
  })

  it('needs no issuer where JWT_ISSUER is not set', async () => {
    const other = serve(verifierFor({ JWT_SECRET: SECRET }))
    expect(await bearer(other, await sign(claims({ iss: undefined })))).toEqual(accepted())
  })
})

describe('what is remembered of a token', () => {
  it('is its verification, for 60 s', async () => {
    const app = serve(verifierFor({ JWT_SECRET: SECRET }))
    const start = Date.now()
    setClock(start)
    const token = await sign(claims())
    for (const at of [0, 1, 59_999]) {
      setClock(start + at)
      expect(await bearer(app, token)).toEqual(accepted())
    }
    expect(jwtVerify).toHaveBeenCalledTimes(1)
    setClock(start + 60_000)
    expect(await bearer(app, token)).toEqual(accepted())
    expect(jwtVerify).toHaveBeenCalledTimes(2)
  })

  it('never outlives its exp', async () => {
    const app = serve(verifierFor({ JWT_SECRET: SECRET }))
    const start = now() * 1_000
    setClock(start)
    const token = await sign(claims({ exp: now() + 10 }))
    expect(await bearer(app, token)).toEqual(accepted())
    setClock(start + 15_000)
    expect(await bearer(app, token)).toEqual(refusal('expired'))
  })

  it('is shared by requests that come together', async () => {
    const app = serve(verifierFor({ JWT_SECRET: SECRET }))
    const token = await sign(claims())
    const answers = await Promise.all(Array.from({ length: 50 }, () => bearer(app, token)))
    expect(answers).toEqual(Array.from({ length: 50 }, () => accepted()))
    expect(jwtVerify).toHaveBeenCalledTimes(1)
  })

  it('is nothing where it was refused', async () => {
    const app = serve(verifierFor({ JWT_SECRET: SECRET }))
    setClock(Date.now())
    const token = await sign(claims({ nbf: now() + 10 }))
    expect(await bearer(app, token)).toEqual(refusal('not yet valid'))
    setClock(Date.now() + 10_000)
    expect(await bearer(app, token)).toEqual(accepted())
  })

  it('is bounded by 10,000 tokens, of which the least used goes first', async () => {
    const verifier = verifierFor({ JWT_SECRET: SECRET })
    const verify = async (jti: string) => verifier.verify(`Bearer ${await sign({ ...claims({ exp: 4e9 }), jti })}`)
    await verify('first')
    await verify('second')
    for (let i = 2; i < 10_000; i += 1) await verify(String(i))
    await verify('first')
    expect(jwtVerify).toHaveBeenCalledTimes(10_000)
    await verify('one more, for which the second goes')
    await verify('first')
    expect(jwtVerify).toHaveBeenCalledTimes(10_001)
    await verify('second')
    expect(jwtVerify).toHaveBeenCalledTimes(10_002)
  }, 30_000)
})

describe('a token verified with a public key', () => {
  let rsa: webcrypto.CryptoKeyPair
  let ec: webcrypto.CryptoKeyPair
  let pem: string

  beforeAll(async () => {
    rsa = await generateKeyPair('RS256', { extractable: true })
    ec = await generateKeyPair('ES256', { extractable: true })
    pem = await exportSPKI(rsa.publicKey)
  })

  it('opens its tenant, with the key as PEM in one line or several', async () => {
    const token = await sign(claims(), rsa.privateKey, { alg: 'RS256' })
    expect(await bearer(serve(verifierFor({ JWT_PUBLIC_KEY: pem })), token)).toEqual(accepted())
    const line = pem.trim().replaceAll('\n', '\\n')
    expect(await bearer(serve(verifierFor({ JWT_PUBLIC_KEY: line })), token)).toEqual(accepted())
  })

  it.each(['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'])('opens its tenant with %s', async (alg) => {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
    const token = await sign(claims(), privateKey, { alg })
    expect(await bearer(serve(verifierFor({ JWT_PUBLIC_KEY: await exportSPKI(publicKey) })), token)).toEqual(accepted())
    const jwk = JSON.stringify(await exportJWK(publicKey))
    expect(await bearer(serve(verifierFor({ JWT_PUBLIC_KEY: jwk })), token)).toEqual(accepted())
  })

  it('is refused as HS256 signed with the public key', async () => {
    const app = serve(verifierFor({ JWT_PUBLIC_KEY: pem }))
    for (const secret of [pem, pem.trim()]) {
      const token = await sign(claims(), new TextEncoder().encode(secret))
      expect(await bearer(app, token)).toEqual(refusal('unsupported algorithm'))
    }
  })

  it('is refused under another key', async () => {
    const other = await generateKeyPair('RS256')
    const token = await sign(claims(), other.privateKey, { alg: 'RS256' })
    expect(await bearer(serve(verifierFor({ JWT_PUBLIC_KEY: pem })), token)).toEqual(refusal('bad signature'))
  })

  it('is refused with an algorithm of the same key that is not pinned', async () => {
    const { publicKey, privateKey } = rsa
    const jwk = JSON.stringify({ ...(await exportJWK(publicKey)), alg: 'PS256' })
    const token = await sign(claims(), privateKey, { alg: 'RS256' })
    for (const env of [{ JWT_PUBLIC_KEY: pem, JWT_ALGORITHMS: 'PS256,PS384' }, { JWT_PUBLIC_KEY: jwk }]) {
      expect(await bearer(serve(verifierFor(env)), token)).toEqual(refusal('unsupported algorithm'))
    }
  })

  it('may use what JWT_ALGORITHMS adds', async () => {
    const key = await generateKeyPair('RS512', { extractable: true })
    const env = { JWT_PUBLIC_KEY: await exportSPKI(key.publicKey), JWT_ALGORITHMS: 'RS256, RS512' }
    expect(await bearer(serve(verifierFor(env)), await sign(claims(), key.privateKey, { alg: 'RS512' }))).toEqual(accepted())
  })

  it('does not start with keys or algorithms that do not fit', async () => {
    const privateJwk = JSON.stringify(await exportJWK(ec.privateKey))
    const encryption = JSON.stringify({ ...(await exportJWK(ec.publicKey)), use: 'enc' })
    const octets = JSON.stringify({ kty: 'oct', k: base64url.encode(SECRET) })
    const bad: Record<string, string>[] = [
      { JWT_PUBLIC_KEY: pem, JWT_ALGORITHMS: 'RS256,HS256' },
      { JWT_PUBLIC_KEY: pem, JWT_ALGORITHMS: 'ES256' },
      { JWT_PUBLIC_KEY: pem, JWT_ALGORITHMS: 'none' },
      { JWT_PUBLIC_KEY: pem, JWT_ALGORITHMS: ',' },
      { JWT_PUBLIC_KEY: privateJwk },
      { JWT_PUBLIC_KEY: encryption },
      { JWT_PUBLIC_KEY: octets },
      { JWT_PUBLIC_KEY: '7' },
      { JWT_PUBLIC_KEY: './key.pem' },
      { JWT_PUBLIC_KEY: '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----' },
      { JWT_JWKS_URL: 'http://127.0.0.1:1/', JWT_ALGORITHMS: 'HS256' },
      { JWT_JWKS_URL: 'file:///jwks.json' },
      { JWT_SECRET: SECRET, JWT_ALGORITHMS: 'RS256' },
      { JWT_SECRET: SECRET, JWT_ALGORITHMS: 'HS512' },
      {},
    ]
    for (const env of bad) expect(() => verifierFor(env), JSON.stringify(env)).toThrow(ConfigError)
  })
})

type Signer = { jwk: object; sign(changes?: Claims, header?: object): Promise<string> }

async function signer(kid: string): Promise<Signer> {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
  return {
    jwk: { ...(await exportJWK(publicKey)), kid, use: 'sig' },
    sign: (changes = {}, header = {}) => sign(claims(changes), privateKey, { alg: 'ES256', kid, ...header }),
  }
}

/** An issuer's key set on a local port; `body` and `status` may be changed, `fetches` counts. */
async function keySet(...signers: Signer[]) {
  const issuer = {
    url: '',
    status: 200,
    body: '',
    fetches: 0,
    hangs: false,
    publish(...keys: Signer[]) {
      issuer.status = 200
      issuer.body = JSON.stringify({ keys: keys.map((key) => key.jwk) })
    },
    close: () =>
      new Promise<unknown>((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      }),
  }
  const server = createServer((_, response) => {
    issuer.fetches += 1
    if (!issuer.hangs) response.writeHead(issuer.status, { 'content-type': 'application/json' }).end(issuer.body)
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  issuer.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`
  issuer.publish(...signers)
  closers.push(issuer.close)
  return issuer
}

const appFor = (url: string, onKeyFetchError?: (error: unknown) => void) =>
  serve(verifierFor({ JWT_JWKS_URL: url }, onKeyFetchError ? { onKeyFetchError } : {}))

describe('a token verified with a key set', () => {
  it('opens its tenant by the key that its kid names', async () => {
    const [one, two] = await Promise.all([signer('one'), signer('two')])
    const issuer = await keySet(one, two)
    const app = appFor(issuer.url)
    expect(await bearer(app, await one.sign())).toEqual(accepted())
    expect(await bearer(app, await two.sign())).toEqual(accepted())
    expect(await bearer(app, await one.sign({}, { kid: 'two' }))).toEqual(refusal('bad signature'))
    expect(issuer.fetches).toBe(1)
  })

  it('needs no kid where one key fits', async () => {
    const [one, two] = await Promise.all([signer('one'), signer('two')])
    const issuer = await keySet(one)
    const token = await one.sign({}, { kid: undefined })
    expect(await bearer(appFor(issuer.url), token)).toEqual(accepted())
    issuer.publish(one, two)
    expect(await bearer(appFor(issuer.url), token)).toEqual(refusal('unknown key'))
  })

  it('is refused with a wrong kid, which drives one fetch in 30 s', async () => {
    const [one, stranger] = await Promise.all([signer('one'), signer('stranger')])
    const issuer = await keySet(one)
    const app = appFor(issuer.url)
    const start = Date.now()
    setClock(start)
    expect(await bearer(app, await one.sign())).toEqual(accepted())
    for (const kid of ['a', 'b', 'c']) {
      expect(await bearer(app, await stranger.sign({}, { kid }))).toEqual(refusal('unknown key'))
    }
    expect(issuer.fetches).toBe(2)
  })

  it('is refused as HS256 signed with the published key, or unsigned', async () => {
    const one = await signer('one')
    const issuer = await keySet(one)
    const app = appFor(issuer.url)
    const secret = new TextEncoder().encode(JSON.stringify(one.jwk))
    expect(await bearer(app, await sign(claims(), secret, { kid: 'one' }))).toEqual(refusal('unsupported algorithm'))
    const header = base64url.encode(JSON.stringify({ alg: 'none', kid: 'one' }))
    const payload = base64url.encode(JSON.stringify(claims()))
    expect(await bearer(app, `${header}.${payload}.`)).toEqual(refusal('unsupported algorithm'))
  })

  it('is not verified with a key that it brings along', async () => {
    const [one, evil] = await Promise.all([signer('one'), signer('evil')])
    const [issuer, evilIssuer] = await Promise.all([keySet(one), keySet(evil)])
    const app = appFor(issuer.url)
    for (const header of [{ jwk: evil.jwk }, { jku: evilIssuer.url }]) {
      expect(await bearer(app, await evil.sign({}, { ...header, kid: 'one' }))).toEqual(refusal('bad signature'))
    }
    expect(evilIssuer.fetches).toBe(0)
  })

  it('is accepted throughout a rotation under load, and the old key ends within 60 s', async () => {
    const [old, next] = await Promise.all([signer('old'), signer('next')])
    const issuer = await keySet(old)
    const app = appFor(issuer.url)
    const start = Date.now()
    setClock(start)
    const exp = now() + 3_600
    const tokens = await Promise.all(
      Array.from({ length: 200 }, (_, i) => (i < 100 || i % 2 ? old : next).sign({ exp, jti: String(i) })),
    )
    const answers: unknown[] = []
    let asked = 0
    const worker = async () => {
      for (let i = asked++; i < tokens.length; i = asked++) {
        if (i === 100) issuer.publish(old, next)
        answers.push(await bearer(app, tokens[i]!))
      }
    }
    await Promise.all(Array.from({ length: 20 }, worker))
    expect(answers).toEqual(tokens.map(() => accepted()))
    expect(issuer.fetches).toBe(2)

    issuer.publish(next)
    setClock(start + 60_000)
    expect(await bearer(app, tokens[0]!)).toEqual(refusal('unknown key'))
    expect(await bearer(app, tokens[101]!)).toEqual(refusal('unknown key'))
    expect(await bearer(app, tokens[100]!)).toEqual(accepted())
  })

  it('stays remembered while the keys are fetched again and are the same', async () => {
    const one = await signer('one')
    const issuer = await keySet(one)
    const app = appFor(issuer.url)
    const start = Date.now()
    setClock(start)
    const token = await one.sign({ exp: now() + 3_600 })
    await bearer(app, token)
    setClock(start + 30_000)
    expect(await bearer(app, token)).toEqual(accepted())
    await vi.waitFor(() => expect(issuer.fetches).toBe(2))
    expect(await bearer(app, token)).toEqual(accepted())
    expect(jwtVerify).toHaveBeenCalledTimes(1)
  })

  it('is forgotten at once when its key is withdrawn, even before its 60 s are over', async () => {
    const [old, next] = await Promise.all([signer('old'), signer('next')])
    const issuer = await keySet(old)
    const app = appFor(issuer.url)
    const token = await old.sign()
    expect(await bearer(app, token)).toEqual(accepted())
    issuer.publish(next)
    expect(await bearer(app, await next.sign())).toEqual(accepted())
    expect(await bearer(app, token)).toEqual(refusal('unknown key'))
  })

  it('gets 503 while the key set has never been fetched, and is asked for again after 5 s', async () => {
    const one = await signer('one')
    const issuer = await keySet(one)
    const failures: unknown[] = []
    const app = appFor(issuer.url, (error) => failures.push(error))
    const start = Date.now()
    setClock(start)
    const token = await one.sign()
    issuer.status = 500
    for (let i = 0; i < 3; i += 1) expect(await bearer(app, token)).toEqual(noKeys)
    expect(failures).toEqual([new Error("the key set's URL answered 500")])
    expect(await ask(app)).toEqual(noToken)
    issuer.publish(one)
    setClock(start + 4_999)
    expect(await bearer(app, token)).toEqual(noKeys)
    setClock(start + 5_000)
    expect(await bearer(app, token)).toEqual(accepted())
  })

  it('gets 503 where nothing listens', async () => {
    const one = await signer('one')
    const issuer = await keySet(one)
    await issuer.close()
    expect(await bearer(appFor(issuer.url), await one.sign())).toEqual(noKeys)
  })

  const GARBAGE = [
    '',
    '<html>',
    '[]',
    '{"keys":{}}',
    '{"keys":[]}',
    '{"keys":["a"]}',
    '{"keys":[{"kty":"RSA"}]}',
    '{"keys":[{"kty":"oct","k":"AAAA"}]}',
  ]

  it.each(GARBAGE)('gets 503 where the key set is %j from the start', async (garbage) => {
    const one = await signer('one')
    const issuer = await keySet(one)
    issuer.body = garbage
    expect(await bearer(appFor(issuer.url), await one.sign())).toEqual(noKeys)
  })

  it.each(GARBAGE)('is verified with the last good keys where the key set turns into %j', async (garbage) => {
    const one = await signer('one')
    const issuer = await keySet(one)
    const app = appFor(issuer.url)
    const start = Date.now()
    setClock(start)
    expect(await bearer(app, await one.sign())).toEqual(accepted())
    issuer.body = garbage
    setClock(start + 3_600_000)
    expect(await bearer(app, await one.sign({ jti: 'later' }))).toEqual(accepted())
    expect(await bearer(app, await one.sign({}, { kid: 'two' }))).toEqual(refusal('unknown key'))
    issuer.publish(await signer('two'))
    setClock(start + 7_200_000)
    await bearer(app, await one.sign())
    await vi.waitFor(async () => expect(await bearer(app, await one.sign())).toEqual(refusal('unknown key')))
  })

  it('is verified with the last good keys for hours while the URL is down', async () => {
    const one = await signer('one')
    const issuer = await keySet(one)
    const failed = vi.fn<(error: unknown) => void>()
    const app = appFor(issuer.url, failed)
    const start = Date.now()
    setClock(start)
    const token = await one.sign({ exp: now() + 90_000 })
    expect(await bearer(app, token)).toEqual(accepted())
    await issuer.close()
    for (const [attempt, hours] of [1, 2, 24].entries()) {
      setClock(start + hours * 3_600_000)
      expect(await bearer(app, token)).toEqual(accepted())
      await vi.waitFor(() => expect(failed).toHaveBeenCalledTimes(attempt + 1))
    }
  })

  it('waits once, not again and again, for a URL that takes connections and never answers', async () => {
    const one = await signer('one')
    const issuer = await keySet(one)
    const failed = vi.fn<(error: unknown) => void>()
    const app = appFor(issuer.url, failed)
    const start = Date.now()
    setClock(start)
    const token = await one.sign({ exp: now() + 90_000 })
    expect(await bearer(app, token)).toEqual(accepted())
    issuer.hangs = true
    setClock(start + 60_000)
    expect(await bearer(app, token)).toEqual(accepted())
    expect(failed).toHaveBeenCalledTimes(1)
    setClock(start + 120_000)
    const began = performance.now()
    expect(await bearer(app, token)).toEqual(accepted())
    expect(performance.now() - began).toBeLessThan(1_000)
    await vi.waitFor(() => expect(issuer.fetches).toBe(3))
  }, 15_000)
})

describe('the key that the service makes for itself', () => {
  const config = readConfig({})

  it('is one key, for its owner alone, however many start at once', async () => {
    const directory = join(await temporaryDirectory(), 'not', 'there', 'yet')
    const keys = await Promise.all(Array.from({ length: 20 }, () => loadLocalKey(directory)))
    expect(new Set(keys.map((key) => base64url.encode(key))).size).toBe(1)
    expect(keys[0]).toHaveLength(32)
    expect(await readdir(directory)).toEqual(['local-token-key'])
    expect(await readFile(join(directory, 'local-token-key'), 'utf8')).toBe(base64url.encode(keys[0]!))
    expect((await stat(join(directory, 'local-token-key'))).mode & 0o777).toBe(0o600)
    expect(await loadLocalKey(directory)).toEqual(keys[0])
  })

  it('is not replaced where the file holds something else', async () => {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'local-token-key'), 'short')
    await expect(loadLocalKey(directory)).rejects.toThrow(ConfigError)
    expect(await readFile(join(directory, 'local-token-key'), 'utf8')).toBe('short')
  })

  it('signs what it accepts', async () => {
    const localKey = await loadLocalKey(await temporaryDirectory())
    const app = serve(createVerifier(config, { localKey }))
    const plain = await signLocalToken(localKey, { org: 'acme', scope: 'analytics:read' }, config)
    expect(await bearer(app, plain)).toEqual(accepted())
    const grant = { org: 'acme', scope: 'analytics:read', subject: 'ada', assistants: ['a'], expiresInSeconds: 60 }
    expect(await bearer(app, await signLocalToken(localKey, grant, config))).toEqual(
      accepted({ subject: 'ada', assistants: ['a'] }),
    )
  })

  it('accepts no other issuer, whatever JWT_ISSUER says', async () => {
    const localKey = await loadLocalKey(await temporaryDirectory())
    const app = serve(verifierFor({ JWT_ISSUER: ISSUER }, { localKey }))
    expect(await bearer(app, await sign(claims(), localKey))).toEqual(refusal('wrong issuer'))
    expect(await bearer(app, await sign(claims({ iss: LOCAL_ISSUER }), localKey))).toEqual(accepted())
  })
})
