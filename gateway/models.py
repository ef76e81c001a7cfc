"""Requests as clients write them (pydantic, at this edge only) and answers as they read them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from gateway.envelope import parsed
from streams.execution.view import ApprovalView, CallView, ExecutionView, StepView

Json = dict[str, object]
NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}$"
DEADLINE_S_MAX: Final = 30 * 24 * 3600
LABELS_MAX: Final = 32
STEPS_SHOWN_MAX: Final = 2000
"""Steps and calls in one answer, the newest ones; `steps_total` says how many there are."""

WorkflowName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
LabelValue = Annotated[str, StringConstraints(max_length=256)]
Reason = Annotated[str, StringConstraints(max_length=2000)]


class Request(BaseModel):
    """A body that holds what it names and nothing else: a typo is told, not ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ExecutionOptions(Request):
    """What ARCHITECTURE 4.8 lets a user ask beside the input."""

    constraints: list[Json] | None = None
    infer_constraints: bool | None = None
    tools: dict[str, Json] | None = None
    steps: dict[str, Json] | None = None
    recovery: Json | None = None
    budget_usd: float | None = Field(default=None, ge=0)
    on_divergence: str | None = None

    def given(self) -> Json:
        """The options that were given."""
        return {
            name: getattr(self, name)
            for name in ExecutionOptions.model_fields
            if getattr(self, name) is not None
        }


class StartExecutionRequest(ExecutionOptions):
    """`POST /v1/executions`."""

    workflow: WorkflowName
    workflow_version: str | None = Field(
        default=None, max_length=128, description="Exactly this version; default: the newest."
    )
    input: Json = Field(
        default_factory=dict,
        description="LangGraph state, CrewAI inputs, AutoGen `{task}`, or keyword arguments.",
    )
    deadline_s: float | None = Field(default=None, gt=0, le=DEADLINE_S_MAX)
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=LABELS_MAX)


class RegisterWorkflowRequest(Request):
    """`POST /v1/workflows`."""

    name: WorkflowName
    framework: str = Field(pattern="^(langgraph|crewai|autogen|python)$")
    entrypoint: str = Field(
        max_length=1024,
        description="`module:attr` or, where files are allowed, `/abs/file.py:attr`.",
    )
    input_schema: Json | None = Field(
        default=None, description="JSON Schema that inputs must meet."
    )
    options: ExecutionOptions = Field(
        default_factory=ExecutionOptions, description="Defaults for its executions."
    )


class IssueKeyRequest(Request):
    """`POST /v1/keys`."""

    scopes: list[Literal["admin", "executions", "llm", "sql"]] = Field(min_length=1)


class ReasonRequest(Request):
    """`POST …/cancel|pause|resume`."""

    reason: Reason = ""


class SignalRequest(Request):
    """`POST …/signal`."""

    name: str = Field(min_length=1, max_length=256)
    payload: object = None


class ResolveRequest(Request):
    """`POST /v1/approvals/{id}/approve|reject`."""

    value: object = None
    reason: Reason = ""


class Links(BaseModel):
    """Where to go on."""

    self: str
    events: str
    history: str
    stream: str


class Accepted(BaseModel):
    """202: the command stands on the log."""

    id: str
    status: str
    links: Links


