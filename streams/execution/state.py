"""What an execution is: the fold of its events (law 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from streams.errors import Rejected
from streams.execution import events as e
from streams.execution.options import Options, parse
from streams.messages import Message

RESUME_SIGNAL = "omium.resume"
"""The signal that ends a pause."""
HANDLED_MAX = 64
"""Client commands remembered per execution: a redelivered one changes nothing."""


class Status(StrEnum):
    """The states a client can see."""

    QUEUED = "queued"
    RUNNING = "running"
    RECOVERING = "recovering"
    WAITING_APPROVAL = "waiting_approval"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A question to a person, and the answer once there is one."""

    approval_id: str
    kind: str
    call_id: str
    is_granted: bool | None = None
    value_json: str = "null"
    reason: str = ""
    told_at: int | None = None
    """The execution's progress when its answer was first given to a runner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One run of one workflow."""

    execution_id: str
    tenant: str
    workflow: str
    workflow_version: str
    framework: str
    entrypoint: str
    input_json: str
    options_json: str
    options: Options
    deadline_at_ms: int | None
    status: Status = Status.QUEUED
    incarnation: int = -1
    """Which runner is or was the last one; -1 before the first."""
    worker_id: str = ""
    approvals: Mapping[str, Approval] = field(default_factory=dict[str, Approval])
    handled: tuple[str, ...] = ()
    progress: int = 0
    """Standing facts about the work itself: a runner that dies again without raising it makes no
    progress.
    """

    @property
    def pending(self) -> tuple[Approval, ...]:
        """Questions without an answer."""
        return tuple(a for a in self.approvals.values() if a.is_granted is None)

    def approval_of(self, call_id: str) -> Approval | None:
        """The question that was asked about this call, if any."""
        found = [a for a in self.approvals.values() if a.call_id == call_id]
        return found[-1] if found else None


def queued(event: e.ExecutionQueued) -> Execution:
    """The execution at its first event."""
    return Execution(
        execution_id=event.execution_id,
        tenant=event.tenant,
        workflow=event.workflow,
        workflow_version=event.workflow_version,
        framework=event.framework,
        entrypoint=event.entrypoint,
        input_json=event.input_json,
        options_json=event.options_json,
        options=_options(event.options_json),
        deadline_at_ms=event.deadline_at_ms,
    )


def _options(text: str) -> Options:
    """What stands on the log must fold for ever; options that we no longer read mean the safe
    defaults.
    """
    try:
        return parse(text)
    except Rejected:
        return Options()


def evolve(state: Execution | None, event: Message) -> Execution | None:
    """The execution after the event. Total: an event that cannot follow changes nothing."""
    if state is None:
        return queued(event) if isinstance(event, e.ExecutionQueued) else None
    if state.status.is_terminal or event.event_id in state.handled:
        return state
    match event:
        case e.ExecutionStarted() | e.ExecutionResumed():
            if event.incarnation <= state.incarnation:
                return state
            return replace(
                state,
                status=Status.RUNNING,
                incarnation=event.incarnation,
                worker_id=event.worker_id,
                approvals={key: _told(a, state.progress) for key, a in state.approvals.items()},
            )
        case e.ExecutionPaused():
            return _handled(replace(state, status=Status.PAUSED), event)
        case e.SignalReceived():
            return _handled(_signalled(state, event), event)
        case e.ApprovalRequested():
            if event.approval_id in state.approvals:
                return state
            asked = Approval(approval_id=event.approval_id, kind=event.kind, call_id=event.call_id)
            approvals = {**state.approvals, event.approval_id: asked}
            is_paused = state.status is Status.PAUSED
            status = Status.PAUSED if is_paused else Status.WAITING_APPROVAL
            return replace(state, approvals=approvals, status=status)
        case e.ApprovalGranted():
            return _handled(_answered(state, event.approval_id, True, event), event)
        case e.ApprovalDenied():
            return _handled(_answered(state, event.approval_id, False, event), event)
        case e.ExecutionCompleted():
            return replace(state, status=Status.COMPLETED)
        case e.ExecutionFailed():
            return replace(state, status=Status.FAILED)
        case e.ExecutionCancelled():
            return replace(state, status=Status.CANCELLED)
        case (
            e.StepCompleted() | e.CheckpointSaved() | e.ToolCallIntended() | e.LlmCallIntended()
            | e.ToolCallCompleted() | e.ToolCallFailed()
        ):  # fmt: skip
            return replace(state, progress=state.progress + 1)
        case _:
            return state


def _handled(state: Execution, event: Message) -> Execution:
    return replace(state, handled=(*state.handled[-HANDLED_MAX + 1 :], event.event_id))


def _told(approval: Approval, progress: int) -> Approval:
    is_news = approval.is_granted is not None and approval.told_at is None
    return replace(approval, told_at=progress) if is_news else approval


def _answered(
    state: Execution,
    approval_id: str,
    is_granted: bool,
    event: e.ApprovalGranted | e.ApprovalDenied,
) -> Execution:
    asked = state.approvals.get(approval_id)
    if asked is None or asked.is_granted is not None:
        return state
    return _with_answer(
        state,
        replace(asked, is_granted=is_granted, value_json=event.value_json, reason=event.reason),
    )


def _with_answer(state: Execution, answered: Approval) -> Execution:
    """The last answer queues what waited for it; a pause ends by its own command only."""
    state = replace(state, approvals={**state.approvals, answered.approval_id: answered})
    is_ready = state.status is Status.WAITING_APPROVAL and not state.pending
    return replace(state, status=Status.QUEUED) if is_ready else state


def _signalled(state: Execution, event: e.SignalReceived) -> Execution:
    """A signal answers the interrupt of its name, or the only one that waits; `RESUME_SIGNAL` ends
    a pause.
    """
    if event.name == RESUME_SIGNAL:
        if state.status is not Status.PAUSED:
            return state
        return replace(state, status=Status.WAITING_APPROVAL if state.pending else Status.QUEUED)
    waiting = [a for a in state.pending if a.kind == "interrupt"]
    named = [a for a in waiting if a.approval_id == event.name]
    chosen = named or (waiting if len(waiting) == 1 else [])
    if not chosen:
        return state
    return _with_answer(state, replace(chosen[0], is_granted=True, value_json=event.payload_json))
