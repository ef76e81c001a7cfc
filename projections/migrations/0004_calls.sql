-- LLM and tool calls, folded like executions. The two LLM topics share no offsets, so a call's state is the greatest
-- (4 * try + {requested 0, routed 1, failed 2, completed 3}, status).
CREATE TABLE IF NOT EXISTS llm_call_changes
(
    tenant LowCardinality(String),
    execution String,
    call_id String,
    at_ms SimpleAggregateFunction(max, Int64),
    time SimpleAggregateFunction(max, DateTime64(3, 'UTC')) DEFAULT fromUnixTimestamp64Milli(at_ms),
    state SimpleAggregateFunction(max, Tuple(UInt64, String)),
    step SimpleAggregateFunction(max, String),
    agent SimpleAggregateFunction(max, String),
    api SimpleAggregateFunction(max, String),
    model_requested SimpleAggregateFunction(max, String),
    is_stream SimpleAggregateFunction(max, UInt8),
    requested_at_ms SimpleAggregateFunction(max, Int64),
    finished_at_ms SimpleAggregateFunction(max, Int64),
    route SimpleAggregateFunction(max, Tuple(UInt64, String)),
    provider SimpleAggregateFunction(max, Tuple(UInt64, String)),
    model SimpleAggregateFunction(max, Tuple(UInt64, String)),
    tries SimpleAggregateFunction(max, Int64),
    input_tokens SimpleAggregateFunction(max, Int64),
    cached_tokens SimpleAggregateFunction(max, Int64),
    output_tokens SimpleAggregateFunction(max, Int64),
    reasoning_tokens SimpleAggregateFunction(max, Int64),
    cost_microusd SimpleAggregateFunction(max, Int64),
    usage_status SimpleAggregateFunction(max, String),
    first_token_ms SimpleAggregateFunction(max, Int64),
    latency_ms SimpleAggregateFunction(max, Int64),
    error_class SimpleAggregateFunction(max, String),
    error_message SimpleAggregateFunction(max, String),
    http_status SimpleAggregateFunction(max, Int64),
    kafka_topic SimpleAggregateFunction(max, LowCardinality(String)),
    kafka_partition SimpleAggregateFunction(max, UInt16),
    kafka_offset SimpleAggregateFunction(max, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, execution, call_id)
SETTINGS index_granularity = 1024, non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS llm_calls AS
SELECT
    tenant,
    execution,
    call_id,
    max(c.state).2 AS status,
    max(c.step) AS step,
    max(c.agent) AS agent,
    max(c.api) AS api,
    max(c.model_requested) AS model_requested,
    max(c.is_stream) = 1 AS is_stream,
    if(max(c.requested_at_ms) = 0, NULL, fromUnixTimestamp64Milli(max(c.requested_at_ms), 'UTC')) AS requested_at,
    if(max(c.finished_at_ms) = 0, NULL, fromUnixTimestamp64Milli(max(c.finished_at_ms), 'UTC')) AS finished_at,
    max(c.route).2 AS route,
    max(c.provider).2 AS provider,
    max(c.model).2 AS model,
    max(c.tries) AS tries,
    max(c.input_tokens) AS input_tokens,
    max(c.cached_tokens) AS cached_tokens,
    max(c.output_tokens) AS output_tokens,
    max(c.reasoning_tokens) AS reasoning_tokens,
    max(c.cost_microusd) AS cost_microusd,
    max(c.usage_status) AS usage_status,
    max(c.first_token_ms) AS first_token_ms,
    max(c.latency_ms) AS latency_ms,
    max(c.error_class) AS error_class,
    max(c.error_message) AS error_message,
    max(c.http_status) AS http_status,
    max(c.kafka_topic) AS kafka_topic,
    max(c.kafka_partition) AS kafka_partition,
    max(c.kafka_offset) AS kafka_offset
FROM llm_call_changes AS c
GROUP BY tenant, execution, call_id;

CREATE TABLE IF NOT EXISTS tool_call_changes
(
    tenant LowCardinality(String),
    execution String,
    call_id String,
    at_ms SimpleAggregateFunction(max, Int64),
    time SimpleAggregateFunction(max, DateTime64(3, 'UTC')) DEFAULT fromUnixTimestamp64Milli(at_ms),
    state SimpleAggregateFunction(max, Tuple(UInt64, String)),
    step SimpleAggregateFunction(max, String),
    step_key SimpleAggregateFunction(max, String),
    agent SimpleAggregateFunction(max, String),
    tool SimpleAggregateFunction(max, String),
    policy SimpleAggregateFunction(max, String),
    arguments_json SimpleAggregateFunction(max, String),
    result_json SimpleAggregateFunction(max, String),
    resolution SimpleAggregateFunction(max, String),
    error_type SimpleAggregateFunction(max, String),
    error_message SimpleAggregateFunction(max, String),
    intended_at_ms SimpleAggregateFunction(max, Int64),
    finished_at_ms SimpleAggregateFunction(max, Int64),
    intents SimpleAggregateFunction(sum, Int64),
    duration_ms SimpleAggregateFunction(max, Int64),
    kafka_topic SimpleAggregateFunction(max, LowCardinality(String)),
    kafka_partition SimpleAggregateFunction(max, UInt16),
    kafka_offset SimpleAggregateFunction(max, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, execution, call_id)
SETTINGS index_granularity = 1024, non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS tool_calls AS
SELECT
    tenant,
    execution,
    call_id,
    max(c.state).2 AS status,
    max(c.step) AS step,
    max(c.step_key) AS step_key,
    max(c.agent) AS agent,
    max(c.tool) AS tool,
    max(c.policy) AS policy,
    max(c.arguments_json) AS arguments_json,
    max(c.result_json) AS result_json,
    max(c.resolution) AS resolution,
    max(c.error_type) AS error_type,
    max(c.error_message) AS error_message,
    if(max(c.intended_at_ms) = 0, NULL, fromUnixTimestamp64Milli(max(c.intended_at_ms), 'UTC')) AS intended_at,
    if(max(c.finished_at_ms) = 0, NULL, fromUnixTimestamp64Milli(max(c.finished_at_ms), 'UTC')) AS finished_at,
    sum(c.intents) AS intents,
    max(c.duration_ms) AS duration_ms,
    max(c.kafka_topic) AS kafka_topic,
    max(c.kafka_partition) AS kafka_partition,
    max(c.kafka_offset) AS kafka_offset
FROM tool_call_changes AS c
GROUP BY tenant, execution, call_id;
