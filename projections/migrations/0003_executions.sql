-- What each event changed about its execution. One event knows only a part of the row (only the first knows the
-- workflow, only the last the output), so the row is a fold: every column has the function that joins two changes, and
-- the view below reads the same answer however far merges have come. `state` is the greatest (offset, status).
CREATE TABLE IF NOT EXISTS execution_changes
(
    tenant LowCardinality(String),
    execution String,
    at_ms SimpleAggregateFunction(max, Int64),
    time SimpleAggregateFunction(max, DateTime64(3, 'UTC')) DEFAULT fromUnixTimestamp64Milli(at_ms),
    state SimpleAggregateFunction(max, Tuple(UInt64, String)),
    last_step SimpleAggregateFunction(max, Tuple(UInt64, String)),
    workflow SimpleAggregateFunction(max, String),
    workflow_version SimpleAggregateFunction(max, String),
    framework SimpleAggregateFunction(max, String),
    labels_json SimpleAggregateFunction(max, String),
    input_json SimpleAggregateFunction(max, String),
    output_json SimpleAggregateFunction(max, String),
    queued_at_ms SimpleAggregateFunction(max, Int64),
    started_at_ms SimpleAggregateFunction(min, Nullable(Int64)),
    finished_at_ms SimpleAggregateFunction(max, Int64),
    deadline_at_ms SimpleAggregateFunction(max, Int64),
    incarnation SimpleAggregateFunction(max, Int64),
    error_class SimpleAggregateFunction(max, String),
    error_type SimpleAggregateFunction(max, String),
    error_message SimpleAggregateFunction(max, String),
    error_step SimpleAggregateFunction(max, String),
    steps SimpleAggregateFunction(sum, Int64),
    steps_failed SimpleAggregateFunction(sum, Int64),
    tool_calls SimpleAggregateFunction(sum, Int64),
    llm_calls SimpleAggregateFunction(sum, Int64),
    approvals SimpleAggregateFunction(sum, Int64),
    input_tokens SimpleAggregateFunction(sum, Int64),
    cached_tokens SimpleAggregateFunction(sum, Int64),
    output_tokens SimpleAggregateFunction(sum, Int64),
    reasoning_tokens SimpleAggregateFunction(sum, Int64),
    cost_microusd SimpleAggregateFunction(sum, Int64),
    kafka_topic SimpleAggregateFunction(max, LowCardinality(String)),
    kafka_partition SimpleAggregateFunction(max, UInt16),
    kafka_offset SimpleAggregateFunction(max, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, execution)
SETTINGS index_granularity = 1024, non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS executions AS
SELECT
    tenant,
    execution,
    max(c.state).2 AS status,
    max(c.last_step).2 AS step,
    max(c.workflow) AS workflow,
    max(c.workflow_version) AS workflow_version,
    max(c.framework) AS framework,
    max(c.labels_json) AS labels_json,
    max(c.input_json) AS input_json,
    max(c.output_json) AS output_json,
    fromUnixTimestamp64Milli(max(c.queued_at_ms), 'UTC') AS queued_at,
    fromUnixTimestamp64Milli(min(c.started_at_ms), 'UTC') AS started_at,
    if(max(c.finished_at_ms) = 0, NULL, fromUnixTimestamp64Milli(max(c.finished_at_ms), 'UTC')) AS finished_at,
    if(max(c.deadline_at_ms) = 0, NULL, fromUnixTimestamp64Milli(max(c.deadline_at_ms), 'UTC')) AS deadline_at,
    max(c.incarnation) AS incarnation,
    max(c.error_class) AS error_class,
    max(c.error_type) AS error_type,
    max(c.error_message) AS error_message,
    max(c.error_step) AS error_step,
    sum(c.steps) AS steps,
    sum(c.steps_failed) AS steps_failed,
    sum(c.tool_calls) AS tool_calls,
    sum(c.llm_calls) AS llm_calls,
    sum(c.approvals) AS approvals,
    sum(c.input_tokens) AS input_tokens,
    sum(c.cached_tokens) AS cached_tokens,
    sum(c.output_tokens) AS output_tokens,
    sum(c.reasoning_tokens) AS reasoning_tokens,
    sum(c.cost_microusd) AS cost_microusd,
    max(c.kafka_topic) AS kafka_topic,
    max(c.kafka_partition) AS kafka_partition,
    max(c.kafka_offset) AS kafka_offset
FROM execution_changes AS c
GROUP BY tenant, execution
HAVING max(c.queued_at_ms) > 0 OR status != '';
