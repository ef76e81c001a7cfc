"""Reading a chat-completion request: bounded, checked where Omium must know, otherwise the
provider's affair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import orjson
from starlette.requests import ClientDisconnect, Request

from gateway.problems import Problem
from streams.topics import MESSAGE_BYTES_MAX

BODY_BYTES_MAX: Final = MESSAGE_BYTES_MAX
ENVELOPE_BYTES: Final = 16 * 1024
"""Room for the event around the body: together they must fit one record."""
HEADER_CHARS_MAX: Final = 255
_PRINTABLE: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One request, as far as Omium reads it."""

    raw: bytes
    sha256: str
    model: str
    is_stream: bool
    idempotency_key: str
    """Empty if the client sent none."""
    execution_id: str
    step: str
    agent: str


async def read_chat(request: Request) -> ChatRequest:
    """The request; raises the 400, 413 or 422 problem that names the field."""
    raw = await _body(request)
    document = _object(raw)
    model = document.get("model")
    if not isinstance(model, str) or not model or len(model) > HEADER_CHARS_MAX:
        raise Problem(400, "invalid-request", "model: must be a name.", field="model")
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Problem(
            400, "invalid-request", "messages: must be a list with a message.", field="messages"
        )
    is_stream = document.get("stream") or False
    if not isinstance(is_stream, bool):
        raise Problem(400, "invalid-request", "stream: must be true or false.", field="stream")
    return ChatRequest(
        raw=raw,
        sha256=sha256(raw).hexdigest(),
        model=model,
        is_stream=is_stream,
        idempotency_key=_header(request, "idempotency-key"),
        execution_id=_header(request, "x-omium-execution"),
        step=_header(request, "x-omium-step"),
        agent=_header(request, "x-omium-agent"),
    )


async def _body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > BODY_BYTES_MAX - ENVELOPE_BYTES:
        raise _too_large()
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > BODY_BYTES_MAX - ENVELOPE_BYTES:
                raise _too_large()
            parts.append(part)
    except ClientDisconnect as error:
        raise Problem(400, "incomplete-body", "The body broke off.", field="body") from error
    return b"".join(parts)


def _too_large() -> Problem:
    limit = BODY_BYTES_MAX - ENVELOPE_BYTES
    return Problem(413, "body-too-large", f"A body holds {limit} bytes.", field="body", limit=limit)


def _object(raw: bytes) -> Mapping[str, object]:
    try:
        document = orjson.loads(raw)
    except ValueError as error:
        raise Problem(
            400, "invalid-json", f"The body is not valid JSON: {error}.", field="body"
        ) from error
    if not isinstance(document, dict):
        raise Problem(400, "invalid-json", "The body is not a JSON object.", field="body")
    return document


def _header(request: Request, name: str) -> str:
    value = request.headers.get(name, "")
    if value and (len(value) > HEADER_CHARS_MAX or not _PRINTABLE.fullmatch(value)):
        raise Problem(
            400,
            "invalid-header",
            f"{name}: at most {HEADER_CHARS_MAX} printable characters.",
            field=name,
        )
    return value
