"""What an event changes beside its own row: one rule per event type, closed by a test.

A rule names the columns it knows; every other column gets the neutral element of its fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from projections.tables import (
    EXECUTION_CHANGES,
    LLM_CALL_CHANGES,
    PLACE,
    TOOL_CALL_CHANGES,
    USAGE,
    Place,
    Value,
)
from streams.execution import events as execution
from streams.llm import events as llm
from streams.messages import Event, Message

TEXT_CHARS_MAX: Final = 64 * 1024
"""Longest JSON text in a column of its own (input, output, arguments, result)."""
TIME_MS_MIN: Final = 1_577_836_800_000
TIME_MS_MAX: Final = 4_102_444_800_000
"""2020 to 2100: a writer with a broken clock must not scatter rows over partitions of years nobody
looks at."""
FIRST_TERMINAL: Final = 1 << 63
"""States are compared by offset; a terminal one outranks all, and the first terminal one the later
ones."""
TRY_STRIDE: Final = 4
"""An LLM call's state ranks by try, then requested 0, routed 1, failed 2, completed 3."""

Fields = dict[str, Value]
Change = tuple[str, Fields]
Rule = Callable[[Any, Place], tuple[Change, ...]]
"""What an event changes beside its own row in `events`. `Any`: each rule takes the one type it is
filed under."""


def time_ms(event: Message) -> int:
    """When the event was made, within bounds."""
    return min(max(event.at_ms, TIME_MS_MIN), TIME_MS_MAX)


