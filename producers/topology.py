"""The topics of the catalogue, made once on a broker with all their settings."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.topics import CATALOGUE, MESSAGE_BYTES_MAX, Topic, partitions

CREATE_TIMEOUT_S = 60.0
"""A broker that has just started on a busy machine takes tens of seconds to elect leaders."""
RECORD_OVERHEAD_BYTES = 64 * 1024
"""Room for key, headers and batch framing above the largest payload."""
SEGMENT_MS_COMPACTED = 60 * 60 * 1000
"""Only closed segments are compacted: hourly ones keep compacted topics quick to read at start."""


def create_topics(bootstrap: str, replication_factor: int = 1) -> list[str]:
    """The names of the topics that it made; those that exist are left as they are."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [
        NewTopic(
            topic.name,
            num_partitions=partitions(topic),
            replication_factor=replication_factor,
            config=settings(topic, replication_factor),
        )
        for topic in CATALOGUE
    ]
    made = []
    pending = admin.create_topics(
        wanted, operation_timeout=CREATE_TIMEOUT_S, request_timeout=CREATE_TIMEOUT_S
    )
    for name, future in pending.items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        else:
            made.append(name)
    return made


def settings(topic: Topic, replication_factor: int) -> dict[str, str]:
    """The topic's configuration on the broker."""
    common = {
        "cleanup.policy": "compact" if topic.is_compacted else "delete",
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(MESSAGE_BYTES_MAX + RECORD_OVERHEAD_BYTES),
        # One replica may be down without stopping writers; an acknowledged record stands on two.
        "min.insync.replicas": "2" if replication_factor >= 3 else "1",
        # The time in a record is the writer's claim; retention must not depend on it.
        "message.timestamp.type": "LogAppendTime",
    }
    if topic.is_compacted:
        return common | {
            "segment.ms": str(SEGMENT_MS_COMPACTED),
            "min.cleanable.dirty.ratio": "0.1",
        }
    return common
