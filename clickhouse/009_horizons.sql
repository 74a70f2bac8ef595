-- horizons: the moment before which nothing is kept (src/maintenance/retention.ts), for all tenants alike; the latest counts.
-- Events of before are refused, questions begin there, and rows of before that are still on disk are on their way out.

CREATE TABLE IF NOT EXISTS horizons
(
    horizon DateTime('UTC'),                                    -- the beginning of a UTC day
    at      DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY horizon
SETTINGS non_replicated_deduplication_window = 1000;
