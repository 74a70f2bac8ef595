-- GET /analytics/users/top?limit=3&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from1 = "2026-02-10 07:05:00.000"
--   to1 = "2026-02-11 00:00:00.000"
--   from2 = "2026-02-20 00:00:00.000"
--   to2 = "2026-02-20 21:10:00.000"
--   from3 = "1970-01-01 00:00:00.000"
--   to3 = "1970-01-01 00:00:00.000"
--   spans = [(2, 1770768000), (3, 1770854400), (3, 1771200000)]
--   tied = 1
--   limit = 3

SELECT user, total FROM (SELECT user_no AS user, sum(events) AS total FROM (
    SELECT user_no, events
    FROM user_activity
    WHERE tenant = {tenant:UUID} AND (level, start) IN {spans:Array(Tuple(UInt8, UInt32))} UNION ALL 
    SELECT user_no, toUInt64(1) AS events FROM events
    WHERE tenant = {tenant:UUID} AND ((timestamp >= {from1:DateTime64(3, 'UTC')} AND timestamp < {to1:DateTime64(3, 'UTC')}) OR (timestamp >= {from2:DateTime64(3, 'UTC')} AND timestamp < {to2:DateTime64(3, 'UTC')}) OR (timestamp >= {from3:DateTime64(3, 'UTC')} AND timestamp < {to3:DateTime64(3, 'UTC')})) AND user != '') GROUP BY user_no HAVING total >= {tied:UInt64}) AS ranked
       INNER JOIN (SELECT number, min(name) AS name FROM names
                   WHERE tenant = {tenant:UUID} AND kind = 'user' GROUP BY number) AS named ON named.number = ranked.user
       ORDER BY total DESC, name LIMIT {limit:UInt32}
