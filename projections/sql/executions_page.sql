-- Executions, newest first, those created before (queued_at_ms, id). The page is chosen from first events alone, which
-- are one narrow row each; only its members are folded.
WITH page AS
(
    SELECT execution
    FROM execution_changes
    WHERE tenant = {tenant:String} AND queued_at_ms > 0
        AND (queued_at_ms, execution) < ({before_ms:Int64}, {before_id:String})
        AND ({workflow:String} = '' OR workflow = {workflow:String})
        AND ({label:String} = '' OR JSONExtractString(labels_json, {label:String}) = {label_value:String})
        AND ({status:String} = '' OR execution IN
        (
            SELECT execution
            FROM execution_changes
            WHERE tenant = {tenant:String}
            GROUP BY execution
            HAVING max(state).2 = {status:String}
        ))
    ORDER BY queued_at_ms DESC, execution DESC
    LIMIT {limit:UInt32}
)
SELECT
    execution,
    max(c.state).2 AS status,
    max(c.workflow) AS workflow,
    max(c.workflow_version) AS workflow_version,
    max(c.framework) AS framework,
    max(c.labels_json) AS labels_json,
    max(c.queued_at_ms) AS queued_at_ms,
    min(c.started_at_ms) AS started_at_ms,
    max(c.finished_at_ms) AS finished_at_ms,
    sum(c.steps) + sum(c.steps_failed) AS steps,
    sum(c.llm_calls) AS llm_calls,
    sum(c.tool_calls) AS tool_calls,
    sum(c.input_tokens) AS input_tokens,
    sum(c.cached_tokens) AS cached_tokens,
    sum(c.output_tokens) AS output_tokens,
    sum(c.reasoning_tokens) AS reasoning_tokens,
    sum(c.cost_microusd) AS cost_microusd
FROM execution_changes AS c
WHERE tenant = {tenant:String} AND execution IN (SELECT execution FROM page)
GROUP BY execution
ORDER BY queued_at_ms DESC, execution DESC
