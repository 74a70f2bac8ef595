/** Tokens for a service that signs with a key of its own. */
import { readConfig } from '../../src/config.ts'
import { loadLocalKey, signLocalToken } from '../../src/auth/local-key.ts'

/** The tokens have to outlast a clock that runs years ahead. */
const TOKEN_SECONDS = 100 * 365 * 86_400

/** @param dataDir of the service */
export async function localToken(dataDir: string, org: string, scope: string): Promise<string> {
  const grant = { org, scope, expiresInSeconds: TOKEN_SECONDS }
  return signLocalToken(await loadLocalKey(dataDir), grant, readConfig({ DATA_DIR: dataDir }))
}