def json_answer(document: object, status: int = 200) -> Response:
    """The document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")


def links_of(execution_id: str) -> dict[str, str]:
    """The routes of one execution."""
    base = f"/v1/executions/{execution_id}"
    return {
        "self": base,
        "events": f"{base}/events",
        "history": f"{base}/history",
        "stream": f"{base}/stream",
    }


def accepted_document(execution_id: str, status: str) -> Json:
    """The 202 answer."""
    return {"id": execution_id, "status": status, "links": links_of(execution_id)}


def listed_document(view: ExecutionView) -> Json:
    """An execution as one row of a list."""
    return {
        "id": view.execution_id,
        "workflow": view.workflow,
        "workflow_version": view.workflow_version,
        "framework": view.framework,
        "status": view.status,
        "created_at_ms": view.created_at_ms,
        "started_at_ms": view.started_at_ms,
        "ended_at_ms": view.ended_at_ms,
        "step_count": len(view.steps),
        "llm_calls": view.count("llm"),
        "tool_calls": view.count("tool"),
        "tokens": tokens_document(view),
        "cost_microusd": view.total(lambda call: call.cost_microusd),
        "labels": parsed(view.labels_json),
        "links": links_of(view.execution_id),
    }


def execution_document(view: ExecutionView) -> Json:
    """An execution with its steps, calls and approvals."""
    nested: dict[str, list[Json]] = {}
    for call in view.calls[-STEPS_SHOWN_MAX:]:
        nested.setdefault(call.step_key, []).append(call_document(call))
    known = {step.step_key for step in view.steps}
    loose = [call for key, calls in nested.items() if key not in known for call in calls]
    shown = view.steps[-STEPS_SHOWN_MAX:]
    return {
        **listed_document(view),
        "entrypoint": view.entrypoint,
        "input": parsed(view.input_json),
        "output": parsed(view.output_json),
        "error": error_document(view),
        "reason": view.reason,
        "options": parsed(view.options_json),
        "incarnation": view.incarnation,
        "steps": [
            {**step_document(step), "calls": nested.get(step.step_key, [])} for step in shown
        ],
        "steps_total": len(view.steps),
        "calls": loose,
        "incidents": [],
        "approvals": [approval_document(view, approval) for approval in view.approvals],
        "is_settled": view.is_settled,
    }


def error_document(view: ExecutionView) -> Json | None:
    """Why it failed, if it did."""
    if view.status != "failed":
        return None
    return {
        "class": view.error_class,
        "type": view.error_type,
        "message": view.error_message,
        "step": view.error_step,
    }


def step_document(step: StepView) -> Json:
    """One step."""
    failed = {"type": step.error_type, "message": step.error_message} if step.error_type else None
    return {
        "step": step.step,
        "step_key": step.step_key,
        "agent": step.agent,
        "status": step.status,
        "attempts": step.attempts,
        "ordinal": step.ordinal,
        "incarnation": step.incarnation,
        "started_at_ms": step.started_at_ms,
        "ended_at_ms": step.ended_at_ms,
        "duration_ms": step.duration_ms,
        "output": parsed(step.output_json),
        "error": failed,
    }


def call_document(call: CallView) -> Json:
    """One LLM or tool call."""
    common: Json = {
        "call_id": call.call_id,
        "kind": call.kind,
        "name": call.name,
        "step": call.step,
        "agent": call.agent,
        "status": call.status,
        "started_at_ms": call.started_at_ms,
        "duration_ms": call.duration_ms,
        "error": {"type": call.error_type, "message": call.error_message}
        if call.error_type
        else None,
    }
    if call.kind == "tool":
        return common | {
            "policy": call.policy,
            "resolution": call.resolution,
            "arguments": parsed(call.arguments_json),
            "result": parsed(call.result_json),
        }
    return common | {
        "route": call.route,
        "provider": call.provider,
        "input_tokens": call.input_tokens,
        "cached_tokens": call.cached_tokens,
        "output_tokens": call.output_tokens,
        "reasoning_tokens": call.reasoning_tokens,
        "cost_microusd": call.cost_microusd,
    }


def approval_document(view: ExecutionView, approval: ApprovalView) -> Json:
    """One question to a person."""
    return {
        "id": approval.approval_id,
        "execution_id": view.execution_id,
        "workflow": view.workflow,
        "status": approval.status,
        "kind": approval.kind,
        "step": approval.step,
        "tool": approval.tool,
        "payload": parsed(approval.payload_json),
        "requested_at_ms": approval.requested_at_ms,
        "resolved_at_ms": approval.resolved_at_ms,
        "resolved_by": approval.resolved_by,
        "reason": approval.reason,
    }


def tokens_document(view: ExecutionView) -> dict[str, int]:
    """Tokens of all LLM calls."""
    return {
        "input": view.total(lambda call: call.input_tokens),
        "cached": view.total(lambda call: call.cached_tokens),
        "output": view.total(lambda call: call.output_tokens),
        "reasoning": view.total(lambda call: call.reasoning_tokens),
    }
