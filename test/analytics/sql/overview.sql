-- GET /analytics/overview?endDate=2026-02-20 at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   level = 2
--   startFrom = 1770940800
--   startTo = 1771545600
--   entries = [1770940800000, 1772366280000]
--   shared = []
--   rows = 0

      SELECT roundDown(toUInt64(toUnixTimestamp(start)) * 1000, {entries:Array(UInt64)}) AS entry, 
    
  sum(incoming_messages) AS incomingMessages,
  sum(outgoing_messages) AS outgoingMessages,
  sum(tasks_initiated) AS tasksInitiated,
  sum(tasks_completed) AS tasksCompleted, toString(sum(cost_nanos)) AS costNanos, 
  sum(input_tokens) AS inputTokens,
  sum(output_tokens) AS outputTokens,
  toUnixTimestamp64Milli(max(last_at)) AS lastAt, bitmapCardinality(groupBitmapMergeState(users)) AS activeUsers, groupUniqArrayArray(assistants) AS assistantList
      FROM activity
      WHERE tenant = {tenant:UUID} AND bucket = 0 AND level = {level:UInt8} AND start >= {startFrom:UInt32} AND start < {startTo:UInt32}
        AND assistant_no = {rows:UInt32}
      GROUP BY entry
