"""The live stream on a WebSocket, with signals inwards."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import orjson
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.auth import KEY_PREFIX, Principal, authenticate
from gateway.commands import append
from gateway.context import Context, context_of
from gateway.events import position_of
from gateway.fanout import Lagged, follow
from gateway.history import earlier_events, find
from gateway.live import Entry
from gateway.models import SignalRequest, execution_document
from gateway.problems import Problem, problem_of
from streams.execution.commands import SignalExecution
from streams.execution.position import Position
from streams.messages import event_id

log = logging.getLogger("omium.gateway")

router = APIRouter()

SEND_TIMEOUT_S: Final = 20.0
INWARD_CHARS_MAX: Final = 256 * 1024
SUBPROTOCOL: Final = "omium.v1"
CLOSE_PROBLEM: Final = 4000
"""4000 + the HTTP status is the close code of a refusal: 4401, 4404, 4422."""


@router.websocket("/v1/executions/{execution_id}/stream")
async def stream(socket: WebSocket, execution_id: str) -> None:
    """Send the execution's envelopes, take `{"signal": {"name", "payload"}}`; closes 1000 after the
    end.
    """
    context = context_of(socket)
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None
    await socket.accept(subprotocol=subprotocol)
    try:
        who = _principal(context, socket)
        resume = position_of(socket.query_params.get("last_event_id", ""))
        entry = await find(context, who.tenant, execution_id)
        with context.streams.one():
            await _serve(context, socket, who, entry, resume)
    except WebSocketDisconnect:
        log.debug("a client of %s has gone", execution_id)
    except Exception as error:
        await _refuse(socket, problem_of(error), error)


def _principal(context: Context, socket: WebSocket) -> Principal:
    """By header; a browser, which cannot set one here, sends its key as second subprotocol."""
    offered = [p for p in socket.scope.get("subprotocols", ()) if p.startswith(KEY_PREFIX)]
    if offered and "authorization" not in socket.headers:
        return authenticate({"authorization": f"Bearer {offered[0]}"}, context.keys, "executions")
    return context.principal(socket, "executions")


async def _serve(
    context: Context, socket: WebSocket, who: Principal, entry: Entry, resume: Position
) -> None:
    outward = asyncio.create_task(_outward(context, socket, entry, resume))
    inward = asyncio.create_task(_inward(context, socket, who, entry))
    try:
        await asyncio.wait({outward, inward}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        outward.cancel()
        inward.cancel()
        results = await asyncio.gather(outward, inward, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _outward(context: Context, socket: WebSocket, entry: Entry, resume: Position) -> None:
    position = resume
    try:
        async for batch in follow([entry], resume, await earlier_events(context, entry)):
            for item, position in batch:
                text = f'{{"id":"{position}",{item.body[1:].decode()}'
                await asyncio.wait_for(socket.send_text(text), SEND_TIMEOUT_S)
    except Lagged as error:
        context.metrics.count("omium_gateway_streams_dropped_total")
        await _send(socket, {"type": "dropped", "reason": str(error), "id": str(position)})
        await socket.close(1013, "too slow")
        return
    await _send(
        socket, {"type": "end", "id": str(position), "execution": execution_document(entry.view)}
    )
    await socket.close(1000)


async def _inward(context: Context, socket: WebSocket, who: Principal, entry: Entry) -> None:
    while True:
        text = await socket.receive_text()
        try:
            await _signal(context, who, entry, text)
        except Problem as problem:
            await _send(socket, {"type": "problem", "problem": problem.document()})


async def _signal(context: Context, who: Principal, entry: Entry, text: str) -> None:
    if len(text) > INWARD_CHARS_MAX:
        raise Problem(
            413,
            "signal-too-large",
            "The signal is too large.",
            field="signal",
            limit=INWARD_CHARS_MAX,
        )
    if entry.view.is_terminal:
        raise Problem(
            409, "execution-ended", f"The execution is {entry.view.status} already.", field="signal"
        )
    try:
        message = orjson.loads(text)
        asked = SignalRequest.model_validate(
            message["signal"] if isinstance(message, dict) else message
        )
    except (orjson.JSONDecodeError, KeyError, ValidationError) as error:
        raise Problem(
            422, "invalid-signal", 'Send {"signal": {"name", "payload"}}.', field="signal"
        ) from error
    execution_id = entry.view.execution_id
    await append(
        context,
        SignalExecution(
            event_id=event_id(who.tenant, execution_id, "", 0, "SignalExecution", context.new_id()),
            tenant=who.tenant,
            execution_id=execution_id,
            at_ms=context.now_ms(),
            name=asked.name,
            payload_json=orjson.dumps(asked.payload).decode(),
        ),
    )


async def _send(socket: WebSocket, document: dict[str, object]) -> None:
    await asyncio.wait_for(socket.send_text(orjson.dumps(document).decode()), SEND_TIMEOUT_S)


async def _refuse(socket: WebSocket, problem: Problem, error: Exception) -> None:
    if problem.status_code == 500:
        log.error("a WebSocket failed", exc_info=error)
    if socket.application_state is not WebSocketState.CONNECTED:
        return
    try:
        await _send(socket, {"type": "problem", "problem": problem.document()})
        await socket.close(CLOSE_PROBLEM + problem.status_code, problem.code)
    except (RuntimeError, TimeoutError, WebSocketDisconnect):
        log.debug("the client did not wait for the reason")
