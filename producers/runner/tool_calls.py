"""One tool call under the journal: intent, decision, act, outcome; the same for every framework.

`go` runs the tool; `recorded` gives back what it returned or raised; `reconcile` asks the tool's
reconciler whether the call of an earlier incarnation happened, and calls the tool again under the
same key if it did not or has none.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from producers.runner.context import idempotency_key
from producers.runner.protocol import Frame, FrameError, Header
from producers.runner.render import canonical, to_json
from producers.runner.session import Session, StepInfo, denied, is_unwind, request_hash
from producers.runner.signals import UnrecordableResult, raise_recorded, type_name

INTERRUPTED: Final = "omium.Interrupted"
"""Recorded as the failure of a call that an interrupt cut short: a later incarnation calls again,
as a new call.
"""
ROUNDS_MAX: Final = 64
"""How many interrupts within one tool call are followed."""

Reconciler = Callable[[str, Mapping[str, object]], object]


class Codec(Protocol):
    """How a framework's results become bytes and back."""

    def dumps_typed(self, obj: object) -> tuple[str, bytes]: ...

    def loads_typed(self, data: tuple[str, bytes]) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """What is about to be called, and how to deal with its outcome."""

    tool: str
    arguments: object
    """As the caller passed them, without injected ones."""
    codec: Codec
    reconciler: Reconciler | None
    is_pause: Callable[[BaseException], bool]
    """Whether an exception of the framework only pauses the call."""


@dataclass(slots=True)
class _Call:
    session: Session
    request: ToolRequest
    info: StepInfo
    call_id: str
    header: dict[str, object]
    started_s: float = 0.0


_UNKNOWN: Final = object()
"""Nothing is known of the outcome: the tool has to run."""


def call_tool(session: Session, request: ToolRequest, act: Callable[[], object]) -> object:
    """The tool's result, from the journal or by calling it; its error likewise."""
    for _ in range(ROUNDS_MAX):
        call = _prepare(session, request)
        reply = session.intend("tool_intended", call.header)
        if _was_interrupted(reply):
            continue
        if (known := _known(call, reply)) is not _UNKNOWN:
            return known
        if reply.text("decision") == "reconcile":
            if (found := _reconcile(call)) is not None:
                return session.report(*_completed(call, found, "reconciled")) and found
            session.intend("tool_intended", call.header)
        return _act(call, act)
    raise RecursionError(f"{request.tool} was interrupted more than {ROUNDS_MAX} times")


async def call_tool_async(
    session: Session, request: ToolRequest, act: Callable[[], Awaitable[object]]
) -> object:
    """`call_tool` for a coroutine."""
    for _ in range(ROUNDS_MAX):
        call = _prepare(session, request)
        reply = await session.intend_async("tool_intended", call.header)
        if _was_interrupted(reply):
            continue
        if (known := _known(call, reply)) is not _UNKNOWN:
            return known
        if reply.text("decision") == "reconcile":
            if (found := await _reconcile_async(call)) is not None:
                return await session.report_async(*_completed(call, found, "reconciled")) and found
            await session.intend_async("tool_intended", call.header)
        return await _act_async(call, act)
    raise RecursionError(f"{request.tool} was interrupted more than {ROUNDS_MAX} times")


def _prepare(session: Session, request: ToolRequest) -> _Call:
    info = session.locate()
    digest = request_hash(request.tool.encode(), canonical(request.arguments))
    ordinal = session.next_ordinal(info, f"tool:{request.tool}", digest)
    call_id = session.call_id(info, f"tool:{request.tool}", digest, ordinal)
    session.used(info, call_id)
    header: dict[str, object] = {
        "call_id": call_id,
        "step": info.step,
        "step_key": info.step_key,
        "agent": info.agent,
        "attempt": info.attempt,
        "tool": request.tool,
        "request_hash": digest,
        "ordinal": ordinal,
        "arguments_json": to_json(request.arguments),
        "has_reconciler": request.reconciler is not None,
    }
    return _Call(session, request, info, call_id, header)


