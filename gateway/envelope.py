"""A standing event as people and programs read it: one JSON object, the same on SSE, WebSocket and
history pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

from streams.codec import to_record
from streams.execution.position import LETTERS, Position
from streams.llm.events import LlmCallRouted
from streams.messages import Message
from streams.ownership import NO_CLAIM

JSON_SUFFIX: Final = "_json"
FRAME_FIELDS: Final = frozenset({"event_id", "tenant", "execution_id", "epoch", "at_ms"})


def is_told(topic: str, message: Message) -> bool:
    """Whether an event belongs to what people follow: an LLM call's own steps are its router's."""
    return topic in LETTERS and not isinstance(message, LlmCallRouted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One standing event with its place on the log, ready to be sent."""

    topic: str
    partition: int
    offset: int
    highest_claim: int = NO_CLAIM
    event_id: str
    kind: str
    at_ms: int
    sequence: int | None
    """Its place among the execution's own events; LLM answers have none."""
    body: bytes
    """The envelope as JSON."""

    @property
    def size_bytes(self) -> int:
        """What it holds of the store's budget; the constant is what Python adds."""
        return len(self.body) + 400

    def after(self, position: Position) -> Position:
        """The position of a reader who has had this too."""
        return position.after(self.topic, self.partition, self.offset, self.highest_claim)


def stored(
    message: Message,
    topic: str,
    partition: int,
    offset: int,
    highest_claim: int,
    sequence: int | None,
) -> Stored:
    """The event as the gateway keeps it."""
    kind = type(message).__name__
    document = {
        "type": kind,
        "execution_id": message.execution_id,
        "event_id": message.event_id,
        "time_ms": message.at_ms,
        "sequence": sequence,
        "log": {"topic": topic, "partition": partition, "offset": offset, "epoch": message.epoch},
        "data": data_of(message),
    }
    return Stored(
        topic=topic,
        partition=partition,
        offset=offset,
        highest_claim=highest_claim,
        event_id=message.event_id,
        kind=kind,
        at_ms=message.at_ms,
        sequence=sequence,
        # A copy of its exact size: what orjson returns keeps the 10 KB buffer it was written in.
        body=bytes(memoryview(orjson.dumps(document))),
    )


def data_of(message: Message) -> dict[str, object]:
    """The event's own fields: JSON texts as JSON, opaque bytes as their size only."""
    data: dict[str, object] = {}
    for name, value in to_record(message).items():
        if name in FRAME_FIELDS:
            continue
        if isinstance(value, bytes):
            data[f"{name}_bytes"] = len(value)
        elif name.endswith(JSON_SUFFIX) and isinstance(value, str):
            data[name.removesuffix(JSON_SUFFIX)] = parsed(value)
        else:
            data[name] = value
    return data


def parsed(text: str | None) -> object:
    """The value of a JSON text; a text that was cut off stays a text."""
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
