"""From a standing event to its rows: pure, one rule per event type, closed by a test over `streams`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from operator import attrgetter
from typing import Any, Final

import orjson

from projections.tables import (
    COLUMNS,
    EVENTS,
    EVENTS_VOID,
    EXECUTION_CHANGES,
    LLM_CALL_CHANGES,
    PLACE,
    TOOL_CALL_CHANGES,
    USAGE,
    Row,
    Value,
)
from streams.execution import events as execution
from streams.llm import events as llm
from streams.messages import Event, Message

PAYLOAD_BYTES_MAX: Final = 256 * 1024
TEXT_CHARS_MAX: Final = 64 * 1024
"""Longest JSON text in a column of its own (input, output, arguments, result)."""
TIME_MS_MIN: Final = 1_577_836_800_000
TIME_MS_MAX: Final = 4_102_444_800_000
"""2020 to 2100: a writer with a broken clock must not scatter rows over partitions of years nobody looks at."""
FIRST_TERMINAL: Final = 1 << 63
"""States are compared by offset; a terminal one outranks all, and the first terminal one the later ones."""
TRY_STRIDE: Final = 4
"""An LLM call's state ranks by try, then requested 0, routed 1, failed 2, completed 3."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands on the log."""

    topic: str
    partition: int
    offset: int

    def columns(self) -> Row:
        """The last three columns of every row."""
        return (self.topic, self.partition, self.offset)


Fields = dict[str, Value]
Change = tuple[str, Fields]
Rule = Callable[[Any, Place], tuple[Change, ...]]
"""What an event changes beside its own row in `events`. `Any`: each rule takes the one type it is filed under."""


def rows_of(event: Message, place: Place) -> list[tuple[str, Row]]:
    """The event's own row, then the rows of what it changes."""
    rule = RULES[type(event)]
    rows = [(EVENTS, _wide(event, place))]
    for table, values in rule(event, place):
        rows.append((table, _row(table, event, place, values)))
    return rows


def void_row(event: Message, highest_claim: int, place: Place) -> Row:
    """The row of an event that never counts: its owner had been deposed by the claim at `highest_claim`."""
    payload, is_cut = _payload(event)
    return (
        event.tenant, event.execution_id, event.event_id, type(event).__name__, _time_ms(event), event.epoch,
        highest_claim, payload, is_cut, *place.columns(),
    )  # fmt: skip


# The wide row: every column of `events` that the event has under the same or a known other name.
_COMMON: Final = frozenset(field.name for field in fields(Message))
_OTHER_NAMES: Final = {"duration_ms": "latency_ms"}
_EMPTY: Final[dict[str, Value]] = {
    column: "" for column in COLUMNS[EVENTS]
} | dict.fromkeys(
    (
        "attempt", "ordinal", "incarnation", "input_tokens", "cached_tokens", "output_tokens",
        "reasoning_tokens", "cost_microusd", "duration_ms",
    ),
    0,
)  # fmt: skip
_FACETS: Final = COLUMNS[EVENTS][6 : COLUMNS[EVENTS].index("payload")]


def _facets(kind: type[Message]) -> Callable[[Message], list[Value]]:
    """How to read the facet columns off events of this type, worked out once."""
    names = {field.name for field in fields(kind)}
    chosen = [
        column if column in names else _OTHER_NAMES.get(column, "") for column in _FACETS
    ]
    empty = [_EMPTY[column] for column in _FACETS]
    present = [index for index, name in enumerate(chosen) if name in names]

    def read(event: Message) -> list[Value]:
        values = list(empty)
        for index in present:
            values[index] = getattr(event, chosen[index])
        return values

    return read


def _wide(event: Message, place: Place) -> Row:
    kind = type(event)
    payload, is_cut = _payload(event)
    return (
        event.tenant, event.execution_id, event.event_id, kind.__name__, _time_ms(event), event.epoch,
        *_FACETS_OF[kind](event), payload, is_cut, *place.columns(),
    )  # fmt: skip


def _payload(event: Message) -> tuple[str, bool]:
    """The event's own fields as JSON, bounded. Bytes are told by length and digest: their content stays on the log."""
    names, values = _OWN_FIELDS[type(event)]
    document = dict(zip(names, values(event), strict=True))
    text = orjson.dumps(document, default=_digest)
    if len(text) <= PAYLOAD_BYTES_MAX:
        return text.decode(), False
    return _cut(document), True


def _cut(document: dict[str, object]) -> str:
    """The document as JSON with its long texts cut, ever shorter until it fits: bounded, and still JSON."""
    chars_max = PAYLOAD_BYTES_MAX // 4
    while True:
        short = {name: _shortened(value, chars_max) for name, value in document.items()}
        text = orjson.dumps(short, default=_digest)
        if len(text) <= PAYLOAD_BYTES_MAX or chars_max == 0:
            return text.decode()
        chars_max //= 2


