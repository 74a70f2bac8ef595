-- seals: how far each coarse level has got, for all tenants alike, and the pieces of days as level 100. A row says that every
-- span of `level` that ends at or before `sealed_until` is complete in `activity` and `user_activity`; the newest row of a
-- level counts. Reading from a level that is sealed further than the reader knows is only slower, never wrong: the day rows
-- are always complete.

CREATE TABLE IF NOT EXISTS seals
(
    level        UInt8,
    sealed_until SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY level;
