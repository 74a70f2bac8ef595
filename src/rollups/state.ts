/** How far the rollups are written. */
import type { Instant } from '../time/instant.ts'

/** How far each level of SEALED is sealed: `sealedUntil[i]`, epoch seconds, a multiple of its span; none further than the one before. */
export type SealedUntil = readonly number[]

/** How many levels of SEALED are sealed over an instant: the `late_levels` of an event with that timestamp. */
export function lateLevels(instant: Instant, sealedUntil: SealedUntil): number {
  let count = 0
  for (const until of sealedUntil) {
    if (instant >= until * 1000) break
    count++
  }
  return count
}
