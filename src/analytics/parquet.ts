/**
 * Writes rows as a Parquet file while they come: flat columns, plain encoding, no compression, which every reader knows
 * (https://parquet.apache.org/docs/file-format/). For rows that are made here; what lies in ClickHouse as it is, ClickHouse
 * writes itself.
 */
export interface Column<Row> {
  readonly name: string & keyof Row
  /** `integer` is 64 bits; a `timestamp` is given as ISO 8601 text and kept as milliseconds of UTC. */
  readonly type: keyof typeof TYPES
  /** Whether a value may be null. */
  readonly optional?: boolean
}

/** Memory holds one group at a time. Readers skip and share out work by group: many small ones would be slow. */
const ROWS_A_GROUP = 4_096

const MAGIC = Buffer.from('PAR1')

/** @param batches rows, in groups of any size */
export async function* parquetOf<Row extends object>(
  columns: ReadonlyArray<Column<Row>>,
  batches: AsyncIterable<readonly Row[]>,
): AsyncGenerator<Uint8Array> {
  const groups: Thrift[] = []
  let offset = MAGIC.length
  let total = 0
  let waiting: Row[] = []
  const group = (rows: readonly Row[]): Buffer[] => {
    const chunks = columns.map((column) => {
      const bytes = page(column, rows.map((row) => row[column.name]))
      const chunk = { bytes, meta: chunkMeta(column, rows.length, bytes.length, offset) }
      offset += bytes.length
      return chunk
    })
    const bytes = chunks.map((chunk) => chunk.bytes)
    const size = bytes.reduce((sum, { length }) => sum + length, 0)
    groups.push(struct({ 1: list(chunks.map(({ meta }) => meta)), 2: i64(size), 3: i64(rows.length) }))
    total += rows.length
    return bytes
  }
  yield MAGIC
  for await (const rows of batches) {
    waiting.push(...rows)
    if (waiting.length < ROWS_A_GROUP) continue
    yield* group(waiting)
    waiting = []
  }
  if (waiting.length > 0) yield* group(waiting)
  const footer = struct({
    1: i32(1),
    2: list([struct({ 4: text('schema'), 5: i32(columns.length) }), ...columns.map(schemaElement)]),
    3: i64(total),
    4: list(groups),
    6: text('agnt-analytics'),
  }).bytes
  yield Buffer.concat([footer, uint32(footer.length), MAGIC])
}

// ---------------------------------------------------------------------------------------------------------------- pages

const BYTE_ARRAY = 6
/** `physical` as in the format's enum Type, `logical` as in its union LogicalType, `plain` the PLAIN encoding. */
const TYPES = {
  string: { physical: BYTE_ARRAY, plain: (values: unknown[]) => values.flatMap((value) => counted(String(value))) },
  boolean: { physical: 0, plain: (values: unknown[]) => [bits(values)] },
  integer: { physical: 2, plain: (values: unknown[]) => values.map((value) => int64(Number(value))) },
  number: { physical: 5, plain: (values: unknown[]) => values.map((value) => double(Number(value))) },
  timestamp: { physical: 2, plain: (values: unknown[]) => values.map((value) => int64(Date.parse(String(value)))) },
} as const

const PLAIN = 0
const RLE = 3

/** One data page with its header: which values are there, where some may not be, and those that are. */
function page<Row>({ type, optional }: Column<Row>, values: unknown[]): Buffer {
  const present = values.map((value) => value !== null)
  // Bit-packed runs are a form of RLE; the count of groups of eight carries a 1 that says so.
  const levels = Buffer.concat([varint(Math.ceil(values.length / 8) * 2 + 1), bits(present)])
  const data = Buffer.concat([
    ...(optional ? [uint32(levels.length), levels] : []),
    ...TYPES[type].plain(values.filter((value) => value !== null)),
  ])
  const about = struct({ 1: i32(values.length), 2: i32(PLAIN), 3: i32(RLE), 4: i32(RLE) })
  const header = struct({ 1: i32(0), 2: i32(data.length), 3: i32(data.length), 5: about })
  return Buffer.concat([header.bytes, data])
}

/** A bit a value, the lowest of each byte first. */
function bits(values: readonly unknown[]): Buffer {
  const bytes = Buffer.alloc(Math.ceil(values.length / 8))
  for (const [at, value] of values.entries()) if (value) bytes[at >> 3] = (bytes[at >> 3] as number) | (1 << (at & 7))
  return bytes
}

function counted(value: string): Buffer[] {
  const bytes = Buffer.from(value)
  return [uint32(bytes.length), bytes]
}

const uint32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
const int64 = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64LE(BigInt(value))
  return bytes
}
const double = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return bytes
}

// ------------------------------------------------------------------------------------------------------------- metadata

function schemaElement<Row>({ name, type, optional }: Column<Row>): Thrift {
  const kind = { 1: i32(TYPES[type].physical), 3: i32(optional ? 1 : 0), 4: text(name) }
  // Both forms of what the bytes mean: converted types for older readers, logical ones for newer.
  if (type === 'string') return struct({ ...kind, 6: i32(0), 10: struct({ 1: struct({}) }) })
  if (type === 'timestamp') {
    return struct({ ...kind, 6: i32(9), 10: struct({ 8: struct({ 1: TRUE, 2: struct({ 1: struct({}) }) }) }) })
  }
  return struct(kind)
}

function chunkMeta<Row>({ name, type }: Column<Row>, values: number, size: number, offset: number): Thrift {
  const meta = {
    1: i32(TYPES[type].physical),
    2: list([i32(PLAIN), i32(RLE)]),
    3: list([text(name)]),
    4: i32(0),
    5: i64(values),
    6: i64(size),
    7: i64(size),
    9: i64(offset),
  }
  return struct({ 2: i64(offset), 3: struct(meta) })
}

// ------------------------------------------------------------------------------------- Thrift's compact protocol, to write

/** A value and its type in the compact protocol. */
interface Thrift {
  readonly type: number
  readonly bytes: Buffer
}

const TRUE: Thrift = { type: 1, bytes: Buffer.alloc(0) }
/** Integers are zigzag: twice the value where it is not negative, and none here is. */
const i32 = (value: number): Thrift => ({ type: 5, bytes: varint(value * 2) })
const i64 = (value: number): Thrift => ({ type: 6, bytes: varint(value * 2) })
const text = (value: string): Thrift => ({
  type: 8,
  bytes: Buffer.concat([varint(Buffer.byteLength(value)), Buffer.from(value)]),
})

function list(items: readonly Thrift[]): Thrift {
  const type = items[0]?.type ?? STRUCT
  const head = items.length < 15 ? Buffer.of(items.length * 16 + type) : Buffer.of(0xf0 + type, ...varint(items.length))
  return { type: 9, bytes: Buffer.concat([head, ...items.map(({ bytes }) => bytes)]) }
}

const STRUCT = 12
/** @param fields by id; none is more than 15 beyond the one before it */
function struct(fields: Record<number, Thrift>): Thrift {
  const parts: Buffer[] = []
  let last = 0
  for (const [id, { type, bytes }] of Object.entries(fields)) {
    parts.push(Buffer.of((Number(id) - last) * 16 + type), bytes)
    last = Number(id)
  }
  return { type: STRUCT, bytes: Buffer.concat([...parts, Buffer.of(0)]) }
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  return Buffer.of(...bytes, rest)
}
