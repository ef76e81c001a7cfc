"""The life of one LLM call: requested by the gateway, routed and answered by the router."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streams.messages import Event


class LlmEvent(Event):
    __slots__ = ()
    namespace: ClassVar[str] = "omium.llm"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCallRequested(LlmEvent):
    call_id: str
    idempotency_key: str
    """Sent on to the provider unchanged, however often the call is tried."""
    step: str
    agent: str
    api: str
    """`chat_completions`."""
    model: str
    is_stream: bool
    request: bytes
    """The client's JSON body as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCallRouted(LlmEvent):
    """The intent: it stands on the log before the provider is called."""

    call_id: str
    route: str
    """`local` or `upstream`."""
    provider: str
    model: str
    reason: str
    try_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCallCompleted(LlmEvent):
    call_id: str
    step: str
    agent: str
    route: str
    provider: str
    model: str
    is_stream: bool
    response: bytes
    """The JSON answer; for a streamed call the SSE bytes exactly as sent to the client, `[DONE]`
    included.
    """
    input_tokens: int
    """Cached ones included."""
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    usage_source: str
    """`provider`, or `counted` when the provider sent none."""
    cost_microusd: int
    price_book: str
    status: str
    """`settled`, or `unconfirmed` when an earlier try may have been paid as well."""
    first_token_ms: int
    latency_ms: int
    try_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCallFailed(LlmEvent):
    call_id: str
    step: str
    agent: str
    route: str
    provider: str
    model: str
    error_class: str
    http_status: int
    error_message: str
    is_retryable: bool
    retry_after_ms: int | None
    try_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCallChunk(LlmEvent):
    """A piece of a streamed answer on its way to the client; short-lived, the answer itself is
    `LlmCallCompleted`.
    """

    call_id: str
    sequence: int
    data: bytes
    """SSE bytes, whole `data: …` lines with their blank line."""
