"""The port of an LLM provider: what it is asked, what it tells, and how it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Protocol

from streams.errors import OmiumError
from streams.metering.pricing import TokenUsage
from streams.routing.rules import ErrorClass

ERROR_CHARS_MAX: Final = 2000
DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCall:
    """One try of one call."""

    call_id: str
    idempotency_key: str
    """Sent on unchanged with every try: a provider that de-duplicates then works, and charges,
    once.
    """
    model: str
    request: bytes
    """The client's JSON body as it came."""
    body: Mapping[str, object]
    """The same, parsed."""
    is_stream: bool
    created_s: int


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The provider works: its answer has begun, though nothing of it can be sent on yet."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Server-sent events for the client, whole ones, never the final `[DONE]`."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The end. `body` is the JSON answer, or what follows the last piece of a streamed one."""

    body: bytes
    model: str
    usage: TokenUsage
    usage_source: Literal["provider", "counted"]


ProviderEvent = FirstToken | Piece | Answer


class LlmBackend(Protocol):
    """A provider. `ask` yields pieces while they come and ends with one `Answer`, or raises
    `ProviderError`.

    Closing the iterator early stops the provider's work where it can be stopped. The JSON answer,
    and pieces and rest of a streamed one joined, are what an OpenAI client expects.
    """

    def ask(self, call: ProviderCall) -> AsyncIterator[ProviderEvent]:
        """Asks once; never retries."""
        ...

    async def close(self) -> None:
        """Gives connections back."""
        ...


class ProviderError(OmiumError):
    """A provider did not answer."""

    error_class: ClassVar[ErrorClass] = "unavailable"
    http_status: int = 502
    is_retryable: ClassVar[bool] = True

    def __init__(
        self, message: str, *, http_status: int | None = None, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message[:ERROR_CHARS_MAX])
        self.http_status = http_status or type(self).http_status
        self.retry_after_ms = retry_after_ms


class Overloaded(ProviderError):
    """It refused for now: too many requests."""

    error_class = "overloaded"
    http_status = 429


class TimedOut(ProviderError):
    """No first token, no further one, or no end within the limit."""

    error_class = "timeout"
    http_status = 504


class Unavailable(ProviderError):
    """It cannot be reached, or broke."""


class BadRequest(ProviderError):
    """It says that the request is wrong; asking again changes nothing."""

    error_class: ClassVar[ErrorClass] = "bad_request"
    http_status = 400
    is_retryable = False


class Unsupported(BadRequest):
    """The request is fine, but this provider cannot do what it asks for."""

    error_class = "unsupported"
