-- GET /analytics/events?format=ndjson&startDate=2026-02-10T07:05:00Z&endDate=2026-02-20T21:10:00Z at 2026-03-01T12:03:00.000Z
-- tenant is the key of the token’s company
--   from = "2026-02-10 07:05:00.000"
--   to = "2026-02-20 21:10:00.000"
--   skipped = 0

SELECT concat(
  '{"id":', toJSONString(id),
  ',"eventType":"', CAST(event_type, 'String'),
  '","timestamp":', toJSONString(timestamp),
  ',"assistant":', toJSONString(CAST(assistant, 'String')),
  ',"user":', if(user = '', 'null', toJSONString(user)),
  ',"cost":', toJSONString(cost_nanos / 1e9),
  ',"inputTokens":', toString(input_tokens),
  ',"outputTokens":', toString(output_tokens),
  ',"model":', if(model = '', 'null', toJSONString(CAST(model, 'String'))),
  ',"traceId":', if(trace_id = '', 'null', toJSONString(trace_id)),
  ',"metadata":', if(metadata = '', 'null', metadata), '}') FROM events
     WHERE tenant = {tenant:UUID}
       AND timestamp >= {from:DateTime64(3, 'UTC')} AND timestamp < {to:DateTime64(3, 'UTC')}
       
     ORDER BY timestamp DESC, id DESC
