-- writer_lease: which instance of the service may write, where several share this database
-- (src/clickhouse/writer-lease.ts, docs/decisions/0001-writer-lease.md).
--
-- A row with the state `held` is one term: `holder` may write until `until`. An instance claims the next term with an insert
-- whose deduplication token is that term: of several claims exactly one row stays. This works on a plain MergeTree and on a
-- replicated one alike. A row with the state `released` says that every write of the term has ended and that its outcome is
-- known to the holder; the next holder need not wait for anything then.
--
-- A row with the state `waiting` says that somebody else would like to have the lease, so that the holder gives it up early.
--
-- Every time in this table comes from the clock of ClickHouse, so the clocks of the instances do not matter.

CREATE TABLE IF NOT EXISTS writer_lease
(
    partition UInt8,                                            -- writer partition; always 0 so far
    term      UInt64,                                           -- counts up from 1 within a partition
    holder    String,                                           -- a random name of the process
    state     Enum8('held' = 1, 'released' = 2, 'waiting' = 3),
    until     DateTime64(3, 'UTC'),
    at        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (partition, term)
TTL toDateTime(at) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000;
