-- GET /analytics/users/top?limit=3&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   tenant = "74edf7b5-1f46-88d0-ae46-04c3a7898a76"
--   kind = "user"
--   numbers = [1, 3, 2]

SELECT name, number FROM names
         WHERE tenant = {tenant:UUID} AND kind = {kind:String} AND number IN {numbers:Array(UInt32)}
