/** Schemas of single fields of answers; each with the words that the reference says of it. */
import * as v from 'valibot'

export const instant = (description: string) =>
  v.pipe(v.string(), v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/), v.metadata({ format: 'date-time', description }))
export const count = (description: string) => v.pipe(v.number(), v.integer(), v.minValue(0), v.description(description))
export const usd = (description: string) => v.pipe(v.number(), v.minValue(0), v.description(description))
export const text = (description: string) => v.pipe(v.string(), v.minLength(1), v.description(description))
export const flag = (description: string) => v.pipe(v.boolean(), v.description(description))
export const whatIs = <const T extends readonly string[]>(values: T, description: string) =>
  v.pipe(v.picklist(values), v.description(description))
/** The description of the schema that may be null. */
export const orNull = <S extends v.GenericSchema>(schema: S, description: string) =>
  v.pipe(v.nullable(schema), v.description(description))

/** An answer that holds nothing but `data`, in the envelope that all have. */
export const answerOf = <S extends v.GenericSchema>(data: S) => v.strictObject({ success: v.literal(true), data })
