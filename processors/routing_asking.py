"""Asking for one call: candidate after candidate, each announced on the log before it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

import orjson

from processors.effects.llm.openai_shapes import has_tools
from processors.effects.llm.port import (
    Answer,
    BadRequest,
    LlmBackend,
    Overloaded,
    Piece,
    ProviderCall,
    ProviderError,
    ProviderEvent,
    TimedOut,
)
from processors.routing_outcomes import failed, no_provider, routed
from streams.llm.events import LlmCallCompleted, LlmCallFailed, LlmCallRequested, LlmCallRouted
from streams.metering.pricing import PriceBook
from streams.routing.call import Ask, completion_id, settlement
from streams.routing.rules import (
    Candidate,
    Provider,
    Question,
    Veto,
    candidates,
    fallback_reason,
    may_ask_next,
    no_veto,
)

T = TypeVar("T")
RESTART_POLL_MS: Final = 1000
Outcome = LlmCallCompleted | LlmCallFailed
Announce = Callable[[LlmCallRouted], Awaitable[None]]
"""Returns when the intent stands on the log."""
Relay = Callable[[bytes], None]
"""Takes server-sent events for the client."""


class Clock(Protocol):
    """Where a processor gets its time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds of a clock that never jumps."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingLimits:
    """How long an answer may take, and how many share a local model."""

    local_first_token_ms: int = 60_000
    """Before the local model counts as stuck and nobody else can answer. A CPU reads 50-100 tokens
    a second.
    """
    local_first_token_with_upstream_ms: int = 20_000
    upstream_first_token_ms: int = 60_000
    stall_ms: int = 60_000
    """Between two pieces of one answer."""
    call_ms: int = 300_000
    local_in_flight_max: int = 4
    """What the local model takes at once; more would be refused there."""
    local_waiting_max: int = 64
    """Calls that may wait for the local model when nobody else can answer."""
    local_wait_ms: int = 120_000
    local_restart_ms: int = 60_000
    """How long a local model may be away when nobody else can answer."""


@dataclass(slots=True)
class _Progress:
    """What a try has shown so far; only the pieces that the client may have seen count."""

    started_ms: int
    first_token_ms: int = -1
    pieces: list[bytes] | None = None

    def relay(self, data: bytes, relay: Relay) -> None:
        self.pieces = self.pieces or []
        self.pieces.append(data)
        relay(data)


