-- GET /analytics/rolling?window=7 at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   spans = [(0, 1771157700), (0, 1771158600), (0, 1771159500), (152, 1771160400), (2, 1771200000), (2, 1771286400), (2, 1771372800), (2, 1771459200), (2, 1771545600), (2, 1771632000), (148, 1771718400), (0, 1771762500), (0, 1771763400), (0, 1771764300), (152, 1771765200), (2, 1771804800), (2, 1771891200), (2, 1771977600), (2, 1772064000), (2, 1772150400), (2, 1772236800), (1, 1772323200), (1, 1772334000), (1, 1772344800), (1, 1772355600)]
--   entries = [1771156980000, 1771761780000, 1771804800000, 1771891200000, 1771977600000, 1772064000000, 1772150400000, 1772236800000, 1772323200000]
--   parts = [1771156980000, 1771761780000]
--   shared = [1771156980000, 1771761780000, 1772323200000]
--   rows = 0

      SELECT roundDown(toUInt64(toUnixTimestamp(start)) * 1000, {entries:Array(UInt64)}) AS entry, roundDown(entry, {parts:Array(UInt64)}) AS part, grouping(entry) AS isWhole, 
    
  sum(incoming_messages) AS incomingMessages,
  sum(outgoing_messages) AS outgoingMessages,
  sum(tasks_initiated) AS tasksInitiated,
  sum(tasks_completed) AS tasksCompleted, toString(sum(cost_nanos)) AS costNanos, 
  sum(input_tokens) AS inputTokens,
  sum(output_tokens) AS outputTokens,
  toUnixTimestamp64Milli(max(last_at)) AS lastAt, bitmapCardinality(groupBitmapMergeState(users)) AS activeUsers, if(isWhole OR entry IN {shared:Array(UInt64)}, base64Encode(toString(groupBitmapMergeState(users))), '') AS userSet
      FROM activity
      PREWHERE tenant = {tenant:UUID} AND bucket = 0 AND (level, start) IN {spans:Array(Tuple(UInt8, UInt32))}
        AND assistant_no = {rows:UInt32}
      GROUP BY GROUPING SETS ((part, entry), (part))
