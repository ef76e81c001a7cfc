"""Builders of LLM events."""

from __future__ import annotations

from streams.llm.events import LlmCallCompleted, LlmCallFailed, LlmCallRequested, LlmCallRouted
from streams.messages import call_id
from streams.routing.call import completion_id, failure_id, request_id, routed_id

TENANT, EXECUTION, STEP = "acme", "e1", "quote"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def requested(
    key: str = "k1",
    nonce: str = "n1",
    body: bytes = BODY,
    *,
    model: str = "m",
    stream: bool = False,
) -> LlmCallRequested:
    call = call_id(TENANT, key)
    return LlmCallRequested(
        event_id=request_id(TENANT, EXECUTION, STEP, call, nonce),
        tenant=TENANT,
        execution_id=EXECUTION,
        at_ms=1_000_000,
        call_id=call,
        idempotency_key=key,
        step=STEP,
        agent="a",
        api="chat_completions",
        model=model,
        is_stream=stream,
        request=body,
    )


def routed(
    request: LlmCallRequested, *, try_number: int = 1, route: str = "upstream", epoch: int = 0
) -> LlmCallRouted:
    return LlmCallRouted(
        event_id=routed_id(request, try_number),
        tenant=request.tenant,
        execution_id=request.execution_id,
        epoch=epoch,
        call_id=request.call_id,
        route=route,
        provider=route,
        model="m",
        reason="local_first",
        try_number=try_number,
    )


def completed(
    request: LlmCallRequested, response: bytes = b"{}", *, epoch: int = 0
) -> LlmCallCompleted:
    return LlmCallCompleted(
        event_id=completion_id(
            request.tenant, request.execution_id, request.step, request.call_id, request.request
        ),
        tenant=request.tenant,
        execution_id=request.execution_id,
        epoch=epoch,
        call_id=request.call_id,
        step=request.step,
        agent=request.agent,
        route="upstream",
        provider="upstream",
        model="m",
        is_stream=request.is_stream,
        response=response,
        input_tokens=1,
        cached_tokens=0,
        output_tokens=1,
        reasoning_tokens=0,
        usage_source="provider",
        cost_microusd=1,
        price_book="t",
        status="settled",
        first_token_ms=1,
        latency_ms=1,
        try_number=1,
    )


def failed(request: LlmCallRequested, *, epoch: int = 0) -> LlmCallFailed:
    return LlmCallFailed(
        event_id=failure_id(request),
        tenant=request.tenant,
        execution_id=request.execution_id,
        epoch=epoch,
        call_id=request.call_id,
        step=request.step,
        agent=request.agent,
        route="upstream",
        provider="upstream",
        model="m",
        error_class="overloaded",
        http_status=429,
        error_message="full",
        is_retryable=True,
        retry_after_ms=1000,
        try_number=1,
    )
