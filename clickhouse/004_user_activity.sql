-- rebuild: user_activity

-- user_activity: sums of each user over spans of time, to rank them. Levels as in `activity`, from the day up: finer
-- parts of a range are read from `events`, a day of one tenant at most on either side.
--
-- `events` is what users are ranked by: the sum of the four counts, in one column. `assistants` is the set of assistants
-- the user talked to; read it with groupUniqArrayArray.

CREATE TABLE IF NOT EXISTS user_activity
(
    tenant            UUID,
    level             UInt8,
    start             DateTime('UTC'),
    user_no           UInt32,
    events            SimpleAggregateFunction(sum, UInt64),
    incoming_messages SimpleAggregateFunction(sum, UInt64),
    outgoing_messages SimpleAggregateFunction(sum, UInt64),
    tasks_initiated   SimpleAggregateFunction(sum, UInt64),
    tasks_completed   SimpleAggregateFunction(sum, UInt64),
    cost_nanos        SimpleAggregateFunction(sum, UInt64),
    input_tokens      SimpleAggregateFunction(sum, UInt64),
    output_tokens     SimpleAggregateFunction(sum, UInt64),
    last_at           SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    assistants        SimpleAggregateFunction(groupUniqArrayArray, Array(UInt32))
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, level, start, user_no)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 1024;

CREATE MATERIALIZED VIEW IF NOT EXISTS user_activity_mv TO user_activity
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS
SELECT
    tenant,
    spot.1 AS level,
    toDateTime(intDiv(second, seconds) * seconds, 'UTC') AS start,
    user_no,
    count() AS events,
    countIf(event_type = 'incomingMessages') AS incoming_messages,
    countIf(event_type = 'outgoingMessages') AS outgoing_messages,
    countIf(event_type = 'tasksInitiated') AS tasks_initiated,
    countIf(event_type = 'tasksCompleted') AS tasks_completed,
    sum(cost) AS cost_nanos,
    sum(input) AS input_tokens,
    sum(output) AS output_tokens,
    max(at) AS last_at,
    groupUniqArray(assistant_no) AS assistants
FROM
(
    SELECT
        tenant,
        event_type,
        user_no,
        assistant_no,
        cost_nanos AS cost,
        input_tokens AS input,
        output_tokens AS output,
        timestamp AS at,
        toUnixTimestamp(timestamp) AS second,
        -- The first of the late levels are the pieces of days, which are the fleet's alone.
        arrayJoin(arraySlice([(2, 86400), (3, 345600), (4, 1382400), (5, 5529600)], 1, greatest(late_levels, 1))
            ::Array(Tuple(UInt8, UInt32))) AS spot,
        spot.2 AS seconds
    FROM events
    WHERE user != ''                                            -- '': of somebody who was removed
)
GROUP BY tenant, level, start, user_no;
