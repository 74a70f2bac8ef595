-- What the migrator (src/clickhouse/migrate.ts) keeps its own state in. This file is run at every start, before it looks which
-- of the numbered files are missing, and is not recorded: its statements never change.

-- migrations: rows are only ever added. `started` claims a file for one runner, `failed` gives the claim up, `done` ends it.
--
-- A claim is an INSERT whose deduplication token names version and attempt: of any number of runners that insert the same
-- token, exactly one leaves its row, and the runner whose row it is has the claim. The window makes a plain MergeTree look at
-- tokens at all, and has to outlast every claim ever made.
CREATE TABLE IF NOT EXISTS migrations
(
    version  UInt32,
    name     String,
    checksum String COMMENT 'SHA-256 of the file, hexadecimal',
    attempt  UInt32 COMMENT 'from 1; a higher one took over from a runner that went silent or failed',
    runner   String COMMENT 'host, process and a random part',
    state    Enum8('started' = 1, 'failed' = 2, 'done' = 3),
    at       DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (version, attempt, state)
SETTINGS non_replicated_deduplication_window = 10000;

-- rebuilds: rollups that have to be written again from the raw log (src/maintenance/backfill.ts), and how far that is: the
-- greatest (version, phase, tenant, level, start) of a rollup counts.
CREATE TABLE IF NOT EXISTS rebuilds
(
    name    String COMMENT 'of the rollup',
    version UInt32 COMMENT 'counts the times that it was asked for; at least the version of the file that asks',
    phase   UInt8  COMMENT '0: days of tenants are written, 1: spans of the coarse levels are, 2: it is compared and repaired, 3: it is complete',
    tenant  String COMMENT 'written so far in phase 0: the tenant, as text, which is how they are ordered',
    level   UInt8  COMMENT 'and in phase 1 the level',
    start   UInt32 COMMENT 'and of it the day or span, epoch seconds',
    at      DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (name, version, phase, tenant, level, start)
SETTINGS non_replicated_deduplication_window = 1000;
