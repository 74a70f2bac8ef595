-- GET /analytics/users/top?limit=3&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from1 = "2026-02-10 07:05:00.000"
--   to1 = "2026-02-11 00:00:00.000"
--   from2 = "2026-02-20 00:00:00.000"
--   to2 = "2026-02-20 21:10:00.000"
--   from3 = "1970-01-01 00:00:00.000"
--   to3 = "1970-01-01 00:00:00.000"
--   spans = []
--   listed = [(2, 1770768000), (3, 1770854400), (3, 1771200000)]
--   ends = []
--   totals = [(2, 0, 1770768000), (3, 0, 1770854400), (3, 0, 1771200000)]
--   limit = 1006

    SELECT user, sum(events) AS least, sum(bound) AS credit
    FROM (
    SELECT
        ranked.1 AS user,
        is_end AND user != 0 AS at_end,
        if(at_end, 0, ranked.2) AS events,
        toInt64(list.3) - if(at_end, ranked.2, 0) AS bound
    FROM
    (
        SELECT argMax((users, events, bound, total), version) AS list, level = 2 AND start IN {ends:Array(UInt32)} AS is_end
        FROM user_ranks
        WHERE tenant = {tenant:UUID} AND (level, start) IN {listed:Array(Tuple(UInt8, DateTime))}
        GROUP BY level, start
    )
    ARRAY JOIN arrayPushBack(arrayZip(list.1, list.2), (toUInt32(0), list.4)) AS ranked
    UNION ALL
    SELECT toUInt32(4294967295) AS user, 0 AS at_end, incoming_messages + outgoing_messages + tasks_initiated + tasks_completed AS events, 0 AS bound
    FROM activity
    WHERE tenant = {tenant:UUID} AND (level, bucket, start) IN {totals:Array(Tuple(UInt8, DateTime, DateTime))}
      AND assistant_no = 0
    UNION ALL
    SELECT user_no AS user, 0 AS at_end, toUInt64(1) AS events, 0 AS bound
    FROM events
    WHERE tenant = {tenant:UUID} AND ((timestamp >= {from1:DateTime64(3, 'UTC')} AND timestamp < {to1:DateTime64(3, 'UTC')}) OR (timestamp >= {from2:DateTime64(3, 'UTC')} AND timestamp < {to2:DateTime64(3, 'UTC')}) OR (timestamp >= {from3:DateTime64(3, 'UTC')} AND timestamp < {to3:DateTime64(3, 'UTC')})) AND events.user != '')
    GROUP BY user
    ORDER BY user IN (0, 4294967295) DESC, least - credit DESC
    LIMIT {limit:UInt32}
