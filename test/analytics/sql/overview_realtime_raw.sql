-- GET /analytics/overview?endDate=2026-03-05&assistant=a at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from1 = "2026-03-01 11:58:00.000"
--   to1 = "2026-03-01 12:03:00.000"
--   assistants = [1]
--   entries = [1772366280000]

      SELECT roundDown(toUInt64(toUnixTimestamp64Milli(timestamp)), {entries:Array(UInt64)}) AS entry, 
    countIf(event_type = 'incomingMessages') AS incomingMessages,
    countIf(event_type = 'outgoingMessages') AS outgoingMessages,
    countIf(event_type = 'tasksInitiated') AS tasksInitiated,
    countIf(event_type = 'tasksCompleted') AS tasksCompleted, toString(sum(cost_nanos)) AS costNanos,
    sum(input_tokens) AS inputTokens,
    sum(output_tokens) AS outputTokens,
    toUnixTimestamp64Milli(max(timestamp)) AS lastAt, bitmapCardinality(groupBitmapState(user_no)) AS activeUsers
      FROM events
      PREWHERE tenant = {tenant:UUID} AND (timestamp >= {from1:DateTime64(3, 'UTC')} AND timestamp < {to1:DateTime64(3, 'UTC')}) AND assistant_no IN {assistants:Array(UInt32)}
      GROUP BY entry
