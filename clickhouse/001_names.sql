-- `tenant`, here and in every other table, is the key of a company: a UUID that is computed from its name alone
-- (src/domain/tenant.ts). It is never handed out, so nothing that goes wrong with numbers can lead from one company to another.
--
-- names: a dense number for every assistant and user of a company.
--
-- Rollups are keyed by these numbers instead of strings, for two reasons:
--   * a set of users is then a roaring bitmap over small dense integers: about 40 kB for 300,000 users at most, merged
--     exactly, where a hash-based sketch is an estimate and an exact hash set is megabytes;
--   * grouping by integers costs a fifth of grouping by strings when a block is inserted.
--
-- Numbers count up from 1 within (tenant, kind); 0 never names anything, so it can mean "the whole fleet" in `activity`
-- and "nobody" in a filter. A row is written before the first event that uses its number, and never changes.
-- New names are written as a block whose deduplication token is their first number, so of instances that would give out the
-- same numbers only one succeeds (src/ids/allocator.ts).

CREATE TABLE IF NOT EXISTS names
(
    tenant UUID,
    kind   Enum8('assistant' = 1, 'user' = 2),
    name   String,                                              -- as the caller wrote it, 1 to 256 characters
    number UInt32,
    -- The other direction, for answers that turn numbers back into names.
    PROJECTION by_number (SELECT tenant, kind, number, name ORDER BY tenant, kind, number)
)
ENGINE = MergeTree
ORDER BY (tenant, kind, name)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 256;

-- tenants: the name behind each key, for operators: reports of `reconcile` and look-ups by hand. No answer to a company reads
-- it, and nothing depends on a row being there.
--
-- Every instance writes a company's row before the first event that it sees of it, whether others have done so or not.
-- Rows of one key say the same, and are merged into one with the earliest `first_seen`.

CREATE TABLE IF NOT EXISTS tenants
(
    tenant     UUID,
    name       String,                                          -- as in the token, 1 to 256 characters
    first_seen SimpleAggregateFunction(min, DateTime64(3, 'UTC')) DEFAULT now64(3)
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, name)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 256;

-- name_repairs: when numbers of names were changed (src/maintenance/reconcile-ids.ts), which nothing else ever does. An
-- instance that finds a new row forgets the names and numbers that it has in memory.

CREATE TABLE IF NOT EXISTS name_repairs
(
    tenant UUID,
    at     DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY at
SETTINGS non_replicated_deduplication_window = 1000;
