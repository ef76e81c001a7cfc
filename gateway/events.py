"""Server-sent events: executions followed live from any log position, without loss or repeat."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

import orjson
from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from gateway.context import Context, context_of
from gateway.envelope import Stored
from gateway.fanout import Lagged, follow
from gateway.history import earlier_events, find
from gateway.limits import EXECUTIONS_PER_STREAM_MAX
from gateway.live import Entry
from gateway.models import execution_document
from gateway.problems import Problem
from streams.execution.position import Position

log = logging.getLogger("omium.gateway")

router = APIRouter(tags=["live"])

SEND_TIMEOUT_S: Final = 20.0
"""A client that takes nothing for this long is let go; it comes back with its last position."""
RETRY_MS: Final = 500


@router.get("/v1/executions/{execution_id}/events", response_class=EventSourceResponse)
async def execution_events(
    request: Request, execution_id: str, last_event_id: str = "", follow: bool = True
) -> Response:
    """Follow one execution: its events from the first, or after `Last-Event-ID`; `end` closes the
    stream.

    With `follow=false` the stream closes once it has told what is known now.
    """
    context = context_of(request)
    who = context.principal(request, "executions")
    entry = await find(context, who.tenant, execution_id)
    return await _stream(context, request, [entry], last_event_id, is_live=follow)


@router.get("/v1/events", response_class=EventSourceResponse)
async def events(request: Request, executions: str, last_event_id: str = "") -> Response:
    """Follow several executions in one stream, `executions=a,b`. It closes when all have ended."""
    context = context_of(request)
    who = context.principal(request, "executions")
    wanted = list(dict.fromkeys(part for part in executions.split(",") if part))
    if not 1 <= len(wanted) <= EXECUTIONS_PER_STREAM_MAX:
        raise Problem(
            422,
            "invalid-executions",
            f"executions must name 1 to {EXECUTIONS_PER_STREAM_MAX} executions.",
            field="executions",
            limit=EXECUTIONS_PER_STREAM_MAX,
        )
    entries = [await find(context, who.tenant, execution_id) for execution_id in wanted]
    return await _stream(context, request, entries, last_event_id)


async def _stream(
    context: Context,
    request: Request,
    entries: Sequence[Entry],
    last_event_id: str,
    *,
    is_live: bool = True,
) -> Response:
    context.streams.require()
    resume = position_of(request.headers.get("last-event-id", "") or last_event_id)
    earlier = [item for entry in entries for item in await earlier_events(context, entry)]
    return EventSourceResponse(
        _frames(context, entries, resume, earlier, is_live),
        ping=max(1, int(context.config.heartbeat_s)),
        ping_message_factory=lambda: ServerSentEvent(comment="heartbeat"),
        send_timeout=SEND_TIMEOUT_S,
        sep="\n",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def position_of(text: str) -> Position:
    """The position that a client sent back; raises the 422 problem."""
    try:
        return Position.parse(text)
    except ValueError as error:
        raise Problem(
            422,
            "invalid-last-event-id",
            f"{error}; send an id that this API gave out.",
            field="Last-Event-ID",
        ) from error


async def _frames(
    context: Context,
    entries: Sequence[Entry],
    resume: Position,
    earlier: Sequence[Stored],
    is_live: bool,
) -> AsyncIterator[bytes]:
    with context.streams.one():
        yield b"retry: %d\n\n" % RETRY_MS
        position = resume
        try:
            async for batch in follow(entries, resume, earlier, is_live=is_live):
                position = batch[-1][1]
                yield b"".join(frame(item.kind, str(after), item.body) for item, after in batch)
        except Lagged as error:
            context.metrics.count("omium_gateway_streams_dropped_total")
            reason = orjson.dumps({"reason": str(error), "last_event_id": str(position)})
            yield frame("dropped", str(position), reason)
            return
        for entry in entries:
            yield frame("end", str(position), orjson.dumps(execution_document(entry.view)))


def frame(kind: str, position: str, body: bytes) -> bytes:
    """One SSE event. JSON from orjson holds no line breaks."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (position.encode(), kind.encode(), body)
