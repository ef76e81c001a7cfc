"""Errors as RFC 9457 `application/problem+json`: what happened, to which field, which limit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from streams.errors import Rejected, Retryable

log = logging.getLogger("omium.gateway")

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:omium:problem:"
DETAIL_CHARS_MAX: Final = 2000
"""A detail may quote what the client sent; it never grows with it."""

TITLES: Final = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Content too large",
    415: "Unsupported media type",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Service unavailable",
    504: "Timeout",
}


class Problem(HTTPException):
    """An answer that says no. `code` is stable for machines and ends the problem's type."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str = "",
        limit: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, detail=detail, headers=headers)
        self.code = code
        self.field = field
        self.limit = limit

    def document(self) -> dict[str, object]:
        """The members of the problem, those without a value left out."""
        members: dict[str, object] = {
            "type": TYPE_PREFIX + self.code,
            "title": TITLES.get(self.status_code, "Error"),
            "status": self.status_code,
            "detail": str(self.detail)[:DETAIL_CHARS_MAX],
        }
        if self.field:
            members["field"] = self.field
        if self.limit is not None:
            members["limit"] = self.limit
        return members

    def response(self) -> Response:
        """The problem as an HTTP response."""
        return Response(
            orjson.dumps(self.document()), self.status_code, dict(self.headers or {}), MEDIA_TYPE
        )


def problem_of(error: Exception) -> Problem:
    """The problem that an error means to a client; unexpected ones tell nothing of the inside."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid(error.errors())
        case HTTPException():
            code = TITLES.get(error.status_code, "error").lower().replace(" ", "-")
            return Problem(error.status_code, code, str(error.detail))
        case Rejected():
            return Problem(422, error.code.replace("_", "-"), str(error), field=error.field)
        case Retryable():
            retry_after_s = max(1, error.retry_after_ms // 1000)
            return Problem(503, "unavailable", str(error), retry_after_s=retry_after_s)
        case _:
            return Problem(500, "internal", "Something failed inside Omium; its log says what.")


async def answer(request: Request, error: Exception) -> Response:
    """The response for an error raised anywhere in a route."""
    problem = problem_of(error)
    if problem.status_code == 500:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem.response()


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    for kind in (HTTPException, RequestValidationError, Rejected, Retryable, Exception):
        app.add_exception_handler(kind, answer)


def _invalid(errors: Sequence[Mapping[str, object]]) -> Problem:
    first = errors[0] if errors else {}
    location = first.get("loc")
    path = [str(part) for part in location] if isinstance(location, tuple | list) else []
    if first.get("type") == "json_invalid":
        context = first.get("ctx")
        reason = context.get("error", "") if isinstance(context, Mapping) else ""
        return Problem(400, "invalid-json", f"The body is not valid JSON: {reason}.", field="body")
    field = ".".join(path[1:] or path) or "body"
    return Problem(422, "invalid-request", f"{field}: {first.get('msg', 'invalid')}.", field=field)