def _shortened(value: object, chars_max: int) -> object:
    match value:
        case str():
            return value[:chars_max]
        case tuple():
            return value[: chars_max // 64]
        case _:
            return value


def _digest(value: object) -> dict[str, object]:
    if not isinstance(value, bytes):
        raise TypeError(f"no JSON for {type(value).__name__}")
    return {"bytes": len(value), "sha256": sha256(value).hexdigest()}


def _own_fields(kind: type[Message]) -> tuple[tuple[str, ...], Callable[[Message], tuple[object, ...]]]:
    names = tuple(field.name for field in fields(kind) if field.name not in _COMMON)
    if len(names) == 1:
        read_one = attrgetter(names[0])
        return names, lambda event: (read_one(event),)
    return names, attrgetter(*names)


def _time_ms(event: Message) -> int:
    return min(max(event.at_ms, TIME_MS_MIN), TIME_MS_MAX)


# The change rows: a rule names what it knows, everything else is the neutral element of the column's fold.
_NEUTRAL: Final[Mapping[str, Row]] = {
    EXECUTION_CHANGES: (
        "", "", 0, (0, ""), (0, ""), "", "", "", "", "", "", 0, None, 0, 0, 0, "", "", "", "",
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "", 0, 0,
    ),
    LLM_CALL_CHANGES: (
        "", "", "", 0, (0, ""), "", "", "", "", 0, 0, 0, (0, ""), (0, ""), (0, ""), 0,
        0, 0, 0, 0, 0, "", 0, 0, "", "", 0, "", 0, 0,
    ),
    TOOL_CALL_CHANGES: (
        "", "", "", 0, (0, ""), "", "", "", "", "", "", "", "", "", "", 0, 0, 0, 0, "", 0, 0,
    ),
    USAGE: ("", "", "", "", "", "", "", 0, 0, 0, 0, 0, "", "", "", "", 0, "", 0, 0),
}  # fmt: skip
_INDEX: Final = {
    table: {column: index for index, column in enumerate(columns)}
    for table, columns in COLUMNS.items()
}


def _row(table: str, event: Message, place: Place, values: Fields) -> Row:
    index = _INDEX[table]
    row = list(_NEUTRAL[table])
    row[0], row[1], row[index["at_ms"]] = event.tenant, event.execution_id, _time_ms(event)
    row[-len(PLACE) :] = place.columns()
    for column, value in values.items():
        row[index[column]] = value
    return tuple(row)


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
        "queued_at_ms": _time_ms(event),
        "deadline_at_ms": event.deadline_at_ms or 0,
    }
    return ((EXECUTION_CHANGES, values),)


def _started(event: execution.ExecutionStarted, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "state": _state(place, "running"),
        "started_at_ms": _time_ms(event),
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
        "intended_at_ms": _time_ms(event),
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
        "finished_at_ms": _time_ms(event),
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
        "finished_at_ms": _time_ms(event),
        "duration_ms": event.duration_ms,
    }
    return ((TOOL_CALL_CHANGES, values), (EXECUTION_CHANGES, {"tool_calls": 1}))


def _approval_requested(
    event: execution.ApprovalRequested, place: Place
) -> tuple[Change, ...]:
    # An answer changes no status here: with several questions open only the fold of the execution knows when
    # it goes on, and then `ExecutionResumed` says so.
    return ((EXECUTION_CHANGES, {"state": _state(place, "waiting_approval"), "approvals": 1}),)


def _paused(_event: execution.ExecutionPaused, place: Place) -> tuple[Change, ...]:
    return ((EXECUTION_CHANGES, {"state": _state(place, "paused")}),)


def _completed(event: execution.ExecutionCompleted, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "state": _terminal(place, "completed"),
        "output_json": _short(event.output_json),
        "finished_at_ms": _time_ms(event),
    }
    return ((EXECUTION_CHANGES, values),)


def _failed(event: execution.ExecutionFailed, place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "state": _terminal(place, "failed"),
        "finished_at_ms": _time_ms(event),
        "error_class": event.error_class,
        "error_type": event.error_type,
        "error_message": _short(event.error_message),
        "error_step": event.step,
    }
    return ((EXECUTION_CHANGES, values),)


def _cancelled(event: execution.ExecutionCancelled, place: Place) -> tuple[Change, ...]:
    values: Fields = {"state": _terminal(place, "cancelled"), "finished_at_ms": _time_ms(event)}
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
        "requested_at_ms": _time_ms(event),
    }
    return ((LLM_CALL_CHANGES, values),)


def _llm_routed(event: llm.LlmCallRouted, _place: Place) -> tuple[Change, ...]:
    return ((LLM_CALL_CHANGES, _tried(event, 1, "routed")),)


def _llm_failed(event: llm.LlmCallFailed, _place: Place) -> tuple[Change, ...]:
    values: Fields = {
        "step": event.step,
        "agent": event.agent,
        "finished_at_ms": _time_ms(event),
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
        "finished_at_ms": _time_ms(event),
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

_FACETS_OF: Final = {kind: _facets(kind) for kind in RULES}
_OWN_FIELDS: Final = {kind: _own_fields(kind) for kind in RULES}
