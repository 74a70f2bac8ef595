/** How ids of events are hashed in ClickHouse. */

/** The hash by which src/ingest/event-id-filter.ts knows an event, over rows of `events`. */
export const ID_HASH = "murmurHash3_32(concat(toString(tenant), ' ', id))"
