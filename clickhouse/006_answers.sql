-- answers: what POST /analytics/events answered to a request with an Idempotency-Key, to say the same again.

CREATE TABLE IF NOT EXISTS answers
(
    tenant   UUID,
    key      String,                                            -- the header, 1 to 255 characters
    body     FixedString(64),                                   -- SHA-256 of the request body, hex: another body is a 422
    answer   String,                                            -- JSON
    at       DateTime('UTC') DEFAULT now()
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (tenant, key)
TTL at + INTERVAL 7 DAY
SETTINGS non_replicated_deduplication_window = 1000;
