/** Sets of numbers as ClickHouse hands them out: `base64Encode(toString(groupBitmapState(…)))` of UInt32. */
import { RoaringBitmap32, roaringLibraryInitialize } from 'roaring-wasm'

await roaringLibraryInitialize()

/** The first byte says how the rest is written: up to 32 numbers one after the other, or a Roaring bitmap in its portable format. */
const KINDS = { few: 0, roaring: 1 } as const

/**
 * How many numbers there are in some sets together.
 * @throws RangeError where a text is no such set
 */
export function countDistinct(sets: readonly string[]): number {
  const bitmaps: RoaringBitmap32[] = []
  try {
    for (const set of sets) bitmaps.push(bitmapOf(set))
    const [first, second] = bitmaps
    if (first && second && bitmaps.length === 2) return first.orCardinality(second)
    bitmaps.push(RoaringBitmap32.orMany(bitmaps))
    return bitmaps.at(-1)?.size ?? 0
  } finally {
    // Their memory is not JavaScript's.
    for (const bitmap of bitmaps) bitmap.dispose()
  }
}

function bitmapOf(base64: string): RoaringBitmap32 {
  const bytes = Buffer.from(base64, 'base64')
  const { value: size, end } = readVarUint(bytes, 1)
  if (bytes[0] === KINDS.few && bytes.length === end + 4 * size) {
    return new RoaringBitmap32(Array.from({ length: size }, (_, at) => bytes.readUInt32LE(end + 4 * at)))
  }
  if (bytes[0] === KINDS.roaring && bytes.length === end + size)
    return RoaringBitmap32.deserialize(bytes.subarray(end), 'portable')
  throw new RangeError('this is no groupBitmap of UInt32')
}

/** LEB128, as ClickHouse writes lengths. */
function readVarUint(bytes: Buffer, start: number): { value: number; end: number } {
  let value = 0
  for (let at = start, factor = 1; at < bytes.length; at++, factor *= 128) {
    const byte = bytes[at] as number
    value += (byte & 127) * factor
    if (byte < 128) return { value, end: at + 1 }
  }
  throw new RangeError('a length has no end')
}
