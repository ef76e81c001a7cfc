"""The execution's rules: what follows from a client's command, or from what its runner reports.

Pure and idempotent: a command that was handled before gives no events, so the log may deliver it
again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from streams.errors import Rejected
from streams.execution import commands as c
from streams.execution import events as e
from streams.execution.options import parse
from streams.execution.state import RESUME_SIGNAL, Approval, Execution, Status
from streams.messages import Event, event_id

BREAKPOINT = "breakpoint:"
"""How adapters name a question that only asks whether to go on."""
LOST_WITHOUT_PROGRESS_MAX = 5
"""Runners that may die in a row without one new fact on the log before the execution fails."""

Events = tuple[Event, ...]


def decide(
    command: c.ExecutionCommand, state: Execution | None, command_offset: int = -1
) -> Events:
    """The events that a client's command leads to."""
    if isinstance(command, c.StartExecution):
        return _start(command, command_offset) if state is None else ()
    if state is None or state.status.is_terminal:
        return ()
    identity = _id(state, "", "handled", command.event_id)
    if identity in state.handled:
        return ()
    match command:
        case c.CancelExecution():
            return (
                e.ExecutionCancelled(
                    event_id=_id(state, "", "end", 0), **of(state), reason=command.reason
                ),
            )
        case c.PauseExecution():
            # Recorded even when it changes nothing, as a resume is: delivered again, it must change
            # nothing then either.
            return (e.ExecutionPaused(event_id=identity, **of(state), reason=command.reason),)
        case c.ResumeExecution():
            resumed = e.SignalReceived(
                event_id=identity, **of(state), name=RESUME_SIGNAL, payload_json="null"
            )
            return (resumed,)
        case c.SignalExecution():
            return (
                e.SignalReceived(
                    event_id=identity,
                    **of(state),
                    name=command.name,
                    payload_json=command.payload_json,
                ),
            )
        case c.ResolveApproval():
            return _resolve(command, state, identity)
        case _:
            return ()


def _start(command: c.StartExecution, command_offset: int) -> Events:
    base: Of = {"tenant": command.tenant, "execution_id": command.execution_id}
    options_json, refusal = command.options_json, None
    try:
        parse(options_json)
    except Rejected as error:
        options_json, refusal = "{}", error
    queued = e.ExecutionQueued(
        event_id=event_id(command.tenant, command.execution_id, "", 0, "ExecutionQueued", 0),
        **base,
        workflow=command.workflow,
        workflow_version=command.workflow_version,
        framework=command.framework,
        entrypoint=command.entrypoint,
        input_json=command.input_json,
        options_json=options_json,
        labels_json=command.labels_json,
        deadline_at_ms=command.deadline_at_ms,
        command_offset=command_offset,
    )
    if refusal is None:
        return (queued,)
    failed = e.ExecutionFailed(
        event_id=event_id(command.tenant, command.execution_id, "", 0, "end", 0),
        **base,
        error_class="rejected",
        error_type=refusal.code,
        error_message=str(refusal),
        error_trace="",
        step="",
    )
    return (queued, failed)


def _resolve(command: c.ResolveApproval, state: Execution, identity: str) -> Events:
    asked = state.approvals.get(command.approval_id)
    if asked is None or asked.is_granted is not None:
        return ()
    if command.is_granted:
        return (
            e.ApprovalGranted(
                event_id=identity,
                **of(state),
                approval_id=command.approval_id,
                approved_by=command.resolved_by,
                reason=command.reason,
                value_json=command.value_json,
            ),
        )
    denied = e.ApprovalDenied(
        event_id=identity,
        **of(state),
        approval_id=command.approval_id,
        denied_by=command.resolved_by,
        reason=command.reason,
        value_json=command.value_json,
    )
    if not asked.call_id.startswith(BREAKPOINT):
        return (denied,)
    # A breakpoint asks nothing that a "no" could be handed to: going on would be the opposite of
    # it.
    end = e.ExecutionCancelled(
        event_id=_id(state, "", "end", 0), **of(state), reason=command.reason or "denied"
    )
    return (denied, end)


