-- What calls cost, by the workflow of their execution; calls outside any execution have the empty key.
SELECT
    e.workflow AS key,
    count() AS calls,
    sum(u.input_tokens) AS input_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.output_tokens) AS output_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_microusd) AS cost_microusd,
    countIf(u.status = 'unconfirmed') AS unconfirmed_calls
FROM usage AS u
LEFT JOIN
(
    SELECT tenant, execution, max(c.workflow) AS workflow
    FROM execution_changes AS c
    GROUP BY tenant, execution
) AS e ON u.tenant = e.tenant AND u.execution = e.execution
WHERE u.at_ms >= {since_ms:Int64} AND u.at_ms < {until_ms:Int64}
GROUP BY key
ORDER BY cost_microusd DESC, calls DESC, key
LIMIT {limit:UInt32}