def _short(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else text[:TEXT_CHARS_MAX]


def _state(place: Place, status: str) -> tuple[int, str]:
    return (place.offset, status)


def _terminal(place: Place, status: str) -> tuple[int, str]:
    return (FIRST_TERMINAL - place.offset, status)


def _nothing(_event: Event, _place: Place) -> tuple[Change, ...]:
    return ()


def _queued(event: execution.ExecutionQueued, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "state": _state(place, "queued"),
        "workflow": event.workflow,
        "workflow_version": event.workflow_version,
        "framework": event.framework,
        "labels_json": _short(event.labels_json),
        "input_json": _short(event.input_json),
        "queued_at_ms": time_ms(event),
        "deadline_at_ms": event.deadline_at_ms or 0,
    }
    return ((EXECUTION_CHANGES, values),)


def _started(event: execution.ExecutionStarted, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "state": _state(place, "running"),
        "started_at_ms": time_ms(event),
        "incarnation": event.incarnation,
    }
    return ((EXECUTION_CHANGES, values),)


def _resumed(event: execution.ExecutionResumed, place: Place) -> tuple[Change, ...]:
    values: Fields = {"state": _state(place, "running"), "incarnation": event.incarnation}
    return ((EXECUTION_CHANGES, values),)


def _step_started(event: execution.StepStarted, place: Place) -> tuple[Change, ...]:
    return ((EXECUTION_CHANGES, {"last_step": (place.offset, event.step)}),)


def _step_completed(event: execution.StepCompleted, place: Place) -> tuple[Change, ...]:
    return ((EXECUTION_CHANGES, {"last_step": (place.offset, event.step), "steps": 1}),)


def _step_failed(event: execution.StepFailed, place: Place) -> tuple[Change, ...]:
    return ((EXECUTION_CHANGES, {"last_step": (place.offset, event.step), "steps_failed": 1}),)


def _tool_intended(event: execution.ToolCallIntended, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "call_id": event.call_id,
        "state": _state(place, "intended"),
        "step": event.step,
        "step_key": event.step_key,
        "agent": event.agent,
        "tool": event.tool,
        "policy": event.policy,
        "arguments_json": _short(event.arguments_json),
        "intended_at_ms": time_ms(event),
        "intents": 1,
    }
    return ((TOOL_CALL_CHANGES, values),)


def _tool_completed(event: execution.ToolCallCompleted, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "call_id": event.call_id,
        "state": _state(place, "completed"),
        "step": event.step,
        "tool": event.tool,
        "result_json": _short(event.result_json),
        "resolution": event.resolution,
        "finished_at_ms": time_ms(event),
        "duration_ms": event.duration_ms,
    }
    return ((TOOL_CALL_CHANGES, values), (EXECUTION_CHANGES, {"tool_calls": 1}))


def _tool_failed(event: execution.ToolCallFailed, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "call_id": event.call_id,
        "state": _state(place, "failed"),
        "step": event.step,
        "tool": event.tool,
        "error_type": event.error_type,
        "error_message": _short(event.error_message),
        "finished_at_ms": time_ms(event),
        "duration_ms": event.duration_ms,
    }
    return ((TOOL_CALL_CHANGES, values), (EXECUTION_CHANGES, {"tool_calls": 1}))


def _approval_requested(event: execution.ApprovalRequested, place: Place) -> tuple[Change, ...]:
    # An answer changes no status here: with several questions open only the fold of the execution
    # knows when it goes on, and then `ExecutionResumed` says so.
    return ((EXECUTION_CHANGES, {"state": _state(place, "waiting_approval"), "approvals": 1}),)


def _paused(_event: execution.ExecutionPaused, place: Place) -> tuple[Change, ...]:
    return ((EXECUTION_CHANGES, {"state": _state(place, "paused")}),)


def _completed(event: execution.ExecutionCompleted, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "state": _terminal(place, "completed"),
        "output_json": _short(event.output_json),
        "finished_at_ms": time_ms(event),
    }
    return ((EXECUTION_CHANGES, values),)


def _failed(event: execution.ExecutionFailed, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "state": _terminal(place, "failed"),
        "finished_at_ms": time_ms(event),
        "error_class": event.error_class,
        "error_type": event.error_type,
        "error_message": _short(event.error_message),
        "error_step": event.step,
    }
    return ((EXECUTION_CHANGES, values),)


def _cancelled(event: execution.ExecutionCancelled, place: Place) -> tuple[Change, ...]:
    values: Fields = {"state": _terminal(place, "cancelled"), "finished_at_ms": time_ms(event)}
    return ((EXECUTION_CHANGES, values),)


def _llm_requested(event: llm.LlmCallRequested, _place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "call_id": event.call_id,
        "state": (0, "requested"),
        "step": event.step,
        "agent": event.agent,
        "api": event.api,
        "model_requested": event.model,
        "is_stream": int(event.is_stream),
        "requested_at_ms": time_ms(event),
    }
    return ((LLM_CALL_CHANGES, values),)


def _llm_routed(event: llm.LlmCallRouted, _place: Place) -> tuple[Change, ...]:
    return ((LLM_CALL_CHANGES, _tried(event, 1, "routed")),)


def _llm_failed(event: llm.LlmCallFailed, _place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "step": event.step,
        "agent": event.agent,
        "finished_at_ms": time_ms(event),
        "error_class": event.error_class,
        "error_message": _short(event.error_message),
        "http_status": event.http_status,
    }
    return ((LLM_CALL_CHANGES, _tried(event, 2, "failed") | values),)


def _llm_completed(event: llm.LlmCallCompleted, _place: Place) -> tuple[Change, ...]:
    tokens: Fields = {
        "input_tokens": event.input_tokens,
        "cached_tokens": event.cached_tokens,
        "output_tokens": event.output_tokens,
        "reasoning_tokens": event.reasoning_tokens,
        "cost_microusd": event.cost_microusd,
    }
    call: Fields = {
        "step": event.step,
        "agent": event.agent,
        "is_stream": int(event.is_stream),
        "finished_at_ms": time_ms(event),
        "usage_status": event.status,
        "first_token_ms": event.first_token_ms,
        "latency_ms": event.latency_ms,
    }
    changes = [(LLM_CALL_CHANGES, _tried(event, 3, "completed") | call | tokens)]
    if event.execution_id:
        # The place of an execution is that of its own events: offsets of two topics do not compare.
        own_place: Fields = dict(zip(PLACE, ("", 0, 0), strict=True))
        changes.append((EXECUTION_CHANGES, {"llm_calls": 1} | tokens | own_place))
    usage: Fields = {
        "step": event.step,
        "agent": event.agent,
        "call_id": event.call_id,
        "provider": event.provider,
        "model": event.model,
        "price_book": event.price_book,
        "status": event.status,
        "route": event.route,
        "event_id": event.event_id,
    }
    return (*changes, (USAGE, usage | tokens))


def _tried(
    event: llm.LlmCallRouted | llm.LlmCallFailed | llm.LlmCallCompleted, phase: int, status: str
) -> Fields:
    """What every event of one try says; a later try, and a later phase of it, wins."""
    rank = max(event.try_number, 0) * TRY_STRIDE + phase
    return {
        "call_id": event.call_id,
        "state": (rank, status),
        "route": (rank, event.route),
        "provider": (rank, event.provider),
        "model": (rank, event.model),
        "tries": event.try_number,
    }


RULES: Final[Mapping[type[Message], Rule]] = {
    execution.OwnerClaimed: _nothing,
    execution.ExecutionQueued: _queued,
    execution.ExecutionStarted: _started,
    execution.ExecutionResumed: _resumed,
    execution.StepStarted: _step_started,
    execution.StepCompleted: _step_completed,
    execution.StepFailed: _step_failed,
    execution.CheckpointSaved: _nothing,
    execution.ToolCallIntended: _tool_intended,
    execution.ToolCallCompleted: _tool_completed,
    execution.ToolCallFailed: _tool_failed,
    execution.LlmCallIntended: _nothing,
    execution.ReplayDiverged: _nothing,
    execution.ApprovalRequested: _approval_requested,
    execution.ApprovalGranted: _nothing,
    execution.ApprovalDenied: _nothing,
    execution.SignalReceived: _nothing,
    execution.ExecutionPaused: _paused,
    execution.ExecutionCompleted: _completed,
    execution.ExecutionFailed: _failed,
    execution.ExecutionCancelled: _cancelled,
    llm.LlmCallRequested: _llm_requested,
    llm.LlmCallRouted: _llm_routed,
    llm.LlmCallFailed: _llm_failed,
    llm.LlmCallCompleted: _llm_completed,
}
"""Every event type that stands on a projected topic."""
