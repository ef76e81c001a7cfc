"""A log for the projector's tests: events of executions and calls, as records of topics of the
test's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import uuid4

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from producers.wire import Wire
from projections.batches import LogRecord
from streams import topics
from streams.execution import events as e
from streams.llm import events as l
from streams.messages import Message, call_id, event_id

TENANT = "acme"
AT_MS = 1_790_000_000_000
COST = 7


def claim(generation: int = 0) -> e.OwnerClaimed:
    """A worker takes the partition."""
    return e.OwnerClaimed(
        event_id=str(uuid4()),
        tenant="",
        execution_id="",
        at_ms=AT_MS,
        worker_id="w",
        generation=generation,
        topic=topics.EXECUTIONS.name,
        partition=0,
    )


def queued(execution: str, epoch: int, tenant: str = TENANT) -> e.ExecutionQueued:
    """The first event of an execution."""
    return e.ExecutionQueued(
        event_id=event_id(tenant, execution, "", 0, "queued", 0),
        tenant=tenant,
        execution_id=execution,
        epoch=epoch,
        at_ms=AT_MS,
        workflow="loan",
        workflow_version="v1",
        framework="langgraph",
        entrypoint="m:g",
        input_json='{"amount": 5}',
        options_json="{}",
        labels_json="{}",
        deadline_at_ms=None,
        command_offset=0,
    )


def started(execution: str, epoch: int, tenant: str = TENANT) -> e.ExecutionStarted:
    """A runner begins."""
    return e.ExecutionStarted(
        event_id=event_id(tenant, execution, "", 0, "started", 0),
        tenant=tenant,
        execution_id=execution,
        epoch=epoch,
        at_ms=AT_MS + 1,
        worker_id="w",
        incarnation=0,
    )


def step(execution: str, ordinal: int, epoch: int, tenant: str = TENANT) -> e.StepCompleted:
    """A finished step."""
    return e.StepCompleted(
        event_id=event_id(tenant, execution, f"s{ordinal}", 0, "completed", ordinal),
        tenant=tenant,
        execution_id=execution,
        epoch=epoch,
        at_ms=AT_MS + 10 + ordinal,
        step=f"s{ordinal}",
        step_key=f"s{ordinal}#0",
        agent="clerk",
        attempt=0,
        ordinal=ordinal,
        incarnation=0,
        output_json='{"ok": true}',
        duration_ms=3,
        record=b"\x00state",
        effects=("a", "b"),
    )


def tool_intended(execution: str, epoch: int, tenant: str = TENANT) -> e.ToolCallIntended:
    """A tool is about to be called."""
    return e.ToolCallIntended(
        event_id=event_id(tenant, execution, "s0", 0, "tool", "intended"),
        tenant=tenant,
        execution_id=execution,
        epoch=epoch,
        at_ms=AT_MS + 4,
        call_id=f"tool-{execution}",
        step="s0",
        step_key="s0#0",
        agent="clerk",
        tool="lookup",
        policy="idempotent",
        request_hash="h",
        ordinal=0,
        arguments_json='{"q": 1}',
        incarnation=0,
    )


def tool_completed(execution: str, epoch: int, tenant: str = TENANT) -> e.ToolCallCompleted:
    """The tool has answered."""
    return e.ToolCallCompleted(
        event_id=event_id(tenant, execution, "s0", 0, "tool", "completed"),
        tenant=tenant,
        execution_id=execution,
        epoch=epoch,
        at_ms=AT_MS + 5,
        call_id=f"tool-{execution}",
        step="s0",
        tool="lookup",
        result_type="json",
        result=b"42",
        result_json="42",
        resolution="returned",
        duration_ms=2,
    )


def completed(execution: str, epoch: int, tenant: str = TENANT) -> e.ExecutionCompleted:
    """The terminal event."""
    return e.ExecutionCompleted(
        event_id=event_id(tenant, execution, "", 0, "finished", 0),
        tenant=tenant,
        execution_id=execution,
        epoch=epoch,
        at_ms=AT_MS + 100,
        output_json='"done"',
    )


def requested(execution: str, ordinal: int, tenant: str = TENANT) -> l.LlmCallRequested:
    """A client asks for an answer."""
    key = f"{execution}/{ordinal}"
    return l.LlmCallRequested(
        event_id=event_id(tenant, execution, "", 0, "requested", ordinal),
        tenant=tenant,
        execution_id=execution,
        at_ms=AT_MS + 2,
        call_id=call_id(tenant, key),
        idempotency_key=key,
        step="s0",
        agent="clerk",
        api="chat_completions",
        model="gpt-oss-20b",
        is_stream=False,
        request=b'{"messages": []}',
    )


def answered(
    execution: str, ordinal: int, epoch: int, tenant: str = TENANT, cost_microusd: int = COST
) -> l.LlmCallCompleted:
    """A settled call."""
    return l.LlmCallCompleted(
        event_id=event_id(tenant, execution, "", 0, "answered", ordinal),
        tenant=tenant,
        execution_id=execution,
        epoch=epoch,
        at_ms=AT_MS + 3,
        call_id=call_id(tenant, f"{execution}/{ordinal}"),
        step="s0",
        agent="clerk",
        route="local",
        provider="triton",
        model="SmolLM2",
        is_stream=False,
        response=b"{}",
        input_tokens=11,
        cached_tokens=1,
        output_tokens=5,
        reasoning_tokens=0,
        usage_source="provider",
        cost_microusd=cost_microusd,
        price_book="2026-11",
        status="settled",
        first_token_ms=4,
        latency_ms=9,
        try_number=1,
    )


def story(execution: str, epoch: int, steps: int = 3) -> list[e.ExecutionEvent]:
    """An execution from its first to its last event."""
    return [
        queued(execution, epoch),
        started(execution, epoch),
        tool_intended(execution, epoch),
        tool_completed(execution, epoch),
        *(step(execution, ordinal, epoch) for ordinal in range(steps)),
        completed(execution, epoch),
    ]


@dataclass(slots=True)
class FakeLog:
    """Partitions in memory whose values are the messages themselves: `decode` looks them up."""

    records: list[LogRecord] = field(default_factory=list)
    _messages: dict[bytes, Message] = field(default_factory=dict)
    _ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def append(self, topic: str, *messages: Message | bytes, partition: int = 0) -> list[LogRecord]:
        """The messages as the partition's next records; bytes are taken as they are."""
        return [self._append(topic, partition, message) for message in messages]

    def _append(self, topic: str, partition: int, message: Message | bytes) -> LogRecord:
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 1
        value = message if isinstance(message, bytes) else f"{topic}/{partition}/{offset}".encode()
        if isinstance(message, Message):
            self._messages[value] = message
        record = LogRecord(topic, partition, offset, b"key", value)
        self.records.append(record)
        return record

    def decode(self, value: bytes | None) -> Message:
        """The message of a value that `append` made."""
        found = self._messages.get(value or b"")
        if found is None:
            raise ValueError("nobody wrote this")
        return found


