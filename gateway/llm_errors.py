"""LLM errors: one document that is a problem (RFC 9457) and carries the `error` that OpenAI's
clients read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
from starlette.responses import Response

from gateway.problems import MEDIA_TYPE, Problem
from streams.llm.events import LlmCallFailed

TYPES: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "invalid_request_error", 413: "invalid_request_error", 422: "invalid_request_error",
    429: "rate_limit_error",
}  # fmt: skip
SAFE_TO_REPEAT: Final = frozenset({"overloaded", "unavailable"})
"""Failures after which a call without an idempotency key may be sent again by a client's own
retries.
"""


def refusal(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The response that says no."""
    document = problem.document()
    error = _error(problem.status_code, str(problem.detail), problem.code, problem.field)
    return Response(
        orjson.dumps(document | {"error": error}),
        problem.status_code,
        {**(problem.headers or {}), **(headers or {})},
        MEDIA_TYPE,
    )


def failure(failed: LlmCallFailed, *, has_key: bool) -> tuple[Problem, dict[str, str]]:
    """The problem of a call that no provider answered, and whether clients may try again."""
    status = failed.http_status if 400 <= failed.http_status <= 599 else 502
    code = "model-not-found" if failed.error_class == "no_provider" else failed.error_class
    retry_after_ms = failed.retry_after_ms
    problem = Problem(
        status,
        code.replace("_", "-"),
        failed.error_message,
        field="model" if failed.error_class == "no_provider" else "",
        retry_after_s=None if retry_after_ms is None else -(-retry_after_ms // 1000),
    )
    is_repeatable = failed.is_retryable and (has_key or failed.error_class in SAFE_TO_REPEAT)
    return problem, {"x-should-retry": "true" if is_repeatable else "false"}


def event_of(message: str, code: str) -> bytes:
    """The server-sent event that ends a stream which cannot be finished."""
    error = _error(502, message, code, "")
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def _error(status: int, message: str, code: str, field: str) -> dict[str, object]:
    return {
        "message": message,
        "type": TYPES.get(status, "server_error"),
        "param": field or None,
        "code": code.replace("-", "_"),
    }
