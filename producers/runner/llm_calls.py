"""LLM calls under the journal, by a class-level patch of httpx's (and httpx2's) `Client.send` and
`AsyncClient.send`.

Every OpenAI- or Anthropic-shaped POST is announced, carries the call's id as `Idempotency-Key` and
goes to the gateway, which holds the answer: a resumed execution sends the same key and gets the
recorded answer. While the gateway restarts, the call is repeated under its key for up to two
minutes.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import urlsplit

import orjson

from producers.runner import session as sessions
from producers.runner.llm_stream import AsyncReplayStream, SyncReplayStream
from producers.runner.protocol import Frame
from producers.runner.render import canonical
from producers.runner.session import Session, denied, request_hash

if TYPE_CHECKING:
    import httpx

ROUTES: Final = ("/chat/completions", "/responses", "/embeddings", "/messages")
RETRY_STATUSES: Final = frozenset({502, 503, 504})
RIDE_OUT_S: Final = 120.0
"""How long a call is repeated while the gateway cannot be reached or says that it cannot serve."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
_MARK: Final = "_omium_patched"

_last_calls: ContextVar[Mapping[str, int] | None] = ContextVar("omium_last_calls", default=None)
"""Request → its latest ordinal in this thread or task: an SDK's own retry is the same call
again.
"""


class HttpModule(Protocol):
    """What is used of httpx and httpx2, which share their interface."""

    Client: type[httpx.Client]
    AsyncClient: type[httpx.AsyncClient]
    SyncByteStream: type[httpx.SyncByteStream]
    AsyncByteStream: type[httpx.AsyncByteStream]
    TransportError: type[Exception]
    URL: type[httpx.URL]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCall:
    """One announced call and what its repetitions share."""

    call_id: str
    header: Mapping[str, object]
    module: HttpModule


def patch() -> None:
    """Puts every httpx client of this process under the journal; a second call changes nothing."""
    for name in ("httpx", "httpx2"):
        try:
            module = cast("HttpModule", importlib.import_module(name))
        except ImportError:
            continue
        if not getattr(module.Client.send, _MARK, False):
            _patch_sync(module)
            _patch_async(module)


def _patch_sync(module: HttpModule) -> None:
    send: Callable[..., httpx.Response] = module.Client.send
    base = module.SyncByteStream
    replay = cast("Callable[..., Any]", type("SyncReplay", (SyncReplayStream, base), {}))

    @wraps(send)
    def journaled(
        self: httpx.Client, request: httpx.Request, *, stream: bool = False, **kwargs: Any
    ) -> httpx.Response:
        session = sessions.current()
        if session is None or not is_llm(request, session):
            return send(self, request, stream=stream, **kwargs)
        request.read()
        call = announce(session, request, module)
        check(session.intend("llm_intended", call.header), session)
        _address(request, call, session)

        def again() -> httpx.Response:
            return _send(lambda: send(self, request, stream=stream, **kwargs), call)

        response = again()
        if stream and response.is_success:
            response.stream = replay(response, again, module.TransportError)
        return response

    setattr(journaled, _MARK, True)
    module.Client.send = journaled  # type: ignore[method-assign]


def _patch_async(module: HttpModule) -> None:
    send: Callable[..., Awaitable[httpx.Response]] = module.AsyncClient.send
    base = module.AsyncByteStream
    replay = cast("Callable[..., Any]", type("AsyncReplay", (AsyncReplayStream, base), {}))

    @wraps(send)
    async def journaled(
        self: httpx.AsyncClient, request: httpx.Request, *, stream: bool = False, **kwargs: Any
    ) -> httpx.Response:
        session = sessions.current()
        if session is None or not is_llm(request, session):
            return await send(self, request, stream=stream, **kwargs)
        await request.aread()
        call = announce(session, request, module)
        check(await session.intend_async("llm_intended", call.header), session)
        _address(request, call, session)

        async def again() -> httpx.Response:
            return await _send_async(lambda: send(self, request, stream=stream, **kwargs), call)

        response = await again()
        if stream and response.is_success:
            response.stream = replay(response, again, module.TransportError)
        return response

    setattr(journaled, _MARK, True)
    module.AsyncClient.send = journaled  # type: ignore[method-assign]


def is_llm(request: httpx.Request, session: Session) -> bool:
    """Whether the request is an LLM call of the user's that Omium carries."""
    if request.method != "POST" or not request.url.path.endswith(ROUTES):
        return False
    llm = session.options.get("llm")
    passed = llm.get("passthrough_hosts", ()) if isinstance(llm, Mapping) else ()
    return request.url.host not in passed


