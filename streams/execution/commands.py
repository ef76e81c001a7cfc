"""What an execution can be asked: by clients through the gateway (on the log), or by its runner
(over the socket).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streams.messages import Command


class ExecutionCommand(Command):
    __slots__ = ()
    namespace: ClassVar[str] = "omium.command"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartExecution(ExecutionCommand):
    workflow: str
    workflow_version: str
    framework: str
    """`langgraph`, `crewai`, `autogen` or `python`."""
    entrypoint: str
    """`module:attr` or `/absolute/file.py:attr`."""
    input_json: str
    options_json: str
    labels_json: str
    deadline_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelExecution(ExecutionCommand):
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseExecution(ExecutionCommand):
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeExecution(ExecutionCommand):
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalExecution(ExecutionCommand):
    name: str
    payload_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveApproval(ExecutionCommand):
    approval_id: str
    is_granted: bool
    resolved_by: str
    reason: str
    value_json: str
    """What the person answered; becomes the value of an interrupt. `null` if none."""
