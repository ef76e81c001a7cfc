"""Any OpenAI-compatible upstream by URL. The client's body goes on as it came; unknown fields are
its own affair.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import orjson

from processors.effects.llm.openai_shapes import counted, usage_of, wants_usage
from processors.effects.llm.port import (
    DONE,
    Answer,
    BadRequest,
    Overloaded,
    Piece,
    ProviderCall,
    ProviderError,
    ProviderEvent,
    TimedOut,
    Unavailable,
)
from streams.metering.pricing import TokenUsage

CONNECT_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 256
ANSWER_BYTES_MAX: Final = 3 * 1024 * 1024
"""Largest answer taken, streamed or not: it must fit one record of the log with its metadata."""
RETRY_AFTER_MS_MAX: Final = 3_600_000
DATA: Final = b"data:"


class OpenAiCompatibleBackend:
    """One upstream. `base_url` ends in `/v1`, as OpenAI's clients write it."""

    def __init__(self, base_url: str, *, api_key: str) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._api_key = api_key
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, call: ProviderCall) -> AsyncIterator[ProviderEvent]:
        """Posts once. A connection that breaks before an answer is `Unavailable`, whatever the
        upstream did.
        """
        try:
            async with self._connected().post(
                self._url, data=body_of(call), headers=self._headers(call)
            ) as response:
                if response.status != 200:
                    raise await _refusal(response)
                if not call.is_stream:
                    yield _answer(call, await _read(response))
                    return
                async for event in _stream(call, response):
                    yield event
        except TimeoutError as error:
            raise TimedOut("the upstream did not answer in time") from error
        except aiohttp.ClientError as error:
            raise Unavailable(f"upstream: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _headers(self, call: ProviderCall) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._api_key}",
            "Content-Type": "application/json",
            "Idempotency-Key": call.idempotency_key,
        }

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            # The router bounds the whole call and the wait for its first token.
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(
                timeout=limits, connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
            )
        return self._session


def body_of(call: ProviderCall) -> bytes:
    """The client's bytes, unless the model is another one or a stream must be made to tell its
    usage.
    """
    changes: dict[str, object] = {}
    if call.body.get("model") != call.model:
        changes["model"] = call.model
    if call.is_stream and not wants_usage(call.body):
        options = call.body.get("stream_options")
        kept = dict(options) if isinstance(options, Mapping) else {}
        changes["stream_options"] = kept | {"include_usage": True}
    return orjson.dumps({**call.body, **changes}) if changes else call.request


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise Unavailable(f"the upstream's answer is larger than {ANSWER_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)


def _answer(call: ProviderCall, body: bytes) -> Answer:
    document = _object(body)
    if document is None:
        raise Unavailable("the upstream's answer is not a JSON object")
    usage = usage_of(document)
    return _ended(call, body, document, usage, len(body))


async def _stream(
    call: ProviderCall, response: aiohttp.ClientResponse
) -> AsyncIterator[ProviderEvent]:
    """Events as they come; the usage event is the client's only if it asked for one."""
    is_usage_wanted = wants_usage(call.body)
    usage: TokenUsage | None = None
    last: Mapping[str, object] = {}
    answer_bytes = 0
    async for event in _events(response):
        answer_bytes += len(event)
        if event == DONE:
            yield _ended(call, DONE, last, usage, answer_bytes)
            return
        document = _object(event.removeprefix(DATA)) or {}
        if "error" in document:
            raise Unavailable(f"the upstream broke off: {document['error']}")
        last = document if document.get("model") else last
        found = usage_of(document)
        usage = found or usage
        if found is None or document.get("choices") or is_usage_wanted:
            yield Piece(event)
    raise Unavailable("the upstream ended the stream before it was done")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole server-sent events in the form `data: …` and a blank line; comments are dropped."""
    pending, total = b"", 0
    async for part in response.content.iter_any():
        total += len(part)
        if total > ANSWER_BYTES_MAX:
            raise Unavailable(f"the upstream's answer is larger than {ANSWER_BYTES_MAX} bytes")
        pending += part.replace(b"\r\n", b"\n")
        *events, pending = pending.split(b"\n\n")
        for event in events:
            lines = [line for line in event.split(b"\n") if line.startswith(DATA)]
            if lines:
                yield b"\n".join(lines) + b"\n\n"


def _ended(
    call: ProviderCall,
    body: bytes,
    document: Mapping[str, object],
    usage: TokenUsage | None,
    answer_bytes: int,
) -> Answer:
    model = document.get("model")
    return Answer(
        body=body,
        model=model if isinstance(model, str) and model else call.model,
        usage=usage or counted(len(call.request), answer_bytes),
        usage_source="counted" if usage is None else "provider",
    )


async def _refusal(response: aiohttp.ClientResponse) -> ProviderError:
    message = _error_message(await _read(response)) or f"HTTP {response.status}"
    status, retry_after_ms = response.status, retry_after(response.headers)
    if status == 429 or status == 503:
        return Overloaded(message, http_status=status, retry_after_ms=retry_after_ms)
    if status in (408, 504):
        return TimedOut(message, http_status=status, retry_after_ms=retry_after_ms)
    if 400 <= status < 500:
        return BadRequest(message, http_status=status)
    return Unavailable(message, http_status=status, retry_after_ms=retry_after_ms)


def retry_after(headers: Mapping[str, str], now_s: float | None = None) -> int | None:
    """What `Retry-After` (seconds or a date) asks for, in milliseconds, bounded; `None` without
    one.
    """
    text = headers.get("retry-after-ms") or headers.get("Retry-After")
    if not text:
        return None
    try:
        wait_ms = float(text) if "retry-after-ms" in headers else float(text) * 1000
    except ValueError:
        wait_ms = _until(text, now_s)
    return int(min(max(0.0, wait_ms), RETRY_AFTER_MS_MAX))


def _until(text: str, now_s: float | None) -> float:
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0
    return (moment - now_s) * 1000 if now_s is not None else 1000.0


def _error_message(body: bytes) -> str:
    document = _object(body) or {}
    error = document.get("error")
    if isinstance(error, Mapping):
        return str(error.get("message", error))
    return str(error or document.get("detail") or body[:500].decode(errors="replace"))


def _object(text: bytes) -> Mapping[str, object] | None:
    try:
        document = orjson.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
