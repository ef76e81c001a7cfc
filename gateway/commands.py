"""Routes that ask for something: each is answered once its command stands on the log (law 1)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, TypedDict
from uuid import uuid5

import orjson
from fastapi import APIRouter, Request, Response

from gateway.auth import Principal
from gateway.context import Context, context_of
from gateway.envelope import parsed
from gateway.history import entry_with_approval, find
from gateway.limits import RETRY_AFTER_QUEUE_S
from gateway.models import (
    Accepted,
    ReasonRequest,
    ResolveRequest,
    SignalRequest,
    StartExecutionRequest,
    accepted_document,
    json_answer,
)
from gateway.problems import Problem
from gateway.workflows import defaults_of, input_problem, require_workflow
from streams.control.events import WorkflowRegistered
from streams.errors import Rejected, Retryable
from streams.execution.commands import (
    CancelExecution,
    ExecutionCommand,
    PauseExecution,
    ResolveApproval,
    ResumeExecution,
    SignalExecution,
    StartExecution,
)
from streams.execution.options import parse
from streams.execution.view import ExecutionView
from streams.messages import OMIUM_NAMESPACE, ExecutionId, event_id
from streams.topics import COMMANDS, MESSAGE_BYTES_MAX

router = APIRouter(tags=["executions"])

log = logging.getLogger("omium.gateway")

IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
LOOK_UP_S: Final = 3.0
"""How long a start with an `Idempotency-Key` waits for the store of past executions."""
APPEND_TIMEOUT_S: Final = 30.0
"""How long a client waits while the broker restarts."""
RECORD_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 64 * 1024
"""A command must leave room for the fields that its first event adds."""
SORTED: Final = orjson.OPT_SORT_KEYS


@router.post("/v1/executions", status_code=202, response_model=Accepted)
async def start(request: Request, body: StartExecutionRequest) -> Response:
    """Start an execution. Repeated with the same `Idempotency-Key` and body, the answer is the
    same.
    """
    context = context_of(request)
    who = context.principal(request, "executions")
    key = idempotency_key(request)
    execution_id = _execution_id(context, who, key)
    if key:
        known = await _known(context, who.tenant, execution_id)
        if known is not None:
            _require_same(context, who, known, body)
            return json_answer(accepted_document(execution_id, "queued"), 202)
    _require_room(context, who)
    workflow = require_workflow(context, who, body.workflow, body.workflow_version or "")
    command = _start_command(context, who, execution_id, workflow, body)
    await append(context, command)
    context.live.accept(command, is_fresh=True)
    return json_answer(accepted_document(execution_id, "queued"), 202)


@router.post("/v1/executions/{execution_id}/cancel", status_code=202, response_model=Accepted)
async def cancel(
    request: Request, execution_id: str, body: ReasonRequest | None = None
) -> Response:
    """Cancel an execution. Its runner is stopped; what was done stays done."""
    asked = await _asked(request, execution_id, until="cancelled")
    reason = body.reason if body is not None else ""
    return await asked.send(CancelExecution(**asked.frame("CancelExecution"), reason=reason))


@router.post("/v1/executions/{execution_id}/pause", status_code=202, response_model=Accepted)
async def pause(request: Request, execution_id: str, body: ReasonRequest | None = None) -> Response:
    """Pause an execution after what it is doing now."""
    asked = await _asked(request, execution_id)
    reason = body.reason if body is not None else ""
    return await asked.send(PauseExecution(**asked.frame("PauseExecution"), reason=reason))


@router.post("/v1/executions/{execution_id}/resume", status_code=202, response_model=Accepted)
async def resume(
    request: Request, execution_id: str, body: ReasonRequest | None = None
) -> Response:
    """Let a paused execution go on."""
    asked = await _asked(request, execution_id)
    reason = body.reason if body is not None else ""
    return await asked.send(ResumeExecution(**asked.frame("ResumeExecution"), reason=reason))


@router.post("/v1/executions/{execution_id}/signal", status_code=202, response_model=Accepted)
async def signal(request: Request, execution_id: str, body: SignalRequest) -> Response:
    """Send a named value into an execution; it answers an interrupt that waits for it."""
    asked = await _asked(request, execution_id)
    command = SignalExecution(
        **asked.frame("SignalExecution"),
        name=body.name,
        payload_json=orjson.dumps(body.payload).decode(),
    )
    return await asked.send(command)


@router.post("/v1/approvals/{approval_id}/approve", status_code=202, response_model=Accepted)
async def approve(
    request: Request, approval_id: str, body: ResolveRequest | None = None
) -> Response:
    """Say yes to what an execution asked. `value` answers an interrupt."""
    return await _resolve(request, approval_id, True, body or ResolveRequest())


@router.post("/v1/approvals/{approval_id}/reject", status_code=202, response_model=Accepted)
async def reject(
    request: Request, approval_id: str, body: ResolveRequest | None = None
) -> Response:
    """Say no to what an execution asked."""
    return await _resolve(request, approval_id, False, body or ResolveRequest())


class Frame(TypedDict):
    """The fields that every command carries."""

    event_id: str
    tenant: str
    execution_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One execution of which its tenant asks something."""

    context: Context
    who: Principal
    execution_id: ExecutionId
    key: str
    view: ExecutionView

    def frame(self, kind: str) -> Frame:
        """The command's frame. With an `Idempotency-Key` it is the same command however often it is
        sent.
        """
        ordinal = self.key or self.context.new_id()
        return {
            "event_id": event_id(self.who.tenant, self.execution_id, "", 0, kind, ordinal),
            "tenant": self.who.tenant,
            "execution_id": self.execution_id,
            "at_ms": self.context.now_ms(),
        }

    async def send(self, command: ExecutionCommand) -> Response:
        """Append the command and answer 202."""
        await append(self.context, command)
        return json_answer(accepted_document(self.execution_id, self.view.status), 202)


