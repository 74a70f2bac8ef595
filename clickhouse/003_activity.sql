-- rebuild: activity

-- activity: sums and the set of users of the whole fleet (assistant_no = 0) and of each assistant, over spans of time.
--
-- A level is a span length (src/rollups/granularities.ts has the same list):
--   0  15 minutes   fits the offset of every time zone in use
--   1  3 hours      shortens the ends of local days
--   2  1 day (UTC)
--   3  4 days   \
--   4  16 days   }  coarse: written once, when the span is over (sealed), from the level below, and from then on by
--   5  64 days  /   this view for the events that come late. `seals` says how far each has got.
--   6  1 day (UTC), each assistant's once more, in another place: see `bucket`
--   100 + q         1 day (UTC) of the fleet in two pieces, cut at its q-th quarter of an hour: those before it, and those
--                   from it on. Sealed as the coarse levels are, from level 0. Days of a time zone begin at one cut, so each
--                   is two pieces, and 90 of them 180 rows in one place. With 36 cuts for all the zones in use they take
--                   5 MB a day with 300,000 users; a seal takes 0.3 s, and an event that is late by a day costs 36 rows.
-- Spans start at multiples of their length since 1970-01-01T00:00Z. Any range is a sum of disjoint spans plus raw events
-- at its two ragged edges. 90 days are 90 rows, or sixteen at most where coarse levels are faster (src/analytics/totals.ts).
--
-- `users` and `assistants` are sets of names.number: the users as a bitmap (groupBitmapMerge reads it), the far fewer
-- assistants as an array (groupUniqArrayArray), which costs a third of a bitmap when a block is inserted. Never count
-- rows: those of one key are only merged in the background. `assistants` is filled in the fleet's rows, empty in others.

CREATE TABLE IF NOT EXISTS activity
(
    tenant            UUID,
    level             UInt8,
    -- Rows with the same bucket lie together by assistant, then by time. 0, all of the level: a series of days of the
    -- fleet or of one assistant is one stretch. A short bucket: the same few spans of all assistants are one stretch.
    -- With one order alone, one of the two questions reads 90 times as much.
    bucket            DateTime('UTC') MATERIALIZED multiIf(assistant_no = 0 OR level = 2, toDateTime(0, 'UTC'),
                          level = 0, toDateTime(intDiv(toUnixTimestamp(start), 10800) * 10800, 'UTC'),
                          level = 1, toDateTime(intDiv(toUnixTimestamp(start), 86400) * 86400, 'UTC'), start),
    assistant_no      UInt32,
    start             DateTime('UTC'),
    incoming_messages SimpleAggregateFunction(sum, UInt64),
    outgoing_messages SimpleAggregateFunction(sum, UInt64),
    tasks_initiated   SimpleAggregateFunction(sum, UInt64),
    tasks_completed   SimpleAggregateFunction(sum, UInt64),
    cost_nanos        SimpleAggregateFunction(sum, UInt64),
    input_tokens      SimpleAggregateFunction(sum, UInt64),
    output_tokens     SimpleAggregateFunction(sum, UInt64),
    last_at           SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    users             AggregateFunction(groupBitmap, UInt32),
    assistants        SimpleAggregateFunction(groupUniqArrayArray, Array(UInt32))
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, level, bucket, assistant_no, start)
-- A question reads a handful of rows from every part. One file a part instead of one a column, and granules of so many bytes
-- instead of 128 rows with a bitmap each, took 90 days of a fleet from 13.1 to 10.1 ms in total and from 14.2 to 11.1 ms by
-- day, where SELECT 1 took 3.9. 256 KiB serve what reads rows that lie together: 500 assistants take 52 ms instead of 63 with
-- 64 KiB, days of a time zone 29 instead of 37; 1 MiB takes 25 instead of 19 for a ragged end. The size of a granule goes by
-- the mean row of a block: with 8,192 rows, a few of them large, those of the others are half as long.
-- The last setting keeps `start` in the index. By default (0.9) ClickHouse leaves out what follows a column that is
-- different in nine of ten granules, as assistant_no is: one quarter of an hour of the fleet was then 158 granules.
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 512, index_granularity_bytes = 262144,
    merge_max_block_size = 1024, min_bytes_for_wide_part = 1099511627776,
    primary_key_ratio_of_unique_prefix_values_to_skip_suffix_columns = 1;

-- DEFINER: whoever may insert events needs no right to read them.
CREATE MATERIALIZED VIEW IF NOT EXISTS activity_mv TO activity
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS
SELECT
    tenant,
    spot.1 AS level,
    spot.2 AS assistant_no,
    toDateTime(intDiv(second, seconds) * seconds + cut * (since_midnight >= cut), 'UTC') AS start,
    countIf(event_type = 'incomingMessages') AS incoming_messages,
    countIf(event_type = 'outgoingMessages') AS outgoing_messages,
    countIf(event_type = 'tasksInitiated') AS tasks_initiated,
    countIf(event_type = 'tasksCompleted') AS tasks_completed,
    sum(cost) AS cost_nanos,
    sum(input) AS input_tokens,
    sum(output) AS output_tokens,
    max(at) AS last_at,
    groupBitmapState(user_no) AS users,
    groupUniqArrayIf(own_no, assistant_no = 0) AS assistants
FROM
(
    SELECT
        tenant,
        event_type,
        user_no,
        events.assistant_no AS own_no,
        cost_nanos AS cost,
        input_tokens AS input,
        output_tokens AS output,
        timestamp AS at,
        toUnixTimestamp(timestamp) AS second,
        second % 86400 AS since_midnight,
        -- (level, assistant_no, seconds) of every row the event belongs to
        arrayJoin(arrayConcat(
            [(0, 0, 900), (0, assistant_no, 900), (1, 0, 10800), (1, assistant_no, 10800),
             (2, 0, 86400), (2, assistant_no, 86400), (6, assistant_no, 86400)],
            arrayMap(q -> (100 + q, 0, 86400), arraySlice(
                [4, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 38, 40, 41, 44, 45, 48, 52, 54, 56, 58, 60, 61, 64, 68, 70, 72, 73, 74,
                 76, 78, 80, 82, 84, 88, 92], 1, if(late_levels = 0, 0, 36))),
            arraySlice([(3, 0, 345600), (3, assistant_no, 345600), (4, 0, 1382400), (4, assistant_no, 1382400),
                        (5, 0, 5529600), (5, assistant_no, 5529600)], 1, 2 * greatest(late_levels, 1) - 2)
        )::Array(Tuple(UInt8, UInt32, UInt32))) AS spot,
        spot.3 AS seconds,
        -- Of a piece of a day, in seconds since midnight, and 0 where nothing is cut. Takes a fifth of the time of all of this,
        -- and a tuple of four with the cut in it took a third.
        900 * (greatest(spot.1, 100) - 100) AS cut
    FROM events
)
GROUP BY tenant, level, assistant_no, start;
