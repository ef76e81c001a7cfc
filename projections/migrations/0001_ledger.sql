-- The sink's ledger. A row says: these records, and no others, are batch `seq`. It is written before the batch's
-- rows, under the token `batches-<seq>`: of two sinks that want the same seq, ClickHouse keeps the first, so the
-- ledger is also the fence between a sink and its successor. One partition only, since tokens are compared within one.
-- Sorted by seq: the newest batch is one granule away.
CREATE TABLE IF NOT EXISTS batches
(
    seq UInt64,
    writer String,
    topic LowCardinality(String),
    partition UInt16,
    first_offset Int64,
    last_offset Int64,
    claim_before Int64,
    highest_claim Int64,
    records UInt32,
    rows UInt32,
    void UInt32,
    duplicates UInt32,
    poison UInt32,
    at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (seq, topic, partition)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- One row per batch whose rows all stand in their tables.
CREATE TABLE IF NOT EXISTS batches_done
(
    seq UInt64,
    at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY seq
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
