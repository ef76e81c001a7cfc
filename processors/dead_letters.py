"""Poison: a record that cannot be handled goes to the DLQ with its place and the reason; the
partition goes on.
"""

from __future__ import annotations

from producers.dlq import dead_letter
from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.topics import DLQ


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
        entry = dead_letter(
            topic=topic,
            partition=partition,
            offset=offset,
            key=key,
            value=value,
            reason=reason,
            processor=self._processor,
            at_ms=at_ms,
        )
        await self._producer.send(self._wire.encode(entry, DLQ))
