-- GET /analytics/overview?endDate=2026-02-20 at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   tenant = "74edf7b5-1f46-88d0-ae46-04c3a7898a76"

SELECT max(number) AS count FROM names WHERE tenant = {tenant:UUID} AND kind = 'user'
