"""Poison: a record that cannot be handled goes to the DLQ with its place and the reason; the
partition goes on.
"""

from __future__ import annotations

from typing import Final

from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.control.events import RecordDeadLettered
from streams.messages import event_id
from streams.topics import DLQ

VALUE_BYTES_MAX: Final = 1024 * 1024
"""What is kept of a poison record; its place says where the rest is."""
REASON_CHARS_MAX: Final = 2000


class DeadLetters:
    """Where one processor puts what it cannot handle."""

    def __init__(self, *, processor: str, producer: AsyncProducer, wire: Wire) -> None:
        self._processor = processor
        self._producer = producer
        self._wire = wire

    async def put(
        self,
        *,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        reason: str,
        at_ms: int,
    ) -> None:
        """Returns when the entry is on the log; its id is the record's place, so repeats are one
        entry.
        """
        entry = RecordDeadLettered(
            event_id=event_id("", "", topic, partition, "RecordDeadLettered", offset),
            tenant="",
            execution_id="",
            at_ms=at_ms,
            topic=topic,
            partition=partition,
            offset=offset,
            reason=reason[:REASON_CHARS_MAX],
            processor=self._processor,
            key=(key or b"")[:VALUE_BYTES_MAX],
            value=(value or b"")[:VALUE_BYTES_MAX],
        )
        await self._producer.send(self._wire.encode(entry, DLQ))
