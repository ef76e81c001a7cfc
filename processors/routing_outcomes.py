"""The events that the routing processor writes about one call."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from processors.effects.llm.port import BadRequest, Overloaded, ProviderError, TimedOut
from streams.llm.events import LlmCallFailed, LlmCallRequested, LlmCallRouted
from streams.routing.call import failure_id, routed_id
from streams.routing.rules import Candidate

INTERNAL: Final = "internal"


def internal_failure(request: LlmCallRequested, error: Exception, try_number: int) -> LlmCallFailed:
    """The outcome when routing itself broke: the client learns that it was us, not why."""
    reason = ProviderError(f"routing failed: {type(error).__name__}", http_status=500)
    return replace(failed(request, None, reason, try_number), error_class=INTERNAL)


def overloaded_failure(request: LlmCallRequested, retry_after_ms: int) -> LlmCallFailed:
    """The outcome of a request that found no room."""
    reason = Overloaded(
        "too many calls are waiting", http_status=429, retry_after_ms=retry_after_ms
    )
    return failed(request, None, reason, 0)


def expired_failure(request: LlmCallRequested) -> LlmCallFailed:
    """The outcome of a request that nobody waits for any more."""
    return failed(request, None, TimedOut("the request expired before it was routed"), 0)


def failure_of_joined(event: LlmCallFailed, request: LlmCallRequested) -> LlmCallFailed:
    """The same failure for another request that had joined the call."""
    return replace(event, event_id=failure_id(request))


def routed(request: LlmCallRequested, candidate: Candidate, try_number: int) -> LlmCallRouted:
    """The intent of one try."""
    return LlmCallRouted(
        event_id=routed_id(request, try_number),
        tenant=request.tenant,
        execution_id=request.execution_id,
        call_id=request.call_id,
        route=candidate.provider.route,
        provider=candidate.provider.name,
        model=candidate.model,
        reason=candidate.reason,
        try_number=try_number,
    )


def failed(
    request: LlmCallRequested,
    candidate: Candidate | None,
    error: ProviderError,
    try_number: int,
    is_byte_sent: bool = False,
) -> LlmCallFailed:
    """The outcome of a request that no provider answered; `aborted` if the client saw a part."""
    return LlmCallFailed(
        event_id=failure_id(request),
        tenant=request.tenant,
        execution_id=request.execution_id,
        call_id=request.call_id,
        step=request.step,
        agent=request.agent,
        route=candidate.provider.route if candidate else "",
        provider=candidate.provider.name if candidate else "",
        model=candidate.model if candidate else request.model,
        error_class="aborted" if is_byte_sent else error.error_class,
        http_status=error.http_status,
        error_message=str(error),
        is_retryable=error.is_retryable,
        retry_after_ms=error.retry_after_ms,
        try_number=try_number,
    )


def no_provider(request: LlmCallRequested, try_number: int) -> LlmCallFailed:
    """The outcome when the model is served by nobody."""
    message = f"The model {request.model!r} does not exist here: no provider serves it."
    error = BadRequest(message, http_status=404)
    return replace(failed(request, None, error, try_number), error_class="no_provider")
