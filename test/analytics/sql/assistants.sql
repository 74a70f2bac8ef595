-- GET /analytics/assistants?user=nobody&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from1 = "2026-01-30 17:00:00.000"
--   to1 = "2026-02-20 21:10:00.000"
--   users = [4294967295]
--   spans = []
--   entries = [1769792400000, 1770707100000]

SELECT entry, assistant_no AS assistant, 
  sum(incoming_messages) AS incomingMessages,
  sum(outgoing_messages) AS outgoingMessages,
  sum(tasks_initiated) AS tasksInitiated,
  sum(tasks_completed) AS tasksCompleted, sum(cost_nanos) / 1e9 AS cost, 
  sum(input_tokens) AS inputTokens,
  sum(output_tokens) AS outputTokens,
  toUnixTimestamp64Milli(max(last_at)) AS lastAt, groupBitmapMerge(users) AS activeUsers
     FROM (
    SELECT roundDown(toUInt64(toUnixTimestamp64Milli(timestamp)), {entries:Array(UInt64)}) AS entry, assistant_no, 
    countIf(event_type = 'incomingMessages') AS incoming_messages,
    countIf(event_type = 'outgoingMessages') AS outgoing_messages,
    countIf(event_type = 'tasksInitiated') AS tasks_initiated,
    countIf(event_type = 'tasksCompleted') AS tasks_completed,
    sum(events.cost_nanos) AS cost_nanos,
    sum(events.input_tokens) AS input_tokens,
    sum(events.output_tokens) AS output_tokens,
    max(timestamp) AS last_at, groupBitmapState(user_no) AS users
    FROM events
    WHERE tenant = {tenant:UUID} AND (timestamp >= {from1:DateTime64(3, 'UTC')} AND timestamp < {to1:DateTime64(3, 'UTC')}) AND user_no IN {users:Array(UInt32)} AND user != ''
    GROUP BY entry, assistant_no) GROUP BY entry, assistant_no
