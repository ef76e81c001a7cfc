"""What stands on the topics of the catalogue now, and how far each consumer group is behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from streams.errors import Retryable
from streams.topics import CATALOGUE, partitions

TIMEOUT_S = 5.0
GROUPS_MAX = 100
"""Groups whose lag is shown; somebody else's broker may have thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOffsets:
    """One partition: its first offset, its next one, and by group the records not yet committed."""

    partition: int
    start: int
    end: int
    lag: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """The same for JSON."""
        return {
            "partition": self.partition,
            "start": self.start,
            "end": self.end,
            "lag": dict(self.lag),
        }


def offsets(bootstrap: str) -> dict[str, list[PartitionOffsets]]:
    """The partitions of each topic that exists, by topic. Retryable without a broker."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    try:
        existing = admin.list_topics(timeout=TIMEOUT_S).topics
        places = [
            (topic.name, number)
            for topic in CATALOGUE
            if topic.name in existing
            for number in range(partitions(topic))
        ]
        watermarks = _watermarks(bootstrap, places)
        committed = _committed(admin)
    except KafkaException as error:
        raise Retryable(f"no answer from Kafka at {bootstrap}", 1_000) from error
    found: dict[str, list[PartitionOffsets]] = {}
    for topic, number in places:
        start, end = watermarks[topic, number]
        lag = {
            group: max(0, end - done[topic, number])
            for group, done in committed.items()
            if (topic, number) in done
        }
        found.setdefault(topic, []).append(
            PartitionOffsets(partition=number, start=start, end=end, lag=lag)
        )
    return found


def _watermarks(
    bootstrap: str, places: list[tuple[str, int]]
) -> dict[tuple[str, int], tuple[int, int]]:
    """The first and the next offset of each partition."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "omium-topics-unused", "log_level": 2}
    )
    try:
        return {
            place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S)
            for place in places
        }
    finally:
        consumer.close()


def _committed(admin: AdminClient) -> dict[str, dict[tuple[str, int], int]]:
    """The committed offsets of each consumer group."""
    groups = admin.list_consumer_groups(request_timeout=TIMEOUT_S).result().valid
    committed: dict[str, dict[tuple[str, int], int]] = {}
    for group in sorted(each.group_id for each in groups)[:GROUPS_MAX]:
        asked = [ConsumerGroupTopicPartitions(group)]
        answer = admin.list_consumer_group_offsets(asked, request_timeout=TIMEOUT_S)[group]
        committed[group] = {
            (place.topic, place.partition): place.offset
            for place in answer.result().topic_partitions or []
            if place.offset >= 0
        }
    return committed
