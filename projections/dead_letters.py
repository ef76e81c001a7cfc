"""Unreadable records on their way to the dead letter topic, under an id that makes a repeat
harmless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producers.dlq import dead_letter
from producers.wire import Wire
from projections.batches import DeadRecord
from streams.control.events import RecordDeadLettered
from streams.errors import Retryable
from streams.topics import DLQ, MESSAGE_BYTES_MAX

FLUSH_TIMEOUT_S: Final = 30.0


class KafkaDeadLetters:
    """The dead letter topic. The producer is made at the first dead record: most sinks never see
    one."""

    def __init__(
        self, bootstrap: str, wire: Wire, processor: str, now_ms: Callable[[], int]
    ) -> None:
        self._bootstrap = bootstrap
        self._wire = wire
        self._processor = processor
        self._now_ms = now_ms
        self._producer: Producer | None = None

    def bury(self, dead: Sequence[DeadRecord]) -> None:
        """Put them on the topic; returns when all in-sync replicas have them, else raises
        `Retryable`."""
        producer = self._started()
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error)

        for one in dead:
            record = self._wire.encode(self._letter(one), DLQ)
            producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=[*record.headers],
                on_delivery=delivered,
            )
        try:
            left = producer.flush(FLUSH_TIMEOUT_S)
        except KafkaException as error:
            raise Retryable(f"cannot bury: {error}", 1000) from error
        if left or failed:
            raise Retryable(f"{left + len(failed)} dead records were not acknowledged", 1000)

    def _started(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "client.id": f"omium-dlq-{self._processor}",
                    "acks": "all",
                    "enable.idempotence": True,
                    "message.max.bytes": MESSAGE_BYTES_MAX + 64 * 1024,
                    "log_level": 3,
                }
            )
        return self._producer

    def _letter(self, dead: DeadRecord) -> RecordDeadLettered:
        record = dead.record
        return dead_letter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            reason=dead.reason,
            processor=self._processor,
            at_ms=self._now_ms(),
        )
