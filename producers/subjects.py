"""Which record stands on which topic, under which subject and which compatibility rule."""

from __future__ import annotations

from collections.abc import Iterator

from streams import topics
from streams.codec import TYPES, full_name
from streams.control.events import ApiKeyIssued, RecordDeadLettered, WorkflowRegistered
from streams.execution.commands import ExecutionCommand
from streams.execution.events import ExecutionEvent, OwnerClaimed, PartitionMarked
from streams.llm.events import (
    LlmCallChunk,
    LlmCallCompleted,
    LlmCallFailed,
    LlmCallRequested,
    LlmCallRouted,
)
from streams.messages import Command, Message
from streams.topics import CATALOGUE, Topic

CLAIMED: tuple[Topic, ...] = tuple(topic for topic in CATALOGUE if topic.is_claimed)

FAMILIES: tuple[tuple[type[Message], tuple[Topic, ...]], ...] = (
    (ExecutionCommand, (topics.COMMANDS,)),
    (ExecutionEvent, (topics.EXECUTIONS,)),
    (OwnerClaimed, CLAIMED),
    (PartitionMarked, (topics.SNAPSHOTS,)),
    (LlmCallRequested, (topics.LLM_REQUESTS,)),
    (LlmCallRouted, (topics.LLM_RESPONSES,)),
    (LlmCallCompleted, (topics.LLM_RESPONSES,)),
    (LlmCallFailed, (topics.LLM_RESPONSES,)),
    (LlmCallChunk, (topics.LLM_CHUNKS,)),
    (WorkflowRegistered, (topics.CONTROL,)),
    (ApiKeyIssued, (topics.CONTROL,)),
    (RecordDeadLettered, (topics.DLQ,)),
)
"""The topics of each record type or of a whole family; the first that fits counts."""


def topics_of(kind: type[Message]) -> tuple[Topic, ...]:
    """The topics on which records of this type may stand. LookupError if nobody declared any."""
    for family, places in FAMILIES:
        if issubclass(kind, family):
            return places
    raise LookupError(f"{full_name(kind)} has no topic: declare one in producers/subjects.py")


def subject(topic: Topic, record_name: str) -> str:
    """Confluent's TopicRecordNameStrategy: one topic may carry many record types."""
    return f"{topic.name}-{record_name}"


def subjects() -> Iterator[tuple[str, str]]:
    """Every (subject, record name), in the order of registration: topic by topic, name by name."""
    for topic in CATALOGUE:
        for name in sorted(TYPES):
            if topic in topics_of(TYPES[name]):
                yield subject(topic, name), name


def compatibility(kind: type[Message]) -> str:
    """How a record type may change.

    Commands are read by workers newer than their writer: workers are updated before the gateway.
    Events are read by older readers too, and a rebuild reads the oldest.
    """
    return "BACKWARD_TRANSITIVE" if issubclass(kind, Command) else "FULL_TRANSITIVE"
