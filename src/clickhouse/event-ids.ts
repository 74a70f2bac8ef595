/** How ids of events are hashed in ClickHouse. */

/** The hash by which src/ingest/event-id-filter.ts knows an event, over rows of `events`. A UUID lies in memory as two numbers, the first half first. */
export const ID_HASH = 'toUInt32(bitXor(murmurHash3_32(id), bitShiftRight(reinterpretAsUInt64(tenant), 32)))'
