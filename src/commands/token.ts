/**
 * Prints a token for a service that verifies with its own key or with JWT_SECRET, and nothing else, on stdout.
 * Exit codes: 1 where the settings allow no token to be made here, 2 where the arguments cannot be used.
 */
import { parseArgs } from 'node:util'
import { loadLocalKey, signLocalToken, type Grant } from '../auth/local-key.ts'
import { createVerifier } from '../auth/verifier.ts'
import { ConfigError, readConfig } from '../config.ts'
import { ApiError } from '../domain/errors.ts'

const USAGE = `usage: npm run --silent token -- --org NAME [options]

  --org NAME          the company whose analytics the token opens
  --scope "A B"       default "analytics:read analytics:write"
  --assistant NAME    narrows the token to this assistant; may be repeated
  --expires SECONDS   default 2592000 (30 days)
`

class UsageError extends Error {}

function readGrant(): Grant {
  let values
  try {
    values = parseArgs({
      options: {
        org: { type: 'string' },
        scope: { type: 'string', default: 'analytics:read analytics:write' },
        assistant: { type: 'string', multiple: true },
        expires: { type: 'string' },
      },
    }).values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
  const { org, scope, assistant, expires } = values
  if (!org) throw new UsageError('--org is needed')
  if (expires !== undefined && !/^[1-9]\d{0,9}$/.test(expires)) {
    throw new UsageError('--expires must be an integer of seconds, at least 1')
  }
  return {
    org,
    scope,
    ...(assistant ? { assistants: assistant } : {}),
    ...(expires === undefined ? {} : { expiresInSeconds: Number(expires) }),
  }
}

async function makeToken(): Promise<string> {
  const grant = readGrant()
  const config = readConfig()
  if (!config.localKey && config.JWT_SECRET === undefined) {
    const settings = 'JWT_JWKS_URL or JWT_PUBLIC_KEY'
    throw new ConfigError(`with ${settings} tokens come from the issuer: this service only verifies them`)
  }
  const key = config.JWT_SECRET === undefined ? await loadLocalKey(config.DATA_DIR) : new TextEncoder().encode(config.JWT_SECRET)
  // Made first, so that an algorithm which does not fit the secret is said as the bad setting it is.
  const verifier = createVerifier(config, { localKey: key })
  const token = await signLocalToken(key, grant, config)
  await verifier.verify(`Bearer ${token}`)
  return token
}

try {
  process.stdout.write(`${await makeToken()}\n`)
} catch (error) {
  if (error instanceof UsageError || error instanceof ApiError) {
    process.stderr.write(`${error.message}\n\n${USAGE}`)
    process.exitCode = 2
  } else if (error instanceof ConfigError) {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  } else {
    throw error
  }
}
