"""Dead letters: what becomes of a record that cannot be read or handled (law 13)."""

from __future__ import annotations

from streams.control.events import RecordDeadLettered
from streams.errors import Poison
from streams.messages import event_id

PART_BYTES_MAX = 1024 * 1024
"""Of the key, and of the value: a dead letter must itself fit into a record."""
REASON_CHARS_MAX = 4096


def dead_letter(
    poison: Poison,
    *,
    processor: str,
    key: bytes | None,
    value: bytes | None,
    tenant: str,
    at_ms: int,
) -> RecordDeadLettered:
    """The dead letter of a poison record: where it stood, why, and as much of it as fits.

    The same record gives the same letter id to each processor, however often it is met. `tenant` is
    the record's `omium_tenant` header, or empty if even that cannot be read.
    """
    place = f"{poison.topic}/{poison.partition}/{poison.offset}"
    return RecordDeadLettered(
        event_id=event_id(tenant, place, processor, 0, "RecordDeadLettered", 0),
        tenant=tenant,
        execution_id="",
        at_ms=at_ms,
        topic=poison.topic,
        partition=poison.partition,
        offset=poison.offset,
        reason=poison.reason.encode("utf-8", "replace").decode()[:REASON_CHARS_MAX],
        processor=processor,
        key=(key or b"")[:PART_BYTES_MAX],
        value=(value or b"")[:PART_BYTES_MAX],
    )