@dataclass(frozen=True, slots=True)
class KafkaLog:
    """Three topics of one test's own on a real broker."""

    bootstrap: str
    executions: str
    requests: str
    responses: str

    @staticmethod
    def made(bootstrap: str, partitions: int = 2) -> KafkaLog:
        """Fresh topics."""
        run = uuid4().hex[:8]
        log = KafkaLog(
            bootstrap, *(f"t-{run}-{name}" for name in ("executions", "requests", "responses"))
        )
        admin = AdminClient({"bootstrap.servers": bootstrap})
        wanted = [
            NewTopic(name, num_partitions=partitions, replication_factor=1) for name in log.names
        ]
        for future in admin.create_topics(wanted, operation_timeout=30).values():
            future.result()
        return log

    @property
    def names(self) -> tuple[str, str, str]:
        return (self.executions, self.requests, self.responses)

    def keys(self, partitions: int = 2) -> dict[tuple[str, int], bool]:
        """What a sink is told to project."""
        return {(name, n): name != self.requests for name in self.names for n in range(partitions)}

    def catalogued(self, name: str) -> topics.Topic:
        """The topic of the catalogue that a test's topic plays."""
        return dict(
            zip(
                self.names,
                (topics.EXECUTIONS, topics.LLM_REQUESTS, topics.LLM_RESPONSES),
                strict=True,
            )
        )[name]


def append(
    log: KafkaLog, wire: Wire, records: Iterable[tuple[str, int, Message | bytes]]
) -> list[int]:
    """The offsets of the records, appended in order and acknowledged."""
    producer = Producer(
        {"bootstrap.servers": log.bootstrap, "acks": "all", "enable.idempotence": True}
    )
    acked: dict[int, int] = {}
    wanted = 0
    for number, (topic, partition, message) in enumerate(records):
        value = (
            message
            if isinstance(message, bytes)
            else _value(wire, log.catalogued(topic), message, partition)
        )
        producer.produce(
            topic,
            value=value,
            key=b"k",
            partition=partition,
            on_delivery=lambda _error, done, number=number: acked.update(
                {number: done.offset() or 0}
            ),
        )
        producer.poll(0)
        wanted += 1
    producer.flush(60)
    assert len(acked) == wanted
    return [acked[number] for number in range(wanted)]


def _value(wire: Wire, topic: topics.Topic, message: Message, partition: int) -> bytes:
    is_claim = isinstance(message, e.OwnerClaimed)
    return wire.encode(message, topic, partition if is_claim else None).value
