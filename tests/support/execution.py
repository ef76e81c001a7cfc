"""Builders of commands and events with sensible fields, and a story that folds them."""

from __future__ import annotations

import json
from typing import TypedDict, Unpack

from streams.execution import commands as c
from streams.execution import events as e
from streams.execution.effects import Question, Surroundings
from streams.execution.journal import Journal
from streams.execution.state import Execution, evolve
from streams.messages import Message, event_id

TENANT = "acme"
EXECUTION = "x-1"
LEASE_MS = 1_000
WINDOW_MS = 2_000


class Of(TypedDict):
    """The fields that every record of one execution shares."""

    event_id: str
    tenant: str
    execution_id: str


def of(name: str, execution_id: str = EXECUTION) -> Of:
    """Identity of one record of the execution; equal names are one fact."""
    identity = event_id(TENANT, execution_id, "", 0, "test", name)
    return {"event_id": identity, "tenant": TENANT, "execution_id": execution_id}


def options_json(**options: object) -> str:
    """Options as a request writes them."""
    return json.dumps(options)


def start(
    name: str = "start", *, execution_id: str = EXECUTION, options: str = "{}"
) -> c.StartExecution:
    """A client's request to run a workflow."""
    return c.StartExecution(
        **of(name, execution_id),
        workflow="loan",
        workflow_version="v1",
        framework="python",
        entrypoint="loan:run",
        input_json="{}",
        options_json=options,
        labels_json="{}",
        deadline_at_ms=None,
    )


def queued(*, options: str = "{}", execution_id: str = EXECUTION) -> e.ExecutionQueued:
    """The first event of an execution."""
    return e.ExecutionQueued(
        **of("queued", execution_id),
        workflow="loan",
        workflow_version="v1",
        framework="python",
        entrypoint="loan:run",
        input_json="{}",
        options_json=options,
        labels_json="{}",
        deadline_at_ms=None,
        command_offset=7,
    )


def started() -> e.ExecutionStarted:
    """Its first runner."""
    return e.ExecutionStarted(**of("begin 0"), worker_id="w1", incarnation=0)


def resumed(incarnation: int = 1) -> e.ExecutionResumed:
    """A later runner."""
    return e.ExecutionResumed(
        **of(f"begin {incarnation}"), worker_id="w2", incarnation=incarnation, reason="runner_lost"
    )


def paused(name: str = "pause") -> e.ExecutionPaused:
    """A pause by a user."""
    return e.ExecutionPaused(**of(name), reason="lunch")


def signalled(name: str, payload_json: str = "null", *, as_: str = "signal") -> e.SignalReceived:
    """A signal; `omium.resume` ends a pause."""
    return e.SignalReceived(**of(as_), name=name, payload_json=payload_json)


def tool_intended(
    call_id: str = "t1", *, tool: str = "pay", incarnation: int = 0, step_key: str = "a#0"
) -> e.ToolCallIntended:
    """The intent of a tool call."""
    return e.ToolCallIntended(
        **of(f"intent {call_id}"),
        call_id=call_id,
        step="a",
        step_key=step_key,
        agent="a",
        tool=tool,
        policy="at_most_once",
        request_hash=f"hash of {call_id}",
        ordinal=0,
        arguments_json="{}",
        incarnation=incarnation,
    )


def tool_completed(call_id: str = "t1", result: bytes = b"42") -> e.ToolCallCompleted:
    """A tool's answer."""
    return e.ToolCallCompleted(
        **of(f"outcome {call_id}"),
        call_id=call_id,
        step="a",
        tool="pay",
        result_type="json",
        result=result,
        result_json=result.decode(),
        resolution="returned",
        duration_ms=3,
    )


def tool_failed(call_id: str = "t1", message: str = "no funds") -> e.ToolCallFailed:
    """A tool that raised."""
    return e.ToolCallFailed(
        **of(f"failure {call_id}"),
        call_id=call_id,
        step="a",
        tool="pay",
        error_type="ValueError",
        error_message=message,
        duration_ms=3,
    )


def llm_intended(call_id: str = "l1", *, incarnation: int = 0) -> e.LlmCallIntended:
    """The intent of an LLM call."""
    return e.LlmCallIntended(
        **of(f"intent {call_id}"),
        call_id=call_id,
        step="a",
        step_key="a#0",
        agent="a",
        model="gpt-oss-20b",
        request_hash=f"hash of {call_id}",
        ordinal=0,
        incarnation=incarnation,
    )


def step_completed(step_key: str = "a#0", record: bytes = b"state") -> e.StepCompleted:
    """A finished step with the framework's state."""
    return e.StepCompleted(
        **of(f"step {step_key}"),
        step="a",
        step_key=step_key,
        agent="a",
        attempt=0,
        ordinal=0,
        incarnation=0,
        output_json="{}",
        duration_ms=5,
        record=record,
        effects=("t1",),
    )


