-- user_ranks: the most active users of a span of `user_activity`, so that a ranking over 90 days need not add up a million
-- rows of users nobody asks for (src/analytics/user-ranks.ts says how it stays exact). A list is made when a question
-- missed it, and replaced as a whole: the newest `version` counts.
--
-- Granules of 4: a row is up to 48 KiB, and a question reads ten of them.

CREATE TABLE IF NOT EXISTS user_ranks
(
    tenant  UUID,
    level   UInt8,
    start   DateTime('UTC'),
    users   Array(UInt32),                                      -- names.number, most events first, at most 4,096
    events  Array(UInt64),                                      -- of each of them in the span
    bound   UInt64,                                             -- no other user had more; 0 where all are listed
    total   UInt64,                                             -- events of the fleet in the span, by `activity`
    version DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, level, start)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 4;