class Asker:
    """Asks providers by the routing rules and turns what comes into the outcome event."""

    def __init__(
        self,
        *,
        backends: Sequence[tuple[Provider, LlmBackend]],
        limits: AskingLimits,
        book: PriceBook,
        clock: Clock,
        veto: Veto = no_veto,
    ) -> None:
        self._providers = tuple(provider for provider, _ in backends)
        self._backends = {provider.name: backend for provider, backend in backends}
        self._limits = limits
        self._book = book
        self._clock = clock
        self._veto = veto
        self._local_slots = asyncio.Semaphore(limits.local_in_flight_max)
        self._local_waiting = 0

    async def ask(
        self, request: LlmCallRequested, ask: Ask, announce: Announce, relay: Relay
    ) -> Outcome:
        """The outcome of a request; raises only cancellation and what `announce` raises."""
        try:
            body = _parsed(request)
        except BadRequest as error:
            return failed(request, None, error, ask.try_number)
        todo = self._candidates(request, body, ask)
        if not todo:
            return no_provider(request, ask.try_number)
        return await self._ask_in_turn(request, body, ask, todo, announce, relay)

    async def close(self) -> None:
        """Closes every backend."""
        for backend in self._backends.values():
            await backend.close()

    def _candidates(
        self, request: LlmCallRequested, body: Mapping[str, object], ask: Ask
    ) -> list[Candidate]:
        question = Question(tenant=request.tenant, model=request.model, has_tools=has_tools(body))
        found = list(candidates(question, self._providers, self._veto))
        if ask.in_doubt is not None and ask.in_doubt.route == "upstream":
            # Whoever may have been paid is asked first: the same key may bring the same answer.
            name = ask.in_doubt.provider
            found = [
                *(replace(c, reason="in_doubt") for c in found if c.provider.name == name),
                *(c for c in found if c.provider.name != name),
            ]
        return found

    async def _ask_in_turn(
        self,
        request: LlmCallRequested,
        body: Mapping[str, object],
        ask: Ask,
        todo: Sequence[Candidate],
        announce: Announce,
        relay: Relay,
    ) -> Outcome:
        status: str = settlement(ask.in_doubt)
        started_ms = self._clock.monotonic_ms()
        place, try_number, reason = 0, ask.try_number, ""
        while True:
            candidate = replace(todo[place], reason=reason or todo[place].reason)
            is_last = place == len(todo) - 1
            progress = _Progress(started_ms)
            try:
                answer = await self._try(
                    request, body, candidate, try_number, is_last, progress, announce, relay
                )
                return self._completed(request, candidate, answer, progress, status, try_number)
            except ProviderError as error:
                is_byte_sent = progress.pieces is not None
                may_go_on = may_ask_next(error.error_class, is_byte_sent=is_byte_sent)
                if may_go_on and not is_last:
                    place += 1
                elif may_go_on and self._may_come_back(candidate, error, started_ms):
                    await asyncio.sleep(RESTART_POLL_MS / 1000)
                else:
                    return failed(request, candidate, error, try_number, is_byte_sent)
                status = _doubted(status, candidate, error)
                reason = fallback_reason(candidate, error.error_class)
                try_number += 1

    def _may_come_back(self, candidate: Candidate, error: ProviderError, started_ms: int) -> bool:
        """Whether to wait for the local model: asking it twice costs nothing, and it restarts in
        seconds.
        """
        waited_ms = self._clock.monotonic_ms() - started_ms
        is_away = candidate.provider.route == "local" and error.error_class == "unavailable"
        return is_away and waited_ms < self._limits.local_restart_ms

    async def _try(
        self,
        request: LlmCallRequested,
        body: Mapping[str, object],
        candidate: Candidate,
        try_number: int,
        is_last: bool,
        progress: _Progress,
        announce: Announce,
        relay: Relay,
    ) -> Answer:
        is_local = candidate.provider.route == "local"
        if is_local:
            await self._take_local_slot(can_wait=is_last)
        try:
            await announce(routed(request, candidate, try_number))
            call = _provider_call(request, body, candidate, self._clock.now_ms())
            events = self._backends[candidate.provider.name].ask(call)
            limit_ms = self._first_limit_ms(candidate, is_last=is_last, is_stream=request.is_stream)
            async with asyncio.timeout(self._limits.call_ms / 1000):
                return await self._follow(events, limit_ms, progress, relay)
        except TimeoutError as error:
            raise TimedOut(f"no answer within {self._limits.call_ms} ms") from error
        finally:
            if is_local:
                self._local_slots.release()

    async def _follow(
        self,
        events: AsyncIterator[ProviderEvent],
        first_limit_ms: int,
        progress: _Progress,
        relay: Relay,
    ) -> Answer:
        limit_ms = first_limit_ms
        try:
            while True:
                event = await _within(anext(events), limit_ms)
                limit_ms = self._limits.stall_ms
                if progress.first_token_ms < 0:
                    progress.first_token_ms = self._clock.monotonic_ms() - progress.started_ms
                if isinstance(event, Answer):
                    return event
                if isinstance(event, Piece):
                    progress.relay(event.data, relay)
        finally:
            await _close(events)

    def _first_limit_ms(self, candidate: Candidate, *, is_last: bool, is_stream: bool) -> int:
        if candidate.provider.route == "local":
            limits = self._limits
            return (
                limits.local_first_token_ms
                if is_last
                else limits.local_first_token_with_upstream_ms
            )
        # Without a stream an upstream says nothing until it has said everything.
        return self._limits.upstream_first_token_ms if is_stream else self._limits.call_ms

    async def _take_local_slot(self, *, can_wait: bool) -> None:
        if not self._local_slots.locked():
            await self._local_slots.acquire()
            return
        if not can_wait or self._local_waiting >= self._limits.local_waiting_max:
            raise Overloaded("the local model is busy", retry_after_ms=2000)
        self._local_waiting += 1
        try:
            await _within(self._local_slots.acquire(), self._limits.local_wait_ms)
        finally:
            self._local_waiting -= 1

    def _completed(
        self,
        request: LlmCallRequested,
        candidate: Candidate,
        answer: Answer,
        progress: _Progress,
        status: str,
        try_number: int,
    ) -> LlmCallCompleted:
        route = candidate.provider.route
        return LlmCallCompleted(
            event_id=completion_id(
                request.tenant, request.execution_id, request.step, request.call_id, request.request
            ),
            tenant=request.tenant,
            execution_id=request.execution_id,
            call_id=request.call_id,
            step=request.step,
            agent=request.agent,
            route=route,
            provider=candidate.provider.name,
            model=answer.model,
            is_stream=request.is_stream,
            response=b"".join((*(progress.pieces or ()), answer.body)),
            input_tokens=answer.usage.input_tokens,
            cached_tokens=answer.usage.cached_tokens,
            output_tokens=answer.usage.output_tokens,
            reasoning_tokens=answer.usage.reasoning_tokens,
            usage_source=answer.usage_source,
            cost_microusd=self._book.cost_microusd(route, answer.model, answer.usage),
            price_book=self._book.version,
            status=status,
            first_token_ms=max(0, progress.first_token_ms),
            latency_ms=self._clock.monotonic_ms() - progress.started_ms,
            try_number=try_number,
        )


def _parsed(request: LlmCallRequested) -> Mapping[str, object]:
    try:
        body = orjson.loads(request.request)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    return body


def _provider_call(
    request: LlmCallRequested, body: Mapping[str, object], candidate: Candidate, now_ms: int
) -> ProviderCall:
    return ProviderCall(
        call_id=request.call_id,
        idempotency_key=request.idempotency_key,
        model=candidate.model,
        request=request.request,
        body=body,
        is_stream=request.is_stream,
        created_s=(request.at_ms or now_ms) // 1000,
    )


def _doubted(status: str, candidate: Candidate, error: ProviderError) -> str:
    """An upstream that fell silent or broke off may have charged all the same."""
    is_doubtful = candidate.provider.route == "upstream" and error.error_class in (
        "timeout",
        "unavailable",
    )
    return "unconfirmed" if is_doubtful else status


async def _within(awaitable: Awaitable[T], limit_ms: int) -> T:
    try:
        async with asyncio.timeout(limit_ms / 1000):
            return await awaitable
    except TimeoutError as error:
        raise TimedOut(f"nothing came for {limit_ms} ms") from error
    except StopAsyncIteration as error:
        raise ProviderError("the provider ended without an answer") from error


async def _close(events: AsyncIterator[ProviderEvent]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
