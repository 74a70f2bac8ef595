-- GET /analytics/events?eventType=incomingMessages&limit=2&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   spans = [(0, 1770707700), (0, 1770708600), (0, 1770709500), (132, 1770710400), (2, 1770768000), (2, 1770854400), (2, 1770940800), (2, 1771027200), (2, 1771113600), (2, 1771200000), (2, 1771286400), (2, 1771372800), (2, 1771459200), (184, 1771545600)]
--   entries = [1770707100000]
--   shared = [1770707100000]
--   rows = 0

      SELECT roundDown(toUInt64(toUnixTimestamp(start)) * 1000, {entries:Array(UInt64)}) AS entry, 
    
  sum(incoming_messages) AS incomingMessages,
  sum(outgoing_messages) AS outgoingMessages,
  sum(tasks_initiated) AS tasksInitiated,
  sum(tasks_completed) AS tasksCompleted
      FROM activity
      PREWHERE tenant = {tenant:UUID} AND bucket = 0 AND (level, start) IN {spans:Array(Tuple(UInt8, UInt32))}
        AND assistant_no = {rows:UInt32}
      GROUP BY entry
