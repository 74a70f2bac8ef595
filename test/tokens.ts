/** Tokens for requests that do not go through the helpers of support.ts. */
import { readConfig } from '../src/config.ts'
import { signLocalToken } from '../src/auth/local-key.ts'
import type { Caller } from './support.ts'

const config = readConfig({})

/** The value of an Authorization header that a service with this key of its own accepts. */
export async function authorization(
  { localKey }: { localKey?: Uint8Array | undefined },
  { org = 'acme', scope = 'analytics:read analytics:write', assistants }: Caller = {},
): Promise<string> {
  if (!localKey) throw new Error('the service has no key of its own')
  return `Bearer ${await signLocalToken(localKey, { org, scope, ...(assistants ? { assistants } : {}) }, config)}`
}