def _was_interrupted(reply: Frame) -> bool:
    return reply.text("decision") == "recorded" and reply.text("error_type") == INTERRUPTED


def _known(call: _Call, reply: Frame) -> object:
    """The recorded result, or `_UNKNOWN`; raises the recorded error or the denial."""
    match reply.text("decision"):
        case "recorded":
            if error_type := reply.text("error_type"):
                raise_recorded(error_type, reply.text("error_message"))
            return call.request.codec.loads_typed((reply.text("result_type"), reply.blob))
        case "deny":
            raise denied(reply, f"tool {call.request.tool}")
        case "go" | "reconcile":
            return _UNKNOWN
        case decision:
            raise RuntimeError(f"the worker answered {decision!r} to tool {call.request.tool}")


def _arguments(call: _Call) -> Mapping[str, object]:
    arguments = call.request.arguments
    return arguments if isinstance(arguments, Mapping) else {"input": arguments}


def _reconcile(call: _Call) -> object:
    if call.request.reconciler is None:
        return None
    found = call.request.reconciler(call.call_id, _arguments(call))
    if isinstance(found, Awaitable):
        raise TypeError(f"the reconciler of {call.request.tool} is async; the tool is called sync")
    return found


async def _reconcile_async(call: _Call) -> object:
    if call.request.reconciler is None:
        return None
    found = call.request.reconciler(call.call_id, _arguments(call))
    return await found if isinstance(found, Awaitable) else found


def _act(call: _Call, act: Callable[[], object]) -> object:
    call.started_s = time.monotonic()
    token = idempotency_key.set(call.call_id)
    try:
        result = act()
    except BaseException as error:
        call.session.channel.ask(*_failed(call, error))
        raise
    finally:
        idempotency_key.reset(token)
    completed = _completed(call, result, "returned")
    try:
        call.session.report(*completed)
    except FrameError as error:
        raise _too_large(call, error) from error
    return result


async def _act_async(call: _Call, act: Callable[[], Awaitable[object]]) -> object:
    call.started_s = time.monotonic()
    token = idempotency_key.set(call.call_id)
    try:
        result = await act()
    except BaseException as error:
        # On the thread itself: a cancelled task could not await, and the outcome must stand before
        # it unwinds.
        call.session.channel.ask(*_failed(call, error))
        raise
    finally:
        idempotency_key.reset(token)
    completed = _completed(call, result, "returned")
    try:
        await call.session.report_async(*completed)
    except FrameError as error:
        raise _too_large(call, error) from error
    return result


def _outcome(call: _Call) -> dict[str, object]:
    started_s = call.started_s or time.monotonic()
    return {
        "call_id": call.call_id,
        "step": call.info.step,
        "step_key": call.info.step_key,
        "tool": call.request.tool,
        "duration_ms": round((time.monotonic() - started_s) * 1000),
    }


def _completed(call: _Call, result: object, resolution: str) -> tuple[str, Header, bytes]:
    try:
        result_type, blob = call.request.codec.dumps_typed(result)
    except Exception as error:
        refusal = UnrecordableResult(
            f"tool {call.request.tool} returned a {type(result).__qualname__}, "
            f"which cannot be recorded: {error}"
        )
        call.session.channel.ask(*_failed(call, refusal))
        raise refusal from error
    shown = {"result_type": result_type, "result_json": to_json(result), "resolution": resolution}
    return "tool_completed", {**_outcome(call), **shown}, blob


def _too_large(call: _Call, error: FrameError) -> UnrecordableResult:
    """The tool has run, and that must stand even if what it returned cannot."""
    refusal = UnrecordableResult(f"the result of tool {call.request.tool} is too large: {error}")
    call.session.channel.ask(*_failed(call, refusal))
    return refusal


def _failed(call: _Call, error: BaseException) -> tuple[str, Header, bytes]:
    is_pause = is_unwind(error) or call.request.is_pause(error)
    told = {
        "error_type": INTERRUPTED if is_pause else type_name(error),
        "error_message": "" if is_pause else str(error)[:8192],
    }
    return "tool_failed", {**_outcome(call), **told}, b""
