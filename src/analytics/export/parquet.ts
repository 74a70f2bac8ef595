/**
 * Writes rows as a Parquet file while they come. For rows that are made here; what lies in ClickHouse as it is,
 * ClickHouse writes itself.
 */
import { ByteWriter, ParquetWriter } from 'hyparquet-writer'

export interface Column<Row> {
  readonly name: string & keyof Row
  /** `integer` is 64 bits; a `timestamp` is given as ISO 8601 text and kept as milliseconds of UTC. */
  readonly type: keyof typeof TYPES
  /** Whether a value may be null. */
  readonly optional?: boolean
}

/** As in the format: https://parquet.apache.org/docs/file-format/types/ */
const TYPES = {
  string: { element: { type: 'BYTE_ARRAY', converted_type: 'UTF8' }, convert: (value: unknown) => value },
  boolean: { element: { type: 'BOOLEAN' }, convert: (value: unknown) => value },
  integer: { element: { type: 'INT64' }, convert: (value: unknown) => BigInt(value as number) },
  number: { element: { type: 'DOUBLE' }, convert: (value: unknown) => value },
  timestamp: {
    element: {
      type: 'INT64',
      converted_type: 'TIMESTAMP_MILLIS',
      logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MILLIS' },
    },
    convert: (value: unknown) => new Date(value as string),
  },
} as const

/** Memory holds one group at a time. Readers skip and share out work by group: many small ones would be slow. */
const ROWS_A_GROUP = 4_096

/** @param batches rows, in groups of any size */
export async function* parquetOf<Row extends object>(
  columns: ReadonlyArray<Column<Row>>,
  batches: AsyncIterable<readonly Row[]>,
): AsyncGenerator<Uint8Array> {
  const dataOf = (rows: readonly Row[]) =>
    columns.map(({ name, type }) => ({
      name,
      data: rows.map((row) => (row[name] === null ? null : TYPES[type].convert(row[name]))),
    }))
  const out = new ByteWriter()
  const file = new ParquetWriter({
    writer: out,
    schema: [
      { name: 'root', num_children: columns.length },
      ...columns.map(({ name, type, optional }) => ({
        name,
        repetition_type: optional ? ('OPTIONAL' as const) : ('REQUIRED' as const),
        ...TYPES[type].element,
      })),
    ],
    createdBy: 'agnt-analytics',
  })
  const written = (): Uint8Array => {
    const bytes = out.getBytes().slice()
    out.index = 0
    return bytes
  }
  const group = (rows: readonly Row[]): Uint8Array => {
    void file.write({ columnData: dataOf(rows), rowGroupSize: rows.length })
    return written()
  }
  let waiting: Row[] = []
  for await (const rows of batches) {
    waiting.push(...rows)
    if (waiting.length < ROWS_A_GROUP) continue
    yield group(waiting)
    waiting = []
  }
  if (waiting.length > 0) yield group(waiting)
  void file.finish()
  yield written()
}
