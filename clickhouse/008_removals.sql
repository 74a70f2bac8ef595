-- removals: people whose events were made anonymous (src/maintenance/erasure.ts). There is no name in it: a row is the
-- receipt, tells other instances of the service which number to forget, and keeps that number from being handed out again.
--
-- `started` says that nothing may be stored under this number any more, `done` that nothing with a name is left of it. A
-- number has one row of each, or several that say the same where instances did the same work at once; the first counts.

CREATE TABLE IF NOT EXISTS removals
(
    tenant   UUID,
    user_no  UInt32,                                            -- names.number of the user, which belongs to nobody now
    state    Enum8('started' = 1, 'done' = 2),
    receipt  UUID,
    events   UInt64,                                            -- that were stored under the name when the removal began
    first_at DateTime64(3, 'UTC'),                              -- timestamp of the first of them; 1970 where there is none
    last_at  DateTime64(3, 'UTC'),
    at       DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (tenant, user_no, state, at)
SETTINGS non_replicated_deduplication_window = 1000;
