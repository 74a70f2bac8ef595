/** The formats of `events` and `snapshots`: which one a caller asks for, and the headers of a file. */
import { ApiError } from '../../domain/errors.ts'
import type { Instant } from '../../time/instant.ts'
import { toIso } from '../../time/iso8601.ts'
import { choice } from '../parameters.ts'

export const FORMATS = ['json', 'ndjson', 'csv', 'parquet'] as const
export type Format = (typeof FORMATS)[number]
/** What is sent as a file, at any length. */
export type FileFormat = Exclude<Format, 'json'>

/** The first type of each is what its answers are called; further ones are understood in `Accept`. */
export const MEDIA_TYPES = {
  json: ['application/json'],
  ndjson: ['application/x-ndjson', 'application/ndjson', 'application/jsonl'],
  csv: ['text/csv'],
  parquet: ['application/vnd.apache.parquet', 'application/x-parquet'],
} as const satisfies Record<Format, readonly string[]>

export const format = choice(
  FORMATS,
  'Format of the answer; wins over the `Accept` header. Everything but `json` is sent as a file, at any length.',
)

/** @throws ApiError 406 where `Accept` names nothing that can be had */
export const formatOf = (asked: { parameters: { format?: Format | undefined }; accept: string | undefined }): Format =>
  asked.parameters.format ?? negotiate(asked.accept)

/**
 * The format an Accept header asks for, after RFC 9110 §12.5.1: each format has the weight of the most specific range
 * that it falls under, 0 excludes it, and the highest wins. Of equal ones a type that is named wins over a wildcard,
 * then the one named first, then the order of FORMATS. No header means JSON.
 */
export function negotiate(accept: string | undefined): Format {
  if (!accept?.trim()) return 'json'
  const ranges = accept.split(',').map((part, position) => {
    const [type = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase())
    const weight = parameters.find((parameter) => parameter.startsWith('q='))
    return { type, q: weight === undefined ? 1 : weightOf(weight.slice(2)), position }
  })
  const found = FORMATS.flatMap((name) => {
    const matching = MEDIA_TYPES[name]
      .flatMap((type) => ranges.map((range) => ({ ...range, specificity: specificity(range.type, type) })))
      .filter(({ specificity: at }) => at > 0)
      .sort((a, b) => b.specificity - a.specificity || b.q - a.q)
    const [best] = matching
    return best && best.q > 0 ? [{ name, ...best }] : []
  })
  // FORMATS' own order is what a stable sort leaves.
  found.sort((a, b) => b.q - a.q || b.specificity - a.specificity || a.position - b.position)
  if (found[0]) return found[0].name
  const known = Object.values(MEDIA_TYPES).map(([type]) => type)
  throw new ApiError(406, 'not_acceptable', `Known formats are ${known.join(', ')}.`)
}

/** 3 where a range of `Accept` names the type, 2 for its family, 1 for anything, 0 where it is about another. */
function specificity(range: string, type: string): number {
  if (range === type) return 3
  if (range === `${type.slice(0, type.indexOf('/'))}/*`) return 2
  return range === '*/*' ? 1 : 0
}

/** A weight that is none counts as 0: nobody has asked for that. */
const weightOf = (text: string) => (/^(0(\.\d{0,3})?|1(\.0{0,3})?)$/.test(text) ? Number(text) : 0)

export const contentType = (of: Format) => (of === 'parquet' ? MEDIA_TYPES.parquet[0] : `${MEDIA_TYPES[of][0]}; charset=utf-8`)

/** Headers of an export, with the name it is saved under: what it holds and the dates (UTC) that it covers. */
export function fileHeaders(of: Format, name: string, startDate: Instant, endDate: Instant): Record<string, string> {
  const dates = [startDate, endDate].map((instant) => toIso(instant).slice(0, 10)).join('-')
  return {
    'Content-Type': contentType(of),
    'Cache-Control': 'private, no-cache',
    ...(of === 'json' ? {} : { 'Content-Disposition': `attachment; filename="${name}-${dates}.${of}"` }),
  }
}
