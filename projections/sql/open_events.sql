-- The standing events of every execution that has not ended, in log order per partition.
SELECT kafka_topic, kafka_partition, kafka_offset, type, event_id, tenant, execution, epoch, at_ms, payload, payload_is_cut
FROM events
WHERE (tenant, execution) IN
(
    SELECT tenant, execution
    FROM execution_changes
    GROUP BY tenant, execution
    HAVING max(finished_at_ms) = 0 AND max(queued_at_ms) > 0
)
ORDER BY kafka_topic, kafka_partition, kafka_offset
LIMIT {limit:UInt32}
