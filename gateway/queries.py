"""Routes that read: executions, their history and checkpoints, approvals, incidents."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from typing import Final

import orjson
from fastapi import APIRouter, Request, Response

from gateway.context import Context, context_of
from gateway.envelope import parsed
from gateway.history import earlier_events, find
from gateway.limits import (
    HISTORY_PAGE_DEFAULT,
    HISTORY_PAGE_MAX,
    PAGE_DEFAULT,
    PAGE_MAX,
    page_size,
)
from gateway.live import Entry
from gateway.models import approval_document, execution_document, json_answer, listed_document
from gateway.problems import Problem
from streams.errors import Retryable
from streams.execution.view import STATUSES, ExecutionView

log = logging.getLogger("omium.gateway")

router = APIRouter(tags=["executions"])

Cursor = tuple[int, str]
WAIT_S_MAX: Final = 30.0
"""How long one request may wait for an execution: below the patience of proxies on the way."""
RESTING: Final = frozenset({"waiting_approval", "paused"})
CHECKPOINT_KINDS: Final = frozenset({"StepCompleted", "CheckpointSaved"})


@router.get("/v1/executions")
async def list_executions(
    request: Request,
    status: str = "",
    workflow: str = "",
    label: str = "",
    cursor: str = "",
    limit: str = "",
) -> Response:
    """Executions, newest first. `label` is `name:value`; `next_cursor` leads to the next page."""
    context = context_of(request)
    who = context.principal(request, "executions")
    if status and status not in STATUSES:
        raise Problem(
            422, "invalid-status", f"status must be one of {', '.join(STATUSES)}.", field="status"
        )
    size = page_size(limit, default=PAGE_DEFAULT, page_max=PAGE_MAX)
    before, pair = _cursor(cursor), _label(label)
    rows = [
        _row(entry.view)
        for entry in context.live.of_tenant(who.tenant)
        if _matches(entry.view, status, workflow, pair)
    ]
    in_memory = {execution_id for (_, execution_id), _ in rows}
    is_complete = True
    try:
        past = await context.history.executions(
            who.tenant, before=before, limit=size + 1, status=status, workflow=workflow, label=pair
        )
    except Retryable as error:
        # What is in memory is true all the same; the answer says that older ones are missing.
        log.warning("a list without older executions: %s", error)
        past, is_complete = (), False
    for row in past:
        # Memory is newer than the store: a running execution's status there may be behind.
        held = context.live.get(who.tenant, row.execution_id)
        if row.execution_id not in in_memory and (held is None or not held.is_shown):
            rows.append(((row.created_at_ms, row.execution_id), row.document))
    rows = sorted(
        (row for row in rows if before is None or row[0] < before),
        key=lambda row: row[0],
        reverse=True,
    )
    page = rows[:size]
    next_cursor = _cursor_text(page[-1][0]) if len(rows) > size else None
    return json_answer(
        {
            "executions": [document for _, document in page],
            "next_cursor": next_cursor,
            "is_complete": is_complete,
        }
    )


@router.get("/v1/executions/{execution_id}")
async def get_execution(request: Request, execution_id: str, wait_s: str = "") -> Response:
    """One execution with its steps, calls, cost and approvals.

    With `wait_s` (30 at most) the answer comes when it has ended or waits for a person, or when the
    time is over.
    """
    context = context_of(request)
    who = context.principal(request, "executions")
    entry = await find(context, who.tenant, execution_id)
    if (patience_s := _patience_s(wait_s)) > 0:
        await _rest(entry, patience_s)
    return json_answer(execution_document(entry.view))


def _patience_s(text: str) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_S_MAX:
        detail = f"wait_s must be a number of seconds between 0 and {WAIT_S_MAX:.0f}."
        raise Problem(422, "invalid-wait", detail, field="wait_s")
    return seconds


async def _rest(entry: Entry, patience_s: float) -> None:
    """Returns when the execution has ended or waits for a person, or after `patience_s`."""
    wake = asyncio.Event()
    entry.waiters.add(wake)
    try:
        async with asyncio.timeout(patience_s):
            while not entry.view.is_terminal and entry.view.status not in RESTING:
                wake.clear()
                await wake.wait()
    except TimeoutError:
        return
    finally:
        entry.waiters.discard(wake)


@router.get("/v1/executions/{execution_id}/history")
async def history(
    request: Request, execution_id: str, after: str = "", limit: str = ""
) -> Response:
    """Its events in order. `after` is the last sequence of the page before."""
    context, entry = await _entry(request, execution_id)
    size = page_size(limit, default=HISTORY_PAGE_DEFAULT, page_max=HISTORY_PAGE_MAX)
    first = _sequence_after(after)
    bodies = await _bodies(context, entry, frozenset())
    page = bodies[first : first + size]
    next_after = first + size - 1 if first + size < len(bodies) else None
    text = b",".join(page)
    tail = orjson.dumps({"next_after": next_after, "total": len(bodies)})
    return Response(b'{"events":[' + text + b"]," + tail[1:], media_type="application/json")


@router.get("/v1/executions/{execution_id}/checkpoints")
async def checkpoints(request: Request, execution_id: str) -> Response:
    """The points of its history that hold framework state, in order."""
    context, entry = await _entry(request, execution_id)
    found = []
    for body in await _bodies(context, entry, CHECKPOINT_KINDS):
        event = orjson.loads(body)
        data = event["data"]
        found.append(
            {
                "checkpoint": data.get("checkpoint_id") or event["event_id"],
                "step": data.get("step", ""),
                "step_key": data["step_key"],
                "attempt": data.get("attempt"),
                "sequence": event["sequence"],
                "time_ms": event["time_ms"],
                "record_bytes": data["record_bytes"],
            }
        )
    return json_answer({"checkpoints": found})


@router.get("/v1/approvals", tags=["approvals"])
async def approvals(request: Request, status: str = "pending") -> Response:
    """Questions to people; those that wait for an answer unless `status` says otherwise."""
    context = context_of(request)
    who = context.principal(request, "executions")
    found = [
        approval_document(entry.view, approval)
        for entry in context.live.of_tenant(who.tenant)
        for approval in entry.view.approvals
        if approval.status == status and not (status == "pending" and entry.view.is_terminal)
    ]
    return json_answer({"approvals": found[:PAGE_MAX]})


@router.get("/v1/incidents", tags=["incidents"])
async def incidents(request: Request) -> Response:
    """Incidents. This version records none: failures end executions, recovery comes with a later
    release.
    """
    context_of(request).principal(request, "executions")
    return json_answer({"incidents": [], "next_cursor": None})


async def _entry(request: Request, execution_id: str) -> tuple[Context, Entry]:
    context = context_of(request)
    who = context.principal(request, "executions")
    return context, await find(context, who.tenant, execution_id)


async def _bodies(context: Context, entry: Entry, kinds: frozenset[str]) -> Sequence[bytes]:
    """Its own events as JSON, by sequence; those of `kinds` only, if given."""
    items = [*await earlier_events(context, entry), *entry.events]
    own = sorted(
        (item for item in items if item.sequence is not None), key=lambda item: item.sequence or 0
    )
    return [item.body for item in own if not kinds or item.kind in kinds]


def _row(view: ExecutionView) -> tuple[Cursor, dict[str, object]]:
    return (view.created_at_ms, view.execution_id), listed_document(view)


def _matches(
    view: ExecutionView, status: str, workflow: str, label: tuple[str, str] | None
) -> bool:
    if (status and view.status != status) or (workflow and view.workflow != workflow):
        return False
    if label is None:
        return True
    labels = parsed(view.labels_json)
    return isinstance(labels, dict) and labels.get(label[0]) == label[1]


def _label(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    name, separator, value = text.partition(":")
    if not separator or not name:
        raise Problem(422, "invalid-label", "label must be `name:value`.", field="label")
    return name, value


def _sequence_after(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Problem(422, "invalid-sequence", "after must be a sequence number.", field="after")
    return int(text) + 1


def _cursor_text(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(f"{cursor[0]}/{cursor[1]}".encode()).decode()


def _cursor(text: str) -> Cursor | None:
    if not text:
        return None
    try:
        created, separator, execution_id = base64.urlsafe_b64decode(text).decode().partition("/")
        if not separator:
            raise ValueError("no separator")
        return int(created), execution_id
    except ValueError as error:
        raise Problem(
            422, "invalid-cursor", "cursor is none that this API gave out.", field="cursor"
        ) from error
