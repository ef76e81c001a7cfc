"""Bases of every command and event, and the deterministic identity that makes re-emission harmless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NewType
from uuid import UUID, uuid5

TenantId = NewType("TenantId", str)
ExecutionId = NewType("ExecutionId", str)
CallId = NewType("CallId", str)

# Fixed for ever: ids derived from it are on customers' logs.
OMIUM_NAMESPACE = UUID("6f6d6975-6d00-5000-8000-6f6d69756d31")
UNCLAIMED_EPOCH = -1
"""The epoch of records on topics that have no single claimed writer (commands, LLM requests, control)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What every record carries. `namespace` and the class name are the Avro record's full name."""

    namespace: ClassVar[str]

    event_id: str
    tenant: str
    execution_id: str
    """Empty for records that belong to no execution."""
    epoch: int = UNCLAIMED_EPOCH
    """Offset of the `OwnerClaimed` its writer acted under; readers drop the event when a later claim precedes it."""
    at_ms: int = 0
    """When its writer made it, milliseconds UTC."""


class Event(Message):
    """Something that happened; named in the past tense."""

    __slots__ = ()


class Command(Message):
    """Something that is asked for; named in the imperative."""

    __slots__ = ()


def event_id(
    tenant: str, execution: str, step: str, attempt: int, kind: str, ordinal: int | str
) -> str:
    """The id of one fact, the same whoever writes it and however often.

    `attempt` counts deliberate retries, never resumes: a resumed execution re-emits under the same ids.
    """
    return str(uuid5(OMIUM_NAMESPACE, "\x1f".join((tenant, execution, step, str(attempt), kind, str(ordinal)))))


def call_id(tenant: str, idempotency_key: str) -> CallId:
    """The id and partition key of one LLM call: equal keys of one tenant are one call."""
    return CallId(str(uuid5(OMIUM_NAMESPACE, "\x1f".join(("llm", tenant, idempotency_key)))))
