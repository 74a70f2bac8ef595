-- GET /analytics/events?eventType=incomingMessages&limit=2&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from = "2026-02-10 07:05:00.000"
--   to = "2026-02-20 21:10:00.000"
--   type = "incomingMessages"
--   skipped = 0
--   size = 3

SELECT id, event_type AS eventType, toUnixTimestamp64Milli(timestamp) AS at, assistant, user,
       cost_nanos / 1e9 AS cost, input_tokens AS inputTokens, output_tokens AS outputTokens, model,
       trace_id AS traceId, metadata
     FROM events
     WHERE tenant = {tenant:UUID}
       AND timestamp >= {from:DateTime64(3, 'UTC')} AND timestamp < {to:DateTime64(3, 'UTC')}
        AND event_type = {type:String}
     ORDER BY timestamp DESC, id DESC
     LIMIT {size:UInt32} OFFSET {skipped:UInt64}
