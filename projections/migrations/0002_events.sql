-- One immutable row per standing event. Sums and counts are exact without FINAL: void events go elsewhere, duplicates
-- are dropped before the insert, and a re-sent batch is refused by its token. ReplacingMergeTree is only the net below:
-- a repeat of an event id from beyond the sink's window collapses at the next merge. Rows are wide, so a granule is
-- small: looking one execution up reads a megabyte of payload a part, not ten.
CREATE TABLE IF NOT EXISTS events
(
    tenant LowCardinality(String),
    execution String CODEC(ZSTD(1)),
    event_id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    at_ms Int64 CODEC(Delta, ZSTD(1)),
    time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(at_ms) CODEC(Delta, ZSTD(1)),
    epoch Int64 CODEC(ZSTD(1)),
    workflow LowCardinality(String),
    step LowCardinality(String),
    step_key String CODEC(ZSTD(1)),
    agent LowCardinality(String),
    attempt Int64 CODEC(ZSTD(1)),
    ordinal Int64 CODEC(ZSTD(1)),
    incarnation Int64 CODEC(ZSTD(1)),
    call_id String CODEC(ZSTD(1)),
    tool LowCardinality(String),
    route LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    input_tokens Int64 CODEC(ZSTD(1)),
    cached_tokens Int64 CODEC(ZSTD(1)),
    output_tokens Int64 CODEC(ZSTD(1)),
    reasoning_tokens Int64 CODEC(ZSTD(1)),
    cost_microusd Int64 CODEC(ZSTD(1)),
    duration_ms Int64 CODEC(ZSTD(1)),
    error_class LowCardinality(String),
    error_type LowCardinality(String),
    error_message String CODEC(ZSTD(1)),
    payload String CODEC(ZSTD(1)),
    payload_is_cut Bool,
    kafka_topic LowCardinality(String),
    kafka_partition UInt16 CODEC(ZSTD(1)),
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)),
    execution_id String ALIAS execution
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, execution, event_id)
SETTINGS index_granularity = 1024, non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Events of deposed owners: kept as evidence, under a key of their own so that they never replace their valid twin.
CREATE TABLE IF NOT EXISTS events_void
(
    tenant LowCardinality(String),
    execution String CODEC(ZSTD(1)),
    event_id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    at_ms Int64,
    time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(at_ms),
    epoch Int64,
    highest_claim Int64,
    payload String CODEC(ZSTD(1)),
    payload_is_cut Bool,
    kafka_topic LowCardinality(String),
    kafka_partition UInt16,
    kafka_offset UInt64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, execution, kafka_topic, kafka_partition, kafka_offset)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;