def checkpoint(name: str = "c1", record: bytes = b"input") -> e.CheckpointSaved:
    """Framework state that belongs to no step."""
    return e.CheckpointSaved(**of(name), step_key="", checkpoint_id=name, record=record)


def asked(
    approval_id: str = "p1", *, kind: str = "interrupt", call_id: str = "i1"
) -> e.ApprovalRequested:
    """A question to a person."""
    return e.ApprovalRequested(
        **of(f"ask {approval_id}"),
        approval_id=approval_id,
        kind=kind,
        step="a",
        tool="",
        call_id=call_id,
        payload_json="{}",
    )


def granted(approval_id: str = "p1", value_json: str = "null") -> e.ApprovalGranted:
    """A person's yes."""
    return e.ApprovalGranted(
        **of(f"answer {approval_id}"),
        approval_id=approval_id,
        approved_by="ann",
        reason="",
        value_json=value_json,
    )


def denied(approval_id: str = "p1", reason: str = "too risky") -> e.ApprovalDenied:
    """A person's no."""
    return e.ApprovalDenied(
        **of(f"answer {approval_id}"),
        approval_id=approval_id,
        denied_by="ann",
        reason=reason,
        value_json="null",
    )


def completed() -> e.ExecutionCompleted:
    """The end, with a result."""
    return e.ExecutionCompleted(**of("end"), output_json='"done"')


def failed() -> e.ExecutionFailed:
    """The end, without a result."""
    return e.ExecutionFailed(
        **of("end"),
        error_class="exception",
        error_type="ValueError",
        error_message="",
        error_trace="",
        step="",
    )


def cancelled() -> e.ExecutionCancelled:
    """The end, by a user."""
    return e.ExecutionCancelled(**of("end"), reason="user")


def cancel(name: str = "cancel") -> c.CancelExecution:
    """A user's request to end it."""
    return c.CancelExecution(**of(name), reason="user")


def pause(name: str = "pause") -> c.PauseExecution:
    """A user's request to hold it."""
    return c.PauseExecution(**of(name), reason="lunch")


def resume(name: str = "resume") -> c.ResumeExecution:
    """A user's request to go on."""
    return c.ResumeExecution(**of(name), reason="back")


def signal(
    name: str = "signal", *, to: str = "ready", payload_json: str = "1"
) -> c.SignalExecution:
    """A user's word to the workflow."""
    return c.SignalExecution(**of(name), name=to, payload_json=payload_json)


def resolve(
    approval_id: str, *, is_granted: bool = True, name: str = "resolve", value_json: str = "null"
) -> c.ResolveApproval:
    """A person's answer."""
    return c.ResolveApproval(
        **of(name),
        approval_id=approval_id,
        is_granted=is_granted,
        resolved_by="ann",
        reason="because",
        value_json=value_json,
    )


class _Asked(TypedDict, total=False):
    kind: str
    name: str
    step_key: str
    request_hash: str


def question(call_id: str = "t1", **other: Unpack[_Asked]) -> Question:
    """A call that a runner is about to make; a call of the tool `pay` unless told otherwise."""
    return Question(
        kind=other.get("kind", "tool"),
        name=other.get("name", "pay"),
        call_id=call_id,
        step="a",
        step_key=other.get("step_key", "a#0"),
        agent="a",
        request_hash=other.get("request_hash", f"hash of {call_id}"),
        ordinal=0,
        arguments_json='{"amount": 3}',
    )


def around(
    *, now_ms: int = 0, is_predecessor_dead: bool = True, is_replay_over: bool = True
) -> Surroundings:
    """What the owner knows; its claim was acknowledged at 0."""
    return Surroundings(
        now_ms=now_ms,
        claimed_at_ms=0,
        lease_ms=LEASE_MS,
        window_ms=WINDOW_MS,
        is_predecessor_dead=is_predecessor_dead,
        is_replay_over=is_replay_over,
    )


class Story:
    """An execution's state and journal after the events it was told."""

    def __init__(self, *events: Message) -> None:
        self._state: Execution | None = None
        self.journal = Journal()
        self.told: list[Message] = []
        self.then(*events)

    def then(self, *events: Message) -> Story:
        """The same story after more events."""
        for event in events:
            self._state = evolve(self._state, event)
            self.journal.apply(event)
            self.told.append(event)
        return self

    @property
    def state(self) -> Execution:
        """The execution; it must have begun."""
        assert self._state is not None, "the story has no ExecutionQueued"
        return self._state
