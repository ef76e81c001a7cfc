"""Facts about tenants, keys and workflows on the compacted control topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streams.messages import Event


class ControlEvent(Event):
    __slots__ = ()
    namespace: ClassVar[str] = "omium.control"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRegistered(ControlEvent):
    name: str
    version: str
    """Content hash of the definition."""
    framework: str
    entrypoint: str
    definition_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyIssued(ControlEvent):
    key_id: str
    key_sha256: str
    """The key itself is never stored."""
    scopes: tuple[str, ...]
    """Of `admin`, `executions`, `llm`, `sql`."""
    is_revoked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDeadLettered(ControlEvent):
    """A record that could not be handled (DLQ topic): where it stood, why, and its bytes."""

    topic: str
    partition: int
    offset: int
    reason: str
    processor: str
    key: bytes
    value: bytes
