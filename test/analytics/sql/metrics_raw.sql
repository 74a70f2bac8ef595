-- GET /analytics/metrics?period=day&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from1 = "2026-02-10 07:05:00.000"
--   to1 = "2026-02-10 07:15:00.000"
--   from2 = "2026-02-20 21:00:00.000"
--   to2 = "2026-02-20 21:10:00.000"
--   from3 = "1970-01-01 00:00:00.000"
--   to3 = "1970-01-01 00:00:00.000"
--   entries = [1770707100000, 1770768000000, 1770854400000, 1770940800000, 1771027200000, 1771113600000, 1771200000000, 1771286400000, 1771372800000, 1771459200000, 1771545600000]

      SELECT roundDown(toUInt64(toUnixTimestamp64Milli(timestamp)), {entries:Array(UInt64)}) AS entry, 
    countIf(event_type = 'incomingMessages') AS incomingMessages,
    countIf(event_type = 'outgoingMessages') AS outgoingMessages,
    countIf(event_type = 'tasksInitiated') AS tasksInitiated,
    countIf(event_type = 'tasksCompleted') AS tasksCompleted, toString(sum(cost_nanos)) AS costNanos,
    sum(input_tokens) AS inputTokens,
    sum(output_tokens) AS outputTokens,
    toUnixTimestamp64Milli(max(timestamp)) AS lastAt, bitmapCardinality(groupBitmapState(user_no)) AS activeUsers, base64Encode(toString(groupBitmapState(user_no))) AS userSet
      FROM events
      PREWHERE tenant = {tenant:UUID} AND ((timestamp >= {from1:DateTime64(3, 'UTC')} AND timestamp < {to1:DateTime64(3, 'UTC')}) OR (timestamp >= {from2:DateTime64(3, 'UTC')} AND timestamp < {to2:DateTime64(3, 'UTC')}) OR (timestamp >= {from3:DateTime64(3, 'UTC')} AND timestamp < {to3:DateTime64(3, 'UTC')}))
      GROUP BY entry
