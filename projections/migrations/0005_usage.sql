-- One row per settled call; money. Exact without FINAL: besides token and window, the sink asks this very table for
-- the call ids of each batch before it inserts them, so that a repeat is dropped however late it comes. Replacing is
-- the net below. Sorted by call for that question.
CREATE TABLE IF NOT EXISTS usage
(
    tenant LowCardinality(String),
    execution String CODEC(ZSTD(1)),
    step LowCardinality(String),
    agent LowCardinality(String),
    call_id String CODEC(ZSTD(1)),
    provider LowCardinality(String),
    model LowCardinality(String),
    input_tokens Int64,
    cached_tokens Int64,
    output_tokens Int64,
    reasoning_tokens Int64,
    cost_microusd Int64,
    price_book LowCardinality(String),
    status LowCardinality(String),
    route LowCardinality(String),
    event_id String CODEC(ZSTD(1)),
    at_ms Int64 CODEC(Delta, ZSTD(1)),
    time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(at_ms) CODEC(Delta, ZSTD(1)),
    kafka_topic LowCardinality(String),
    kafka_partition UInt16,
    kafka_offset UInt64,
    execution_id String ALIAS execution,
    INDEX by_execution execution TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, call_id, event_id)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

-- A view, not a materialised one: a materialised roll-up counts what was inserted, this one counts what stands. One
-- tenant's million calls roll up in some tens of milliseconds.
CREATE VIEW IF NOT EXISTS costs_daily AS
SELECT
    tenant,
    toDate(time) AS day,
    agent,
    step,
    provider,
    model,
    route,
    price_book,
    count() AS calls,
    sum(u.input_tokens) AS input_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.output_tokens) AS output_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_microusd) AS cost_microusd,
    countIf(u.status = 'unconfirmed') AS unconfirmed_calls
FROM usage AS u
GROUP BY tenant, day, agent, step, provider, model, route, price_book;
