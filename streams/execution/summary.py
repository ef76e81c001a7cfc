"""A pure fold from the standing events of an execution to what people see of it.

The fold is total: it takes events in log order per topic, the same event twice, an execution whose
first events it never saw, and an LLM answer before or after the intent it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from streams.execution.commands import StartExecution
from streams.execution.events import (
    ApprovalDenied,
    ApprovalGranted,
    ApprovalRequested,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionQueued,
    ExecutionResumed,
    ExecutionStarted,
    LlmCallIntended,
    SignalReceived,
    StepCompleted,
    StepFailed,
    StepStarted,
    ToolCallCompleted,
    ToolCallFailed,
    ToolCallIntended,
)
from streams.execution.state import RESUME_SIGNAL
from streams.execution.view import ApprovalView, CallView, ExecutionView, StepView
from streams.llm.events import LlmCallCompleted, LlmCallFailed
from streams.messages import Message, call_id


def empty(tenant: str, execution_id: str) -> ExecutionView:
    """The view before its first event."""
    return ExecutionView(tenant=tenant, execution_id=execution_id)


def accepted(command: StartExecution) -> ExecutionView:
    """The view of an execution whose command stands while its first event does not yet."""
    return replace(
        empty(command.tenant, command.execution_id),
        workflow=command.workflow,
        workflow_version=command.workflow_version,
        framework=command.framework,
        entrypoint=command.entrypoint,
        input_json=command.input_json,
        options_json=command.options_json,
        labels_json=command.labels_json,
        created_at_ms=command.at_ms,
    )


def summarize(tenant: str, execution_id: str, events: Iterable[Message]) -> ExecutionView:
    """The view after all of the events."""
    view = empty(tenant, execution_id)
    for event in events:
        view = evolve(view, event)
    return view


def evolve(view: ExecutionView, event: Message) -> ExecutionView:
    """The view after one more standing event; one that says nothing to people changes nothing."""
    match event:
        case StepStarted() | StepCompleted() | StepFailed():
            return replace(view, steps=_with_step(view.steps, event))
        case LlmCallIntended() | LlmCallCompleted() | LlmCallFailed():
            return replace(view, calls=_with_llm_call(view.calls, event))
        case ToolCallIntended() | ToolCallCompleted() | ToolCallFailed():
            return replace(view, calls=_with_tool_call(view.calls, event))
        case ApprovalRequested() | ApprovalGranted() | ApprovalDenied():
            return _with_approval(view, event)
        case SignalReceived():
            return _with_signal(view, event)
        case _:
            return view if view.is_terminal else _with_state(view, event)


def _with_state(view: ExecutionView, event: Message) -> ExecutionView:
    match event:
        case ExecutionQueued():
            return _queued(view, event)
        case ExecutionStarted() | ExecutionResumed() if event.incarnation < view.next_incarnation:
            return view
        case ExecutionStarted(incarnation=incarnation):
            return replace(
                view,
                status="running",
                incarnation=incarnation,
                started_at_ms=view.started_at_ms or event.at_ms,
            )
        case ExecutionResumed(incarnation=incarnation):
            return replace(
                view,
                status="running",
                reason="",
                incarnation=incarnation,
                started_at_ms=view.started_at_ms or event.at_ms,
            )
        case ExecutionPaused(reason=reason):
            return replace(view, status="paused", reason=reason)
        case ExecutionCompleted() | ExecutionFailed() | ExecutionCancelled():
            return _ended(view, event)
        case _:
            return view


def _queued(view: ExecutionView, event: ExecutionQueued) -> ExecutionView:
    return replace(
        view,
        workflow=event.workflow,
        workflow_version=event.workflow_version,
        framework=event.framework,
        entrypoint=event.entrypoint,
        input_json=event.input_json,
        options_json=event.options_json,
        labels_json=event.labels_json,
        # The moment the client was answered, when we saw it; else the moment the owner took it.
        created_at_ms=view.created_at_ms or event.at_ms,
    )


def _ended(
    view: ExecutionView, event: ExecutionCompleted | ExecutionFailed | ExecutionCancelled
) -> ExecutionView:
    ended = replace(view, ended_at_ms=event.at_ms)
    match event:
        case ExecutionCompleted(output_json=output_json):
            return replace(ended, status="completed", output_json=output_json)
        case ExecutionFailed():
            return replace(
                ended,
                status="failed",
                error_class=event.error_class,
                error_type=event.error_type,
                error_message=event.error_message,
                error_step=event.step,
            )
        case ExecutionCancelled(reason=reason):
            return replace(ended, status="cancelled", reason=reason)


def _with_step(
    steps: tuple[StepView, ...], event: StepStarted | StepCompleted | StepFailed
) -> tuple[StepView, ...]:
    index = _last(steps, lambda step: step.step_key == event.step_key)
    if index is None:
        return (*steps, _step_after(None, event))
    return (*steps[:index], _step_after(steps[index], event), *steps[index + 1 :])


def _step_after(old: StepView | None, event: StepStarted | StepCompleted | StepFailed) -> StepView:
    seen = old or StepView(
        step=event.step,
        step_key=event.step_key,
        agent=event.agent,
        status="running",
        attempts=1,
        last_attempt=event.attempt,
        ordinal=event.ordinal,
        incarnation=event.incarnation,
        started_at_ms=_start_of(event),
    )
    if event.attempt > seen.last_attempt:
        seen = replace(seen, attempts=seen.attempts + 1, last_attempt=event.attempt)
    seen = replace(seen, incarnation=max(seen.incarnation, event.incarnation))
    match event:
        case StepStarted():
            return replace(seen, status="running", ended_at_ms=None, duration_ms=None)
        case StepCompleted():
            return replace(
                seen,
                status="completed",
                ended_at_ms=event.at_ms,
                duration_ms=event.duration_ms,
                output_json=event.output_json,
                error_type="",
                error_message="",
            )
        case StepFailed():
            return replace(
                seen,
                status="failed",
                ended_at_ms=event.at_ms,
                duration_ms=event.duration_ms,
                error_type=event.error_type,
                error_message=event.error_message,
            )


def _start_of(event: StepStarted | StepCompleted | StepFailed) -> int:
    return event.at_ms if isinstance(event, StepStarted) else event.at_ms - event.duration_ms


def _with_llm_call(
    calls: tuple[CallView, ...], event: LlmCallIntended | LlmCallCompleted | LlmCallFailed
) -> tuple[CallView, ...]:
    if isinstance(event, LlmCallIntended):
        # The intent names the idempotency key; the LLM topics name the id made of it.
        identity = str(call_id(event.tenant, event.call_id))
    else:
        identity = event.call_id
    index, call = _call(calls, identity, "llm")
    match event:
        case LlmCallIntended():
            call = replace(
                call,
                name=call.name or event.model,
                step=event.step,
                step_key=event.step_key,
                agent=event.agent,
                started_at_ms=call.started_at_ms or event.at_ms,
            )
        # The first outcome counts, as it was heard.
        case LlmCallCompleted() if call.status != "completed":
            call = replace(
                call,
                name=event.model,
                step=call.step or event.step,
                agent=call.agent or event.agent,
                status="completed",
                started_at_ms=call.started_at_ms or event.at_ms - event.latency_ms,
                duration_ms=event.latency_ms,
                route=event.route,
                provider=event.provider,
                input_tokens=event.input_tokens,
                cached_tokens=event.cached_tokens,
                output_tokens=event.output_tokens,
                reasoning_tokens=event.reasoning_tokens,
                cost_microusd=event.cost_microusd,
                error_type="",
                error_message="",
            )
        case LlmCallFailed() if call.status != "completed":
            call = replace(
                call,
                name=call.name or event.model,
                step=call.step or event.step,
                agent=call.agent or event.agent,
                status="failed",
                route=event.route,
                provider=event.provider,
                error_type=event.error_class,
                error_message=event.error_message,
            )
        case _:
            return calls
    return _put(calls, index, call)


def _with_tool_call(
    calls: tuple[CallView, ...], event: ToolCallIntended | ToolCallCompleted | ToolCallFailed
) -> tuple[CallView, ...]:
    index, call = _call(calls, event.call_id, "tool")
    call = replace(call, name=event.tool, step=event.step)
    match event:
        case ToolCallIntended():
            call = replace(
                call,
                step_key=event.step_key,
                agent=event.agent,
                policy=event.policy,
                arguments_json=event.arguments_json,
                started_at_ms=call.started_at_ms or event.at_ms,
            )
        case ToolCallCompleted() if call.status == "running":
            call = replace(
                call,
                status="completed",
                duration_ms=event.duration_ms,
                result_json=event.result_json,
                resolution=event.resolution,
            )
        case ToolCallFailed() if call.status == "running":
            call = replace(
                call,
                status="failed",
                duration_ms=event.duration_ms,
                error_type=event.error_type,
                error_message=event.error_message,
            )
        case _:
            return calls
    return _put(calls, index, call)


def _with_approval(
    view: ExecutionView, event: ApprovalRequested | ApprovalGranted | ApprovalDenied
) -> ExecutionView:
    index = _last(view.approvals, lambda approval: approval.approval_id == event.approval_id)
    match event:
        case ApprovalRequested():
            if index is not None:
                return view
            asked = ApprovalView(
                approval_id=event.approval_id,
                kind=event.kind,
                step=event.step,
                tool=event.tool,
                call_id=event.call_id,
                payload_json=event.payload_json,
                requested_at_ms=event.at_ms,
            )
            # A pause ends by its own command only, and an end is an end.
            stays = view.is_terminal or view.status == "paused"
            status = view.status if stays else "waiting_approval"
            return replace(view, status=status, approvals=(*view.approvals, asked))
        case ApprovalGranted(approved_by=by):
            return _answered(view, index, "granted", by, event)
        case ApprovalDenied(denied_by=by):
            return _answered(view, index, "denied", by, event)


def _with_signal(view: ExecutionView, event: SignalReceived) -> ExecutionView:
    """A signal answers the interrupt of its name, or the only one that waits."""
    if event.name == RESUME_SIGNAL:
        status = "waiting_approval" if view.pending_approvals() else "queued"
        return replace(view, status=status, reason="") if view.status == "paused" else view
    waiting = [a.approval_id for a in view.pending_approvals() if a.kind == "interrupt"]
    if event.name not in waiting and len(waiting) != 1:
        return view
    chosen = event.name if event.name in waiting else waiting[0]
    index = _last(view.approvals, lambda approval: approval.approval_id == chosen)
    return _answered(view, index, "granted", "signal", event)


def _answered(
    view: ExecutionView,
    index: int | None,
    status: str,
    by: str,
    event: ApprovalGranted | ApprovalDenied | SignalReceived,
) -> ExecutionView:
    if index is None or view.approvals[index].status != "pending":
        return view
    reason = "" if isinstance(event, SignalReceived) else event.reason
    answered = replace(
        view.approvals[index],
        status=status,
        resolved_at_ms=event.at_ms,
        resolved_by=by,
        reason=reason,
    )
    after = replace(
        view, approvals=(*view.approvals[:index], answered, *view.approvals[index + 1 :])
    )
    is_ready = after.status == "waiting_approval" and not after.pending_approvals()
    return replace(after, status="queued") if is_ready else after


def _call(calls: tuple[CallView, ...], identity: str, kind: str) -> tuple[int | None, CallView]:
    index = _last(calls, lambda call: call.call_id == identity and call.kind == kind)
    return index, calls[index] if index is not None else CallView(
        call_id=identity, kind=kind, name=""
    )


def _put(calls: tuple[CallView, ...], index: int | None, call: CallView) -> tuple[CallView, ...]:
    return (*calls, call) if index is None else (*calls[:index], call, *calls[index + 1 :])


Item = TypeVar("Item")


def _last(items: tuple[Item, ...], matches: Callable[[Item], bool]) -> int | None:
    """The index of the last match: what an event is about is nearly always near the end."""
    for index in range(len(items) - 1, -1, -1):
        if matches(items[index]):
            return index
    return None