def announce(session: Session, request: httpx.Request, module: HttpModule) -> LlmCall:
    """The call's identity and the frame that announces it."""
    info = session.locate()
    route = _route(request.url.path)
    digest = request_hash(route.encode(), _canonical_body(request.content))
    remembered = f"{info.step_key}\x1f{info.attempt}\x1f{digest}"
    ordinal = _ordinal(session, request, remembered, digest)
    call_id = session.call_id(info, "llm", digest, ordinal)
    session.used(info, call_id)
    header = {
        "call_id": call_id,
        "step": info.step,
        "step_key": info.step_key,
        "agent": info.agent,
        "attempt": info.attempt,
        "model": _model(request.content),
        "request_hash": digest,
        "ordinal": ordinal,
    }
    request.headers["x-omium-execution"] = session.start["execution_id"]
    request.headers["x-omium-step"] = _ascii(info.step)
    request.headers["x-omium-agent"] = _ascii(info.agent)
    return LlmCall(call_id=call_id, header=header, module=module)


def check(reply: Frame, session: Session) -> None:
    """Returns when the call may be made; raises otherwise."""
    match reply.text("decision"):
        case "go" | "recorded" | "reconcile":
            return
        case "deny":
            raise denied(reply, "the LLM call")
        case decision:
            session.check()
            raise RuntimeError(f"the worker answered {decision!r} to an LLM call")


def _ordinal(session: Session, request: httpx.Request, remembered: str, digest: str) -> int:
    last = _last_calls.get() or {}
    is_retry = request.headers.get("x-stainless-retry-count", "0") != "0"
    if is_retry and remembered in last:
        return last[remembered]
    ordinal = session.next_ordinal(session.locate(), "llm", digest)
    _last_calls.set({remembered: ordinal})
    return ordinal


def _address(request: httpx.Request, call: LlmCall, session: Session) -> None:
    """Points the request at the gateway, under its key."""
    gateway = urlsplit(session.start["gateway_url"])
    route = _route(request.url.path)
    if (request.url.host, request.url.port) != (gateway.hostname, gateway.port):
        request.headers["x-omium-original-host"] = _ascii(request.url.host)
        target = session.start["gateway_url"].rstrip("/") + route
        request.url = call.module.URL(target)
        request.headers["host"] = gateway.netloc
    key = session.start["api_key"]
    request.headers["authorization"] = f"Bearer {key}"
    if "x-api-key" in request.headers:
        request.headers["x-api-key"] = key
    request.headers["idempotency-key"] = call.call_id
    # A broken stream is compared byte by byte with its repetition.
    request.headers["accept-encoding"] = "identity"


def _send(send: Callable[[], httpx.Response], call: LlmCall) -> httpx.Response:
    give_up_s = time.monotonic() + RIDE_OUT_S
    backoff_s = BACKOFF_FIRST_S
    while True:
        try:
            response = send()
        except call.module.TransportError as error:
            if not _rides_out(error, give_up_s - backoff_s):
                raise
        else:
            if response.status_code not in RETRY_STATUSES or _is_late(give_up_s - backoff_s):
                return response
            response.close()
            backoff_s = max(backoff_s, _retry_after_s(response))
        time.sleep(_jittered(backoff_s))
        backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)


async def _send_async(
    send: Callable[[], Awaitable[httpx.Response]], call: LlmCall
) -> httpx.Response:
    give_up_s = time.monotonic() + RIDE_OUT_S
    backoff_s = BACKOFF_FIRST_S
    while True:
        try:
            response = await send()
        except call.module.TransportError as error:
            if not _rides_out(error, give_up_s - backoff_s):
                raise
        else:
            if response.status_code not in RETRY_STATUSES or _is_late(give_up_s - backoff_s):
                return response
            await response.aclose()
            backoff_s = max(backoff_s, _retry_after_s(response))
        await asyncio.sleep(_jittered(backoff_s))
        backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)


def _rides_out(error: Exception, latest_s: float) -> bool:
    """Whether the gateway may be back soon. The user's own time-outs are the user's to see, except
    on connecting.
    """
    name = type(error).__name__
    is_users_timeout = name.endswith("Timeout") and name != "ConnectTimeout"
    return not is_users_timeout and not _is_late(latest_s)


def _is_late(latest_s: float) -> bool:
    return time.monotonic() > latest_s


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return min(float(response.headers.get("retry-after", "0")), 10.0)
    except ValueError:
        return 0.0


def _jittered(backoff_s: float) -> float:
    return backoff_s * (0.75 + random.random() / 2)


def _route(path: str) -> str:
    return next(route for route in ROUTES if path.endswith(route))


def _canonical_body(body: bytes) -> bytes:
    try:
        return canonical(orjson.loads(body))
    except orjson.JSONDecodeError:
        return body


def _model(body: bytes) -> str:
    try:
        model = orjson.loads(body).get("model", "")
    except (orjson.JSONDecodeError, AttributeError):
        return ""
    return model if isinstance(model, str) else ""


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:256]
