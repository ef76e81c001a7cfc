"""The topic catalogue: every topic, its key, partitions and clean-up, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

DAY_MS = 24 * 60 * 60 * 1000
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""Largest record on any topic; larger payloads take the claim check (law 12)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic. `group` names topics that must have equal partition counts, since they share a
    key.
    """

    name: str
    key: str
    group: str
    is_compacted: bool = False
    is_claimed: bool = False
    """Whether each partition has one claimed writer whose epoch readers check."""
    retention_ms: int = -1


COMMANDS = Topic(
    name="omium.commands.v1", key="execution", group="execution", retention_ms=7 * DAY_MS
)
EXECUTIONS = Topic(name="omium.executions.v1", key="execution", group="execution", is_claimed=True)
SNAPSHOTS = Topic(name="omium.snapshots.v1", key="execution", group="execution", is_compacted=True)
LLM_REQUESTS = Topic(name="omium.llm.requests.v1", key="call", group="llm", retention_ms=7 * DAY_MS)
LLM_RESPONSES = Topic(name="omium.llm.responses.v1", key="call", group="llm", is_claimed=True)
LLM_CHUNKS = Topic(name="omium.llm.chunks.v1", key="call", group="llm", retention_ms=60 * 60 * 1000)
INCIDENTS = Topic(name="omium.incidents.v1", key="execution", group="execution", is_claimed=True)
COORDINATION = Topic(
    name="omium.coordination.v1", key="execution", group="execution", is_claimed=True
)
USAGE = Topic(name="omium.usage.v1", key="tenant", group="tenant", is_claimed=True)
CONTROL = Topic(name="omium.control.v1", key="entity", group="control", is_compacted=True)
DLQ = Topic(name="omium.dlq.v1", key="source", group="control", retention_ms=30 * DAY_MS)
SCHEMAS = Topic(name="_schemas", key="subject", group="control", is_compacted=True)

CATALOGUE: tuple[Topic, ...] = (
    COMMANDS, EXECUTIONS, SNAPSHOTS, LLM_REQUESTS, LLM_RESPONSES, LLM_CHUNKS,
    INCIDENTS, COORDINATION, USAGE, CONTROL, DLQ, SCHEMAS,
)  # fmt: skip
BY_NAME = {topic.name: topic for topic in CATALOGUE}

PARTITIONS = {"execution": 4, "llm": 4, "tenant": 2, "control": 1}
"""Partitions per group. Fixed at first start: keys would move otherwise."""


def partitions(topic: Topic) -> int:
    """How many partitions the topic has."""
    return PARTITIONS[topic.group]


def partition_of(topic: Topic, key: str) -> int:
    """The partition of a key, computed by us and passed explicitly: clients' default partitioners
    disagree.
    """
    return crc32(key.encode()) % partitions(topic)
