-- What calls cost, by one property of theirs.
SELECT
    toString({group:Identifier}) AS key,
    count() AS calls,
    sum(u.input_tokens) AS input_tokens,
    sum(u.cached_tokens) AS cached_tokens,
    sum(u.output_tokens) AS output_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_microusd) AS cost_microusd,
    countIf(u.status = 'unconfirmed') AS unconfirmed_calls
FROM (SELECT *, toDate(time) AS day FROM usage) AS u
WHERE u.at_ms >= {since_ms:Int64} AND u.at_ms < {until_ms:Int64}
GROUP BY key
ORDER BY cost_microusd DESC, calls DESC, key
LIMIT {limit:UInt32}
