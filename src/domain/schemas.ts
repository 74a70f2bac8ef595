/** Schemas that requests and answers share. */
import * as v from 'valibot'

/** By itself valibot takes a list for an object. */
export const jsonObject = v.pipe(
  v.unknown(),
  v.check((value) => !Array.isArray(value)),
  v.record(v.string(), v.unknown()),
)
