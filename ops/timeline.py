"""One readable line per event: what `omiumctl run` and `logs` print while an execution runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from ops.client import Frame, Json

MICROUSD: Final = 1_000_000
TEXT_CHARS_MAX: Final = 100
QUIET: Final = frozenset({"CheckpointSaved", "LlmCallIntended", "ToolCallIntended", "end"})
"""Told by what follows them."""


class Timeline:
    """Remembers when the execution began and what its LLM calls cost per step, to tell it beside
    the step.
    """

    def __init__(self) -> None:
        self._began_ms: int | None = None
        self._tokens: dict[str, int] = {}
        self._cost_microusd: dict[str, int] = {}

    def line(self, frame: Frame) -> str | None:
        """The event's line, without one for events that say nothing by themselves."""
        if frame.event in QUIET or "data" not in frame.data:
            return None
        data, time_ms = _mapping(frame.data["data"]), int(str(frame.data["time_ms"]))
        self._began_ms = time_ms if self._began_ms is None else self._began_ms
        text = self._text(frame.event, data)
        seconds = max(0, time_ms - self._began_ms) / 1000
        return f"{seconds:8.2f}s  {text}"

    def _text(self, event: str, data: Mapping[str, object]) -> str:
        match event:
            case "ExecutionQueued":
                return f"queued     {data['workflow']} ({data['framework']})"
            case "ExecutionStarted":
                return "started"
            case "ExecutionResumed":
                return f"resumed    by runner {data['incarnation']}: {data['reason']}"
            case "ExecutionPaused":
                return f"paused     {data['reason']}"
            case "ExecutionCompleted":
                return "completed"
            case "ExecutionFailed":
                where = f" in {data['step']}" if data["step"] else ""
                return f"failed{where}  {data['error_type']}: {short(data['error_message'])}"
            case "ExecutionCancelled":
                return f"cancelled  {data['reason']}"
            case "SignalReceived":
                return f"signal     {data['name']}"
            case "ReplayDiverged":
                return f"diverged   in {data['step']}: it asked another {data['kind']} question"
            case _:
                return self._work(event, data)

    def _work(self, event: str, data: Mapping[str, object]) -> str:
        match event:
            case "StepStarted":
                again = f"  attempt {data['attempt']}" if int(str(data["attempt"])) > 1 else ""
                return f"▸ {data['step']}{_by(data)}{again}"
            case "StepCompleted":
                return f"✓ {data['step']}{_by(data)}  {_ms(data['duration_ms'])}{self._spent(data)}"
            case "StepFailed":
                return f"✗ {data['step']}{_by(data)}  {_error(data)}"
            case "LlmCallCompleted":
                return self._llm(data)
            case "LlmCallFailed":
                what = f"{data['error_class']} {short(data['error_message'])}"
                return f"    llm   {data['model']} failed: {what}"
            case "ToolCallCompleted":
                again = ", reconciled" if data["resolution"] == "reconciled" else ""
                took = f"{_ms(data['duration_ms'])}{again}"
                return f"    tool  {data['tool']}  {took}  → {short(data['result'])}"
            case "ToolCallFailed":
                return f"    tool  {data['tool']} failed: {_error(data)}"
            case "ApprovalRequested":
                asked = f"{data['kind']} {data['tool'] or data['step']} {short(data['payload'])}"
                return f"? waits for a person: {asked}  [{data['approval_id']}]"
            case "ApprovalGranted" | "ApprovalDenied":
                verb = event.removeprefix("Approval").lower()
                return f"! {verb}: {data['approval_id']} {data['reason']}"
            case _:
                return event

    def _llm(self, data: Mapping[str, object]) -> str:
        step = str(data["step"])
        tokens_in, tokens_out = int(str(data["input_tokens"])), int(str(data["output_tokens"]))
        cost = int(str(data["cost_microusd"]))
        self._tokens[step] = self._tokens.get(step, 0) + tokens_in + tokens_out
        self._cost_microusd[step] = self._cost_microusd.get(step, 0) + cost
        return (
            f"    llm   {data['model']} ({data['route']})  {_ms(data['latency_ms'])}  "
            f"{tokens_in}+{tokens_out} tokens  {usd(cost)}"
        )

    def _spent(self, data: Mapping[str, object]) -> str:
        step = str(data["step"])
        tokens = self._tokens.pop(step, 0)
        cost = self._cost_microusd.pop(step, 0)
        return f"  {tokens} tokens  {usd(cost)}" if tokens else ""


def summary(execution: Json) -> str:
    """The last line about an execution."""
    tokens = _mapping(execution["tokens"])
    total = int(str(tokens["input"])) + int(str(tokens["output"]))
    took = ""
    if execution["started_at_ms"] and execution["ended_at_ms"]:
        seconds = (int(str(execution["ended_at_ms"])) - int(str(execution["started_at_ms"]))) / 1000
        took = f" in {seconds:.2f} s"
    return (
        f"{execution['status']}{took}: {_many(execution['step_count'], 'step')}, "
        f"{_many(execution['llm_calls'], 'LLM call')}, "
        f"{_many(execution['tool_calls'], 'tool call')}, "
        f"{total} tokens, {usd(int(str(execution['cost_microusd'])))}"
    )


def usd(microusd: int) -> str:
    """Exact dollars."""
    return f"${microusd // MICROUSD}.{microusd % MICROUSD:06d}"


def short(value: object) -> str:
    """A value on one line, cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # What an agent wrote must not move the terminal's cursor.
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= TEXT_CHARS_MAX else line[: TEXT_CHARS_MAX - 1] + "…"


def _error(data: Mapping[str, object]) -> str:
    return f"{data['error_type']}: {short(data['error_message'])}"


def _by(data: Mapping[str, object]) -> str:
    agent = data["agent"]
    return f" ({agent})" if agent and agent != data["step"] else ""


def _ms(value: object) -> str:
    duration_ms = int(str(value))
    return f"{duration_ms} ms" if duration_ms < 1000 else f"{duration_ms / 1000:.2f} s"


def _many(count: object, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, dict), "the gateway's envelopes are objects"
    return value
