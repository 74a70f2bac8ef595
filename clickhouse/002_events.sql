-- events: the raw log, one row an accepted event. Everything else can be rebuilt from it.
--
-- No PARTITION BY, on purpose: an insert into one table without partitions is one part, so it is atomic even when a
-- backfill spans 88 months (with monthly partitions the real traffic in one file makes 88 parts a block, and more than
-- 100 are refused by default). The sort key already prunes by tenant and time.

CREATE TABLE IF NOT EXISTS events
(
    tenant        UUID,                                       -- see 001_names.sql
    timestamp     DateTime64(3, 'UTC') CODEC(Delta, LZ4),       -- when it happened, as the caller says
    id            String CODEC(ZSTD(1)),                        -- the caller's, or made up; unique within the tenant
    event_type    Enum8('incomingMessages' = 1, 'outgoingMessages' = 2, 'tasksInitiated' = 3, 'tasksCompleted' = 4),
    assistant     LowCardinality(String),
    user          String CODEC(ZSTD(1)),                        -- '': somebody who was removed (008_removals.sql)
    assistant_no  UInt32,                                       -- names.number of the assistant
    user_no       UInt32,                                       -- names.number of the user
    cost_nanos    UInt64,                                       -- 1e-9 USD: integers add up exactly in any order
    input_tokens  UInt32,
    output_tokens UInt32,
    model         LowCardinality(String),                       -- '' where none was sent, as in the next two
    trace_id      String CODEC(ZSTD(1)),
    metadata      String CODEC(ZSTD(1)),                        -- a JSON object as text
    -- How many of the levels that are sealed (SEALED in src/rollups/granularities.ts) were sealed over this moment when the event
    -- was accepted. The views write such a late event into those levels as well.
    late_levels   UInt8,
    term          UInt64 CODEC(Delta, LZ4),                     -- writer_lease.term under which it was stored; 0: no other instance
    received_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, LZ4),

    -- Finds what other instances of the service stored since this one last had the writer lease.
    INDEX term term TYPE minmax GRANULARITY 32,
    -- A second copy in the order of users: what one user did, over any range, is read without scanning the fleet's log.
    PROJECTION by_user (SELECT * ORDER BY tenant, user_no, timestamp, id),
    -- An index: sorted offsets into the part. An event is found by its id, whatever its timestamp.
    PROJECTION by_id (SELECT _part_offset ORDER BY tenant, id)
)
ENGINE = MergeTree
ORDER BY (tenant, timestamp, id)
-- A page, a ragged edge of a range and a look-up by id read one granule each: an eighth of the usual size takes them from
-- 16 to 14 and from 27 to 23 ms, for an index of 5 MB in 100 million events.
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 1024;
