"""What happens around every HTTP request: the body limit, and one line of metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.metrics import Metrics
from gateway.problems import Problem

UNMATCHED: Final = "unmatched"


class BodyLimit:
    """Refuses bodies over the limit with 413: by their announced length at once, else as soon as
    they exceed it.
    """

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what it sends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b"0"
        )
        if not announced.isdigit() or int(announced) > self._bytes_max:
            await self._problem().response()(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._bytes_max:
                raise self._problem()
            return message

        await self._app(scope, limited, send)

    def _problem(self) -> Problem:
        return Problem(
            413,
            "body-too-large",
            f"A body holds at most {self._bytes_max} bytes.",
            field="body",
            limit=self._bytes_max,
        )


class Measured:
    """Counts answers by route and status, and how long they took to begin."""

    def __init__(self, app: ASGIApp, metrics: Metrics, monotonic_ns: Callable[[], int]) -> None:
        self._app = app
        self._metrics = metrics
        self._monotonic_ns = monotonic_ns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and watch its answer begin."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_ns = self._monotonic_ns()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                took_ms = (self._monotonic_ns() - began_ns) / 1e6
                route = getattr(scope.get("route"), "path", UNMATCHED)
                self._metrics.count(
                    "omium_http_requests_total", route=route, status=str(message["status"])
                )
                self._metrics.observe_ms("omium_http_request_duration_ms", took_ms, route=route)
            await send(message)

        await self._app(scope, receive, watched)