async def append(context: Context, command: ExecutionCommand) -> int:
    """The command's offset, once all in-sync replicas have it."""
    try:
        record = context.wire.encode(command, COMMANDS)
    except Rejected as error:
        raise _too_large() from error
    if len(record.value) > RECORD_BYTES_MAX:
        raise _too_large()
    try:
        return await asyncio.wait_for(context.producer.send(record), APPEND_TIMEOUT_S)
    except TimeoutError as error:
        # It may still arrive; sent again with the same Idempotency-Key it is the same execution.
        raise Retryable("the log did not acknowledge the command in time", 5000) from error


def idempotency_key(request: Request) -> str:
    """The request's `Idempotency-Key`, empty without one; raises the 422 problem for a bad one."""
    key = request.headers.get("idempotency-key", "")
    if len(key) > IDEMPOTENCY_KEY_CHARS_MAX or not key.isprintable():
        raise Problem(
            422,
            "invalid-idempotency-key",
            f"Idempotency-Key holds at most {IDEMPOTENCY_KEY_CHARS_MAX} printable characters.",
            field="Idempotency-Key",
            limit=IDEMPOTENCY_KEY_CHARS_MAX,
        )
    return key


def _execution_id(context: Context, who: Principal, key: str) -> ExecutionId:
    if not key:
        return ExecutionId(context.new_id())
    return ExecutionId(str(uuid5(OMIUM_NAMESPACE, "\x1f".join(("execution", who.tenant, key)))))


async def _known(context: Context, tenant: str, execution_id: str) -> ExecutionView | None:
    """The execution that a repeated key names.

    With the store away an old one cannot be found; its command is then sent again, which changes
    nothing: the execution id is the same.
    """
    try:
        async with asyncio.timeout(LOOK_UP_S):
            return (await find(context, tenant, execution_id)).view
    except TimeoutError:
        log.warning("cannot look up %s: the store of past executions is slow", execution_id)
    except Problem as problem:
        if problem.status_code != 404:
            raise
    except Retryable:
        log.warning("cannot look up %s: the store of past executions is away", execution_id)
    return None


def _require_room(context: Context, who: Principal) -> None:
    context.disk.require_space()
    queued, limit = context.live.queued(who.tenant), context.config.queued_max
    if queued >= limit:
        raise Problem(
            429,
            "too-many-queued",
            f"{queued} executions wait to be started already.",
            limit=limit,
            retry_after_s=RETRY_AFTER_QUEUE_S,
        )


