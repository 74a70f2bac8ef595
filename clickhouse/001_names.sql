-- names: a dense number for every tenant, assistant and user.
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
    tenant UInt32,                                              -- 0 for the names of the tenants themselves
    kind   Enum8('tenant' = 1, 'assistant' = 2, 'user' = 3),
    name   String,                                              -- as the caller wrote it, 1 to 256 characters
    number UInt32,
    -- The other direction, for answers that turn numbers back into names.
    PROJECTION by_number (SELECT tenant, kind, number, name ORDER BY tenant, kind, number)
)
ENGINE = MergeTree
ORDER BY (tenant, kind, name)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 256;
