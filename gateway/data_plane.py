"""The LLM data plane: OpenAI's chat completions over the log. Bare routes, because every
millisecond is paid by all.

The request is acknowledged on `omium.llm.requests.v1` before anything happens; the answer's last
byte is sent only when `LlmCallCompleted` stands. Equal `Idempotency-Key`s of one tenant are one
call: it is joined while under way, and answered from the log for ever after. A client that goes
away does not cancel a call that is being paid for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.auth import Principal, Scope
from gateway.llm_answers import LlmAnswers
from gateway.llm_errors import event_of, failure, refusal
from gateway.llm_flight import Flight, Outcome
from gateway.llm_request import ChatRequest, read_chat
from gateway.problems import Problem, problem_of
from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.errors import Rejected, Retryable
from streams.llm.events import LlmCallCompleted, LlmCallFailed, LlmCallRequested
from streams.messages import CallId, call_id
from streams.routing.call import answers as answers_body
from streams.routing.call import request_id
from streams.topics import LLM_REQUESTS

SSE = "text/event-stream; charset=utf-8"
MICROUSD_PER_USD = 1_000_000


class LlmContext(Protocol):
    """What the data plane needs of the gateway."""

    @property
    def producer(self) -> AsyncProducer: ...
    @property
    def wire(self) -> Wire: ...
    @property
    def now_ms(self) -> Callable[[], int]: ...
    @property
    def monotonic_ms(self) -> Callable[[], int]: ...
    @property
    def new_id(self) -> Callable[[], str]: ...
    def principal(self, connection: HTTPConnection, scope: Scope) -> Principal:
        """Who asks; raises the 401 or 403 problem."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmLimits:
    """How long a client waits."""

    wait_ms: int = 300_000
    """For the outcome, or the first byte of a stream; then 504, and the same key joins the call
    again.
    """
    stall_ms: int = 120_000
    """Between two pieces of a stream."""
    route_wait_ms: int = 200
    """For the event that names the route, when a chunk overtook it."""


def routes(
    context: LlmContext,
    answers: LlmAnswers,
    *,
    limits: LlmLimits | None = None,
    models: Sequence[str] = (),
) -> list[Route]:
    """The routes to mount; `models` are the names that `GET /v1/models` lists."""
    plane = DataPlane(context, answers, limits or LlmLimits(), models)
    return [
        Route("/v1/chat/completions", plane.chat_completions, methods=["POST"]),
        Route("/v1/models", plane.models, methods=["GET"]),
    ]