def begin(state: Execution, worker_id: str, reason: str) -> Events:
    """The next incarnation: started the first time, resumed ever after; nothing while it is held or
    over.
    """
    if state.status not in (Status.QUEUED, Status.RUNNING):
        return ()
    incarnation = state.incarnation + 1
    if incarnation == 0:
        return (
            e.ExecutionStarted(
                event_id=_id(state, "", "begin", 0),
                **of(state),
                worker_id=worker_id,
                incarnation=0,
            ),
        )
    return (
        e.ExecutionResumed(
            event_id=_id(state, "", "begin", incarnation),
            **of(state),
            worker_id=worker_id,
            incarnation=incarnation,
            reason=reason,
        ),
    )


def complete(state: Execution, output_json: str) -> Events:
    """The runner finished."""
    if state.status.is_terminal:
        return ()
    return (
        e.ExecutionCompleted(
            event_id=_id(state, "", "end", 0), **of(state), output_json=output_json
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an execution ends without a result."""

    error_class: str
    error_type: str
    error_message: str
    error_trace: str = ""
    step: str = ""


def fail(state: Execution, failure: Failure) -> Events:
    """The execution ends without a result."""
    if state.status.is_terminal:
        return ()
    return (
        e.ExecutionFailed(
            event_id=_id(state, "", "end", 0),
            **of(state),
            error_class=failure.error_class,
            error_type=failure.error_type,
            error_message=failure.error_message,
            error_trace=failure.error_trace,
            step=failure.step,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """A question that the workflow itself asked."""

    interrupt_id: str
    step: str
    payload_json: str


def interrupt(state: Execution, interrupts: Sequence[Interrupt]) -> Events:
    """The workflow waits for a person: one approval per question that has none yet."""
    asked_now: list[Event] = []
    for asked in interrupts:
        earlier = [a for a in state.approvals.values() if a.call_id == asked.interrupt_id]
        if any(a.is_granted is None for a in earlier):
            continue
        ordinal = f"{asked.interrupt_id}:{len(earlier)}"
        asked_now.append(
            e.ApprovalRequested(
                event_id=_id(state, "", "ApprovalRequested", ordinal),
                **of(state),
                approval_id=_id(state, "", "approval", ordinal),
                kind="interrupt",
                step=asked.step,
                tool="",
                call_id=asked.interrupt_id,
                payload_json=asked.payload_json,
            )
        )
    return tuple(asked_now)


def runner_lost(state: Execution, losses_without_progress: int, detail: str) -> Events:
    """Nothing, and the caller begins a new incarnation; or the end, when runners die without
    getting anywhere.
    """
    if losses_without_progress < LOST_WITHOUT_PROGRESS_MAX:
        return ()
    message = f"{losses_without_progress} runners in a row died without making progress: {detail}"
    return fail(
        state,
        Failure(error_class="runner_lost", error_type="RunnerLost", error_message=message),
    )


def resume_values(state: Execution) -> dict[str, str]:
    """Answers that this incarnation must hear, by the workflow's own interrupt id, as JSON.

    An answer is given again to the next incarnation only when nothing happened since: else it is in
    the framework's own state already. A plain yes or no answers `true` or `false`.
    """
    return {
        a.call_id: _answer(a)
        for a in state.approvals.values()
        if a.kind == "interrupt" and a.is_granted is not None and a.told_at == state.progress
    }


def _answer(approval: Approval) -> str:
    is_silent = approval.value_json in ("", "null")
    return json.dumps(approval.is_granted) if is_silent else approval.value_json


class Of(TypedDict):
    tenant: str
    execution_id: str


def of(state: Execution) -> Of:
    """The fields that every event of this execution shares."""
    return {"tenant": state.tenant, "execution_id": state.execution_id}


def _id(state: Execution, step_key: str, kind: str, ordinal: int | str) -> str:
    return event_id(state.tenant, state.execution_id, step_key, 0, kind, ordinal)
