"""What people see of an execution: steps, calls, approvals and the whole, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
STATUSES: Final = (
    "queued", "running", "recovering", "waiting_approval", "paused", "completed", "failed",
    "cancelled",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One agent's turn. `attempts` counts deliberate tries; a resume after a crash is none."""

    step: str
    step_key: str
    agent: str
    status: str
    """`running`, `completed` or `failed`."""
    attempts: int
    last_attempt: int
    ordinal: int
    incarnation: int
    started_at_ms: int
    ended_at_ms: int | None = None
    duration_ms: int | None = None
    output_json: str | None = None
    error_type: str = ""
    error_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallView:
    """One LLM or tool call. For LLM calls `call_id` is the id on the LLM topics."""

    call_id: str
    kind: str
    """`llm` or `tool`."""
    name: str
    """The model or the tool."""
    step: str = ""
    step_key: str = ""
    agent: str = ""
    status: str = "running"
    started_at_ms: int | None = None
    duration_ms: int | None = None
    policy: str = ""
    resolution: str = ""
    arguments_json: str | None = None
    result_json: str | None = None
    error_type: str = ""
    error_message: str = ""
    route: str = ""
    provider: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_microusd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalView:
    """A question to a person."""

    approval_id: str
    kind: str
    step: str
    tool: str
    call_id: str
    payload_json: str
    requested_at_ms: int
    status: str = "pending"
    """`pending`, `granted` or `denied`."""
    resolved_at_ms: int | None = None
    resolved_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionView:
    """An execution as the API shows it."""

    tenant: str
    execution_id: str
    workflow: str = ""
    workflow_version: str = ""
    framework: str = ""
    entrypoint: str = ""
    status: str = "queued"
    input_json: str = "null"
    options_json: str = "{}"
    labels_json: str = "{}"
    output_json: str | None = None
    error_class: str = ""
    error_type: str = ""
    error_message: str = ""
    error_step: str = ""
    reason: str = ""
    """Why it is paused or was cancelled."""
    incarnation: int = 0
    created_at_ms: int = 0
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    steps: tuple[StepView, ...] = ()
    calls: tuple[CallView, ...] = ()
    approvals: tuple[ApprovalView, ...] = ()

    @property
    def next_incarnation(self) -> int:
        """The lowest number of a later runner; a smaller one is an old event told again."""
        return self.incarnation + 1 if self.started_at_ms is not None else 0

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in TERMINAL

    @property
    def is_settled(self) -> bool:
        """Whether it ended and each of its LLM calls has an outcome, so that its cost is final."""
        return self.is_terminal and not any(
            c.kind == "llm" and c.status == "running" for c in self.calls
        )

    def count(self, kind: str) -> int:
        """How many distinct calls of a kind it made."""
        return sum(call.kind == kind for call in self.calls)

    def total(self, measure: Callable[[CallView], int]) -> int:
        """The sum of a measure over its calls."""
        return sum(measure(call) for call in self.calls)

    def pending_approvals(self) -> tuple[ApprovalView, ...]:
        """The questions that nobody has answered."""
        return tuple(a for a in self.approvals if a.status == "pending")