class DataPlane:
    """The handlers."""

    def __init__(
        self, context: LlmContext, answers: LlmAnswers, limits: LlmLimits, models: Sequence[str]
    ) -> None:
        self._context = context
        self._answers = answers
        self._limits = limits
        self._models = tuple(models)

    async def models(self, request: Request) -> Response:
        """The models that can be asked for by name."""
        return await _refusing(self._list_models(request))

    async def chat_completions(self, request: Request) -> Response:
        """One chat completion, streamed or not."""
        return await _refusing(self._complete(request))

    async def _list_models(self, request: Request) -> Response:
        self._context.principal(request, "llm")
        data = [
            {"id": m, "object": "model", "created": 0, "owned_by": "omium"} for m in self._models
        ]
        return JSONResponse({"object": "list", "data": data})

    async def _complete(self, request: Request) -> Response:
        started_ms = self._context.monotonic_ms()
        principal = self._context.principal(request, "llm")
        chat = await read_chat(request)
        call = call_id(principal.tenant, chat.idempotency_key or self._context.new_id())
        recorded = await self._answers.recorded(call) if self._answers.is_recorded(call) else None
        if recorded is not None:
            return self._replay(recorded, chat)
        flight = self._answers.flight(call)
        if flight is None:
            flight = await self._take_off(principal, chat, call, started_ms)
        elif flight.body_sha256 != chat.sha256:
            raise _key_reused()
        if chat.is_stream:
            return await self._streamed(flight, chat)
        return await self._whole(flight, chat, started_ms)

    async def _take_off(
        self, principal: Principal, chat: ChatRequest, call: CallId, started_ms: int
    ) -> Flight:
        nonce = self._context.new_id()
        event = LlmCallRequested(
            event_id=request_id(principal.tenant, chat.execution_id, chat.step, call, nonce),
            tenant=principal.tenant,
            execution_id=chat.execution_id,
            at_ms=self._context.now_ms(),
            call_id=call,
            idempotency_key=chat.idempotency_key or call,
            step=chat.step,
            agent=chat.agent,
            api="chat_completions",
            model=chat.model,
            is_stream=chat.is_stream,
            request=chat.raw,
        )
        # The flight outlives its clients: it keeps what names the call, not its megabytes.
        flight = Flight(replace(event, request=b""), chat.sha256, started_ms)
        self._answers.open(flight)
        try:
            # Shielded: a client that goes away now has asked all the same.
            await asyncio.shield(
                self._context.producer.send(self._context.wire.encode(event, LLM_REQUESTS))
            )
        except (Retryable, Rejected):
            self._answers.abandon(flight)
            raise
        return flight

    def _replay(self, recorded: LlmCallCompleted, chat: ChatRequest) -> Response:
        if not answers_body(recorded, chat.raw):
            raise _key_reused()
        headers = _headers(recorded.call_id, recorded.route) | {
            "x-omium-cost-usd": _usd(recorded.cost_microusd),
            "x-omium-overhead-ms": "0",
            "x-omium-replayed": "true",
        }
        return Response(recorded.response, 200, headers, _media_type(recorded))

    async def _whole(self, flight: Flight, chat: ChatRequest, started_ms: int) -> Response:
        outcome = await self._outcome(flight)
        if isinstance(outcome, LlmCallFailed):
            return self._failed(outcome, chat)
        if not answers_body(outcome, chat.raw):
            raise _key_reused()
        overhead_ms = self._context.monotonic_ms() - started_ms - outcome.latency_ms
        headers = _headers(outcome.call_id, outcome.route) | {
            "x-omium-cost-usd": _usd(outcome.cost_microusd),
            "x-omium-overhead-ms": str(max(0, overhead_ms)),
        }
        return Response(outcome.response, 200, headers, _media_type(outcome))

    async def _streamed(self, flight: Flight, chat: ChatRequest) -> Response:
        """Nothing is answered before something is known, so that a failure still has its HTTP
        status.
        """
        await self._until(flight, lambda: bool(flight.chunks) or flight.outcome is not None)
        outcome = flight.outcome
        if isinstance(outcome, LlmCallFailed) and not flight.chunks:
            return self._failed(outcome, chat)
        if isinstance(outcome, LlmCallCompleted) and not answers_body(outcome, chat.raw):
            raise _key_reused()
        headers = _headers(flight.request.call_id, await self._route(flight))
        headers["x-omium-overhead-ms"] = str(max(0, flight.routed_after_ms))
        return StreamingResponse(self._pieces(flight), 200, headers, SSE)

    async def _pieces(self, flight: Flight) -> AsyncIterator[bytes]:
        """The recorded bytes, as far as they are known; what cannot be continued ends with an error
        event.
        """
        sent: list[bytes] = []
        while True:
            while len(sent) < len(flight.chunks):
                sent.append(flight.chunks[len(sent)])
                yield sent[-1]
            if flight.outcome is not None:
                yield _rest(flight.outcome, b"".join(sent))
                return
            try:
                async with asyncio.timeout(self._limits.stall_ms / 1000):
                    await flight.change()
            except TimeoutError:
                yield event_of("The answer did not come to its end in time.", "timeout")
                return

    async def _outcome(self, flight: Flight) -> Outcome:
        await self._until(flight, lambda: flight.outcome is not None)
        assert flight.outcome is not None
        return flight.outcome

    async def _until(self, flight: Flight, is_met: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(self._limits.wait_ms / 1000):
                while not is_met():
                    await flight.change()
        except TimeoutError as error:
            detail = f"No answer within {self._limits.wait_ms} ms; the same key joins the call."
            raise Problem(504, "answer-timeout", detail) from error

    async def _route(self, flight: Flight) -> str:
        if flight.outcome is not None:
            return flight.outcome.route
        with contextlib.suppress(
            TimeoutError
        ):  # The header is a courtesy; the stream must not wait for it.
            async with asyncio.timeout(self._limits.route_wait_ms / 1000):
                while flight.routed is None and flight.outcome is None:
                    await flight.change()
        return flight.routed.route if flight.routed is not None else ""

    def _failed(self, failed: LlmCallFailed, chat: ChatRequest) -> Response:
        problem, headers = failure(failed, has_key=bool(chat.idempotency_key))
        return refusal(problem, _headers(failed.call_id, failed.route) | headers)


async def _refusing(answer: Awaitable[Response]) -> Response:
    """The answer, with every refusal in the shape that OpenAI's clients read."""
    try:
        return await answer
    except (HTTPException, Rejected, Retryable) as error:
        problem = problem_of(error)
        if isinstance(error, Rejected) and error.code == "record_too_large":
            problem = Problem(413, "body-too-large", str(error), field="body")
        should_retry = "true" if problem.status_code in (429, 503) else "false"
        return refusal(problem, {"x-should-retry": should_retry})


def _rest(outcome: Outcome, sent: bytes) -> bytes:
    match outcome:
        case LlmCallCompleted() if outcome.response.startswith(sent):
            return outcome.response[len(sent) :]
        case LlmCallCompleted():
            message = (
                "The answer was begun again elsewhere and differs; ask again with the same key."
            )
            return event_of(message, "stream_aborted")
        case LlmCallFailed():
            return event_of(outcome.error_message, "stream_aborted")


def _key_reused() -> Problem:
    return Problem(
        422,
        "idempotency-key-reused",
        "This Idempotency-Key was used with another body.",
        field="Idempotency-Key",
    )


def _headers(call: str, route: str) -> dict[str, str]:
    headers = {"x-omium-call-id": call}
    return headers | {"x-omium-route": route} if route else headers


def _media_type(completed: LlmCallCompleted) -> str:
    return SSE if completed.is_stream else "application/json"


def _usd(microusd: int) -> str:
    return f"{microusd // MICROUSD_PER_USD}.{microusd % MICROUSD_PER_USD:06d}"
