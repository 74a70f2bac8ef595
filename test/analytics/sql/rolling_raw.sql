-- GET /analytics/rolling?window=7 at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from1 = "2026-02-15 12:03:00.000"
--   to1 = "2026-02-15 12:15:00.000"
--   from2 = "2026-02-22 12:00:00.000"
--   to2 = "2026-02-22 12:15:00.000"
--   from3 = "2026-03-01 12:00:00.000"
--   to3 = "2026-03-01 12:03:00.000"
--   entries = [1771156980000, 1771761780000, 1771804800000, 1771891200000, 1771977600000, 1772064000000, 1772150400000, 1772236800000, 1772323200000]
--   parts = [1771156980000, 1771761780000]
--   shared = [1771156980000, 1771761780000, 1772323200000]

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
