-- Settled calls, newest first, those before (at_ms, event_id).
SELECT
    tenant, execution, step, agent, call_id, provider, model, input_tokens, cached_tokens, output_tokens,
    reasoning_tokens, cost_microusd, price_book, status, route, event_id, at_ms
FROM usage
WHERE (at_ms, event_id) < ({before_ms:Int64}, {before_id:String})
    AND ({execution:String} = '' OR execution = {execution:String})
ORDER BY at_ms DESC, event_id DESC
LIMIT {limit:UInt32}
