-- lane: which instance of the service may store events, where several share this database (src/clickhouse/writer-lease.ts).
--
-- A row is one turn: from `at`, `holder` may write until `until`, both on the clock of ClickHouse. An instance claims the
-- next epoch with an insert whose deduplication token is that epoch: of several claims exactly one row stays. This works
-- on a plain MergeTree and on a replicated one alike.

CREATE TABLE IF NOT EXISTS lane
(
    epoch  UInt64,
    holder String,
    until  DateTime64(3, 'UTC'),
    at     DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY epoch
TTL toDateTime(at) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000;
