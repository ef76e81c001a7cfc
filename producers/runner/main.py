"""A runner's life: say ready, take an execution, run it, report exactly one end."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import MutableMapping
from contextvars import copy_context
from typing import Final, cast

import orjson

from producers.adapters.detect import for_object
from producers.adapters.port import BadInput, Finished, Outcome
from producers.runner import guard, session
from producers.runner.channel import ChannelClosed, RunnerChannel
from producers.runner.loading import BadWorkflow, load
from producers.runner.protocol import Frame, StartHeader
from producers.runner.render import to_json
from producers.runner.reset import Baseline
from producers.runner.session import Session, failure_header
from producers.runner.signals import Cancelled, Suspended

OUTPUT_BYTES_MAX: Final = 1024 * 1024
"""Longest JSON of an execution's output."""
CANCELLED_EXIT: Final = 71

# Frameworks that would phone home, or write beside the execution, are told not to.
QUIET_ENVIRONMENT: Final = {
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "ANONYMIZED_TELEMETRY": "false",
}


def serve(sock: socket.socket, environment: MutableMapping[str, str]) -> int:
    """Runs executions from this socket until told to stop; returns the exit status."""
    channel = RunnerChannel(sock)
    guard.start(channel.fileno())
    baseline: Baseline | None = None
    try:
        channel.send("ready", {"pid": os.getpid()})
        while (current := _receive(channel)) is not None:
            baseline = baseline or Baseline.take(environment)
            # A context of its own: what user code leaves in context variables ends with it.
            copy_context().run(_execute, current, environment)
            if not current.start["is_reusable"]:
                break
            baseline.restore(environment)
    except ChannelClosed:
        return guard.ORPHANED_EXIT
    return 0


def _receive(channel: RunnerChannel) -> Session | None:
    """The next execution with all its records, or nothing when the worker wants no more."""
    frame = channel.receive()
    if frame.kind == "stop":
        return None
    if frame.kind != "start":
        raise ChannelClosed(f"expected start, got {frame.kind}")
    start = cast("StartHeader", dict(frame.header))
    records = tuple(_record(channel.receive()) for _ in range(start["records"]))
    if (last := channel.receive()).kind != "go":
        raise ChannelClosed(f"expected go, got {last.kind}")
    options = orjson.loads(start["options_json"] or "{}")
    return Session(
        channel=channel,
        start=start,
        records=records,
        options=options if isinstance(options, dict) else {},
    )


def _record(frame: Frame) -> tuple[str, str, bytes]:
    if frame.kind != "record":
        raise ChannelClosed(f"expected record, got {frame.kind}")
    # The frame's own kind shadows nothing: the record's kind travels as `record_kind`.
    return frame.text("record_kind"), frame.text("step_key"), frame.blob


def _execute(current: Session, environment: MutableMapping[str, str]) -> None:
    """Runs one execution and sends its one final frame."""
    prepare_environment(current.start, environment)
    session.set_current(current)
    try:
        kind, header = _outcome(current)
    finally:
        session.set_current(None)
    sys.stdout.flush()
    sys.stderr.flush()
    current.channel.send(kind, header)


def _outcome(current: Session) -> tuple[str, dict[str, object]]:
    channel = current.channel
    try:
        outcome = _run(current)
    except Suspended:
        return "suspended", {}
    except Cancelled:
        return _cancelled(current)
    except ChannelClosed:
        raise
    except BaseException as error:
        if channel.cancel_reason is not None:
            return _cancelled(current)
        if current.is_suspended:
            return "suspended", {}
        header = failure_header(error)
        return "failed", {
            **header,
            "error_class": _error_class(error),
            "step": current.failed_step,
        }
    if current.is_suspended:
        # User code swallowed the signal; what it made of it does not count.
        return "suspended", {}
    if isinstance(outcome, Finished):
        return "finished", {"output_json": to_json(outcome.output, OUTPUT_BYTES_MAX)}
    interrupts = [
        {
            "interrupt_id": interrupt.interrupt_id,
            "payload_json": to_json(interrupt.payload),
            "step": interrupt.step,
        }
        for interrupt in outcome.interrupts
    ]
    return "interrupted", {"interrupts": interrupts}


def _run(current: Session) -> Outcome:
    start = current.start
    try:
        inputs = orjson.loads(start["input_json"] or "null")
    except orjson.JSONDecodeError as error:
        raise BadInput(f"the input is not JSON: {error}") from error
    try:
        target = load(start["entrypoint"])
    except (BadWorkflow, ChannelClosed):
        raise
    except Exception as error:
        raise BadWorkflow(f"importing {start['entrypoint']} failed: {error!r}") from error
    adapter = for_object(target, start["framework"])
    adapter.preload()
    return adapter.run(target, inputs, current)


def _cancelled(current: Session) -> tuple[str, dict[str, object]]:
    reason = current.channel.cancel_reason or "cancelled"
    return "failed", {
        "error_class": "exception",
        "error_type": "omium.Cancelled",
        "error_message": reason,
        "error_trace": "",
        "step": current.failed_step,
    }


def _error_class(error: BaseException) -> str:
    if isinstance(error, BadWorkflow):
        return "bad_workflow"
    return "bad_input" if isinstance(error, BadInput) else "exception"


def prepare_environment(start: StartHeader, environment: MutableMapping[str, str]) -> None:
    """Points every SDK at the gateway. Before user code is imported: clients read this when they
    are made.
    """
    gateway = start["gateway_url"].rstrip("/")
    environment.update(QUIET_ENVIRONMENT)
    environment.update(
        OPENAI_BASE_URL=gateway,
        OPENAI_API_BASE=gateway,
        OPENAI_API_KEY=start["api_key"],
        # Anthropic's SDK adds /v1 itself.
        ANTHROPIC_BASE_URL=gateway.removesuffix("/v1"),
        ANTHROPIC_API_KEY=start["api_key"],
        OMIUM_EXECUTION_ID=start["execution_id"],
    )


def run_forked(channel_fd: int, environment: MutableMapping[str, str]) -> int:
    """The whole life of a freshly forked runner."""
    sock = socket.socket(fileno=channel_fd)
    try:
        status = serve(sock, environment)
    except BaseException:
        traceback.print_exc()
        status = 1
    deadline_s = time.monotonic() + 2.0
    while time.monotonic() < deadline_s:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            break
        except BlockingIOError:
            time.sleep(0.01)
        except (OSError, ValueError):
            break
    return status
