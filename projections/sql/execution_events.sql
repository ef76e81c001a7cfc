-- The standing events of one execution, in log order per partition.
SELECT kafka_topic, kafka_partition, kafka_offset, type, event_id, tenant, execution, epoch, at_ms, payload, payload_is_cut
FROM events
WHERE tenant = {tenant:String} AND execution = {execution:String}
    AND (kafka_topic, kafka_partition, kafka_offset)
        > ({after_topic:String}, {after_partition:UInt16}, {after_offset:Int64})
ORDER BY kafka_topic, kafka_partition, kafka_offset
LIMIT {limit:UInt32}
