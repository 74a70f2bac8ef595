/**
 * The key under which everything of one company is stored.
 *
 * It is computed from the organization name in the verified token and from nothing else: no table, counter or instance
 * takes part. So two services that meet a new company at the same moment use the same key without asking each other, and
 * two companies cannot get one key because somebody counted wrongly.
 *
 * The key is a name-based UUID, version 8 (RFC 9562, section 5.8 and appendix B.2): the first 16 bytes of SHA-256 over
 * NAMESPACE and the name, with the version and the variant set, which leaves 122 bits of the hash. Two of a million
 * companies have the same key with a probability of 1e-25 (n² / 2^123). To get a given company's key on purpose, an issuer
 * would have to sign a name that is a second preimage: 2^122 hashes.
 */
import { createHash } from 'node:crypto'

/** A UUID in lower case; only `tenantKey` makes one. */
export type TenantKey = string & { readonly __tenantKey: true }

/** The project's own, a random UUID. Frozen: with another one every company would seem to have no events. */
const NAMESPACE = Buffer.from('76b00c35-d525-4c6d-a8a8-7473a608edaf'.replaceAll('-', ''), 'hex')

const TENANT_KEY = /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/**
 * The key of a company.
 *
 * The name counts as it is, byte for byte in UTF-8: it is not trimmed, and neither case nor Unicode normalization is
 * changed, since the issuer of the tokens decides which names are the same.
 * @throws RangeError where the name has a lone surrogate, which has no UTF-8: all of them would become U+FFFD, and two
 * names one. The verifier refuses such tokens (src/auth/verifier.ts).
 */
export function tenantKey(name: string): TenantKey {
  if (!name.isWellFormed()) throw new RangeError('the name of a company has a lone surrogate')
  const hash = createHash('sha256').update(NAMESPACE).update(name, 'utf8').digest()
  hash[6] = ((hash[6] as number) & 0x0f) | 0x80
  hash[8] = ((hash[8] as number) & 0x3f) | 0x80
  const hex = hash.toString('hex', 0, 16)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}` as TenantKey
}

/** Whether a text has the form of a key. What is written into the text of a query is checked with it first. */
export const isTenantKey = (text: string): text is TenantKey => TENANT_KEY.test(text)

/**
 * A key as a literal of SQL, such as `'0c8d…'`; ClickHouse takes it for a UUID where it is compared with one.
 * @throws TypeError for anything else than a key, whatever its type claims
 */
export function keyLiteral(key: TenantKey): string {
  if (typeof key !== 'string' || !isTenantKey(key)) throw new TypeError('not the key of a tenant')
  return `'${key}'`
}
