"""What can happen to an execution. JSON travels as text, framework state as opaque bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streams.messages import Event


class ExecutionEvent(Event):
    __slots__ = ()
    namespace: ClassVar[str] = "omium.execution"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerClaimed(Event):
    """A worker takes a partition; the record's own offset becomes its epoch."""

    namespace: ClassVar[str] = "omium.ownership"
    worker_id: str
    generation: int
    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionQueued(ExecutionEvent):
    workflow: str
    workflow_version: str
    framework: str
    entrypoint: str
    input_json: str
    options_json: str
    """The request's constraints, tools, steps, recovery and budget, as ARCHITECTURE 4.8 writes
    them.
    """
    labels_json: str
    deadline_at_ms: int | None
    command_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted(ExecutionEvent):
    worker_id: str
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResumed(ExecutionEvent):
    """A later incarnation runs: after a crash, an approval, a signal or a pause."""

    worker_id: str
    incarnation: int
    reason: str
    """`runner_lost`, `owner_changed`, `approval`, `signal` or `user`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(ExecutionEvent):
    step: str
    """Name as the user wrote it: graph node, task, agent, function."""
    step_key: str
    """Name and place in this run, the same after a resume: `node#3`, `outer/inner#1`."""
    agent: str
    attempt: int
    ordinal: int
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompleted(ExecutionEvent):
    """One record: the result, the framework state that follows from it and the effects it used (law
    4).
    """

    step: str
    step_key: str
    agent: str
    attempt: int
    ordinal: int
    incarnation: int
    output_json: str
    """The step's output for people, cut at 16 KiB."""
    duration_ms: int
    record: bytes
    """The framework's own state after this step, opaque to everyone but its adapter."""
    effects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed(ExecutionEvent):
    step: str
    step_key: str
    agent: str
    attempt: int
    ordinal: int
    incarnation: int
    error_type: str
    error_message: str
    error_trace: str
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(ExecutionEvent):
    """Framework state that belongs to no single step (input checkpoint, joined super-step, user
    update).
    """

    step_key: str
    checkpoint_id: str
    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallIntended(ExecutionEvent):
    call_id: str
    step: str
    step_key: str
    agent: str
    tool: str
    policy: str
    request_hash: str
    ordinal: int
    """Which repetition of this very request within the step."""
    arguments_json: str
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallCompleted(ExecutionEvent):
    call_id: str
    step: str
    tool: str
    result_type: str
    result: bytes
    result_json: str
    """The result for people, cut at 16 KiB."""
    resolution: str
    """`returned`, or `reconciled` when a later incarnation learned it from the tool."""
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallFailed(ExecutionEvent):
    call_id: str
    step: str
    tool: str
    error_type: str
    error_message: str
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCallIntended(ExecutionEvent):
    call_id: str
    """The idempotency key that the call carries to the gateway and on to the provider."""
    step: str
    step_key: str
    agent: str
    model: str
    request_hash: str
    ordinal: int
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayDiverged(ExecutionEvent):
    """A resumed run asked a question that its journal does not hold (law 7)."""

    step: str
    step_key: str
    kind: str
    """`tool` or `llm`."""
    expected_json: str
    actual_json: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequested(ExecutionEvent):
    namespace: ClassVar[str] = "omium.incident"
    approval_id: str
    kind: str
    """`tool_in_doubt`, `tool_gate`, `step_gate`, `interrupt` or `divergence`."""
    step: str
    tool: str
    call_id: str
    payload_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGranted(ExecutionEvent):
    namespace: ClassVar[str] = "omium.incident"
    approval_id: str
    approved_by: str
    reason: str
    value_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalDenied(ExecutionEvent):
    namespace: ClassVar[str] = "omium.incident"
    approval_id: str
    denied_by: str
    reason: str
    value_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReceived(ExecutionEvent):
    name: str
    payload_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPaused(ExecutionEvent):
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCompleted(ExecutionEvent):
    output_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFailed(ExecutionEvent):
    error_class: str
    """`exception`, `timeout`, `runner_lost`, `bad_workflow`, `bad_input`, `rejected` or `diverged`.
    """
    error_type: str
    error_message: str
    error_trace: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCancelled(ExecutionEvent):
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionMarked(Event):
    """Where a rebuild of a partition may start; compacted, one per topic and partition (snapshots
    topic).
    """

    namespace: ClassVar[str] = "omium.ownership"
    topic: str
    partition: int
    position: int
    """First offset a rebuild must read: no later than the first event of any open execution."""
    highest_claim: int
    """Highest claim below `position`, -1 if none."""
    command_offset: int
    """Highest command offset handled by events below `position`, -1 if none."""
