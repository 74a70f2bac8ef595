-- GET /analytics/users/top?limit=3&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from1 = "2026-02-10 07:05:00.000"
--   to1 = "2026-02-11 00:00:00.000"
--   from2 = "2026-02-20 00:00:00.000"
--   to2 = "2026-02-20 21:10:00.000"
--   from3 = "1970-01-01 00:00:00.000"
--   to3 = "1970-01-01 00:00:00.000"
--   spans = [(2, 1770768000), (3, 1770854400), (3, 1771200000)]
--   listed = [1, 2, 3]

SELECT user_no AS user, 
  sum(incoming_messages) AS incomingMessages,
  sum(outgoing_messages) AS outgoingMessages,
  sum(tasks_initiated) AS tasksInitiated,
  sum(tasks_completed) AS tasksCompleted, sum(cost_nanos) / 1e9 AS cost, 
  sum(input_tokens) AS inputTokens,
  sum(output_tokens) AS outputTokens,
  toUnixTimestamp64Milli(max(last_at)) AS lastAt, length(groupUniqArrayArray(assistants)) AS assistants FROM (
    SELECT user_no, incoming_messages, outgoing_messages, tasks_initiated, tasks_completed, cost_nanos, input_tokens,
    output_tokens, last_at, assistants
    FROM user_activity
    WHERE tenant = {tenant:UUID} AND (level, start) IN {spans:Array(Tuple(UInt8, UInt32))} AND user_no IN {listed:Array(UInt32)} UNION ALL 
    SELECT user_no, 
    countIf(event_type = 'incomingMessages') AS incoming_messages,
    countIf(event_type = 'outgoingMessages') AS outgoing_messages,
    countIf(event_type = 'tasksInitiated') AS tasks_initiated,
    countIf(event_type = 'tasksCompleted') AS tasks_completed,
    sum(events.cost_nanos) AS cost_nanos,
    sum(events.input_tokens) AS input_tokens,
    sum(events.output_tokens) AS output_tokens,
    max(timestamp) AS last_at, groupUniqArray(assistant_no) AS assistants
    FROM events
    WHERE tenant = {tenant:UUID} AND ((timestamp >= {from1:DateTime64(3, 'UTC')} AND timestamp < {to1:DateTime64(3, 'UTC')}) OR (timestamp >= {from2:DateTime64(3, 'UTC')} AND timestamp < {to2:DateTime64(3, 'UTC')}) OR (timestamp >= {from3:DateTime64(3, 'UTC')} AND timestamp < {to3:DateTime64(3, 'UTC')})) AND user_no IN {listed:Array(UInt32)}
    GROUP BY user_no) GROUP BY user_no
