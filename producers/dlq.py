"""The letter that carries a record nobody could handle to the dead letter topic (law 13)."""

from __future__ import annotations

from streams.control.events import RecordDeadLettered
from streams.messages import event_id

LETTER_BYTES_MAX = 1024 * 1024
"""Key and value are cut here: a giant record must not make its own letter unsendable."""
REASON_CHARS_MAX = 4096


def dead_letter(
    *,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    reason: str,
    processor: str,
    at_ms: int,
    tenant: str = "",
) -> RecordDeadLettered:
    """The letter; its id is the record's place and the processor's name, so a repeat is harmless.

    `tenant` is the record's `omium_tenant` header, where it can be read.
    """
    return RecordDeadLettered(
        event_id=event_id("", "", topic, partition, f"RecordDeadLettered:{processor}", offset),
        tenant=tenant,
        execution_id="",
        at_ms=at_ms,
        topic=topic,
        partition=partition,
        offset=offset,
        # What quotes foreign bytes may hold halves of characters, which no record can.
        reason=reason[:REASON_CHARS_MAX].encode("utf-8", "replace").decode(),
        processor=processor,
        key=(key or b"")[:LETTER_BYTES_MAX],
        value=(value or b"")[:LETTER_BYTES_MAX],
    )