def _start_command(
    context: Context,
    who: Principal,
    execution_id: ExecutionId,
    workflow: WorkflowRegistered,
    body: StartExecutionRequest,
) -> StartExecution:
    if problem := input_problem(workflow, body.input):
        raise problem
    options_json = options_of(workflow, body)
    parse(options_json)
    now_ms = context.now_ms()
    return StartExecution(
        event_id=event_id(who.tenant, execution_id, "", 0, "StartExecution", 0),
        tenant=who.tenant,
        execution_id=execution_id,
        at_ms=now_ms,
        workflow=workflow.name,
        workflow_version=workflow.version,
        framework=workflow.framework,
        entrypoint=workflow.entrypoint,
        input_json=orjson.dumps(body.input, option=SORTED).decode(),
        options_json=options_json,
        labels_json=orjson.dumps(body.labels, option=SORTED).decode(),
        deadline_at_ms=None if body.deadline_s is None else now_ms + int(body.deadline_s * 1000),
    )


def options_of(workflow: WorkflowRegistered, body: StartExecutionRequest) -> str:
    """The workflow's options with the request's above them, each name as a whole."""
    return orjson.dumps({**defaults_of(workflow), **body.given()}, option=SORTED).decode()


def _require_same(
    context: Context, who: Principal, known: ExecutionView, body: StartExecutionRequest
) -> None:
    """Raises the 422 problem if the key was used for something else."""
    is_same = known.workflow == body.workflow and body.workflow_version in (
        None,
        known.workflow_version,
    )
    is_same = is_same and _sorted(known.input_json) == orjson.dumps(body.input, option=SORTED)
    is_same = is_same and _sorted(known.labels_json) == orjson.dumps(body.labels, option=SORTED)
    # A newer version's defaults must not make an honest repeat look changed.
    workflow = context.workflows.get(who.tenant, known.workflow, known.workflow_version)
    if workflow is not None:
        is_same = is_same and _sorted(known.options_json) == options_of(workflow, body).encode()
    if not is_same:
        raise Problem(
            422,
            "idempotency-key-reused",
            f"This Idempotency-Key started execution {known.execution_id} with another body.",
            field="Idempotency-Key",
        )


def _sorted(text: str) -> bytes:
    return orjson.dumps(parsed(text), option=SORTED)


async def _asked(request: Request, execution_id: str, until: str = "") -> Asked:
    context = context_of(request)
    who = context.principal(request, "executions")
    view = (await find(context, who.tenant, execution_id)).view
    if view.is_terminal and view.status != until:
        raise Problem(
            409, "execution-ended", f"The execution is {view.status} already.", field="id"
        )
    return Asked(context, who, ExecutionId(execution_id), idempotency_key(request), view)


async def _resolve(
    request: Request, approval_id: str, is_granted: bool, body: ResolveRequest
) -> Response:
    context = context_of(request)
    who = context.principal(request, "executions")
    entry = await entry_with_approval(context, who.tenant, approval_id)
    approval = next(a for a in entry.view.approvals if a.approval_id == approval_id)
    if approval.status != "pending" or entry.view.is_terminal:
        state = (
            approval.status
            if approval.status != "pending"
            else f"void, the execution is {entry.view.status}"
        )
        raise Problem(409, "approval-resolved", f"This approval is {state} already.", field="id")
    execution_id = ExecutionId(entry.view.execution_id)
    asked = Asked(context, who, execution_id, f"{approval_id}/{is_granted}", entry.view)
    command = ResolveApproval(
        **asked.frame("ResolveApproval"),
        approval_id=approval_id,
        is_granted=is_granted,
        resolved_by=who.key_id,
        reason=body.reason,
        value_json=orjson.dumps(body.value).decode(),
    )
    return await asked.send(command)


def _too_large() -> Problem:
    return Problem(
        413,
        "command-too-large",
        "Input and options are too large for one record.",
        field="input",
        limit=RECORD_BYTES_MAX,
    )
