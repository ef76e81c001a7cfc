"""Laws of asking: the intent stands first, the client's first byte binds, limits end in typed
outcomes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import orjson
import pytest

from processors.effects.llm.port import (
    DONE,
    Answer,
    BadRequest,
    FirstToken,
    Overloaded,
    Piece,
    ProviderCall,
    ProviderEvent,
    Unavailable,
)
from processors.routing_asking import Asker, AskingLimits, Outcome
from streams.llm.events import LlmCallCompleted, LlmCallFailed, LlmCallRequested, LlmCallRouted
from streams.metering.pricing import BOOK, TokenUsage
from streams.routing.call import Ask
from streams.routing.rules import Provider
from tests.support.llm_events import requested, routed

LOCAL = Provider(route="local", name="triton", model="gpt-oss-20b", has_tools=False)
UPSTREAM = Provider(route="upstream", name="openai", model="", has_tools=True)
LIMITS = AskingLimits(
    local_first_token_ms=200,
    local_first_token_with_upstream_ms=50,
    upstream_first_token_ms=200,
    stall_ms=50,
    call_ms=400,
    local_in_flight_max=1,
    local_waiting_max=1,
    local_wait_ms=300,
)
FIRST = Ask(try_number=1, in_doubt=None)
USAGE = TokenUsage(input_tokens=10, cached_tokens=0, output_tokens=5, reasoning_tokens=0)

Script = Callable[[ProviderCall], AsyncIterator[ProviderEvent]]


class Clock:
    def now_ms(self) -> int:
        return 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


@dataclass
class Scripted:
    """A backend that does what a function says, and remembers its calls."""

    script: Script
    calls: list[ProviderCall] = field(default_factory=list)

    def ask(self, call: ProviderCall) -> AsyncIterator[ProviderEvent]:
        self.calls.append(call)
        return self.script(call)

    async def close(self) -> None:
        return None


def answer(body: bytes = b'{"ok":1}') -> Answer:
    return Answer(body=body, model="m", usage=USAGE, usage_source="provider")


async def answering(call: ProviderCall) -> AsyncIterator[ProviderEvent]:
    yield FirstToken()
    if call.is_stream:
        yield Piece(b"data: 1\n\n")
    yield answer(DONE if call.is_stream else b'{"ok":1}')


async def refusing(_: ProviderCall) -> AsyncIterator[ProviderEvent]:
    raise Overloaded("full", retry_after_ms=1500)
    yield FirstToken()


async def silent(_: ProviderCall) -> AsyncIterator[ProviderEvent]:
    await asyncio.Event().wait()
    yield FirstToken()


async def breaking_off(_: ProviderCall) -> AsyncIterator[ProviderEvent]:
    yield Piece(b"data: 1\n\n")
    raise Unavailable("broke")


async def stalling(_: ProviderCall) -> AsyncIterator[ProviderEvent]:
    yield FirstToken()
    await asyncio.Event().wait()


@dataclass
class Told:
    """What one asking wrote and relayed."""

    outcome: Outcome
    intents: list[LlmCallRouted]
    relayed: list[bytes]

    @property
    def completed(self) -> LlmCallCompleted:
        assert isinstance(self.outcome, LlmCallCompleted)
        return self.outcome

    @property
    def failed(self) -> LlmCallFailed:
        assert isinstance(self.outcome, LlmCallFailed)
        return self.outcome


async def ask(
    *backends: tuple[Provider, Scripted],
    request: LlmCallRequested | None = None,
    how: Ask = FIRST,
    asker: Asker | None = None,
) -> Told:
    asker = asker or new_asker(*backends)
    intents: list[LlmCallRouted] = []
    relayed: list[bytes] = []

    async def announce(intent: LlmCallRouted) -> None:
        intents.append(intent)

    outcome = await asker.ask(request or requested(), how, announce, relayed.append)
    return Told(outcome, intents, relayed)


def new_asker(*backends: tuple[Provider, Scripted]) -> Asker:
    return Asker(backends=backends, limits=LIMITS, book=BOOK, clock=Clock())


async def test_the_intent_stands_before_the_provider_is_asked() -> None:
    # Given a log that is slow to make the intent stand
    order: list[str] = []

    async def logging_call(call: ProviderCall) -> AsyncIterator[ProviderEvent]:
        order.append("asked")
        yield answer()

    async def announce(_: LlmCallRouted) -> None:
        await asyncio.sleep(0)
        order.append("stands")

    # When the call is asked
    asker = new_asker((UPSTREAM, Scripted(logging_call)))
    await asker.ask(requested(), FIRST, announce, lambda _: None)

    # Then
    assert order == ["stands", "asked"]


async def test_the_local_answer_is_priced_locally() -> None:
    told = await ask((LOCAL, Scripted(answering)), (UPSTREAM, Scripted(answering)))
    assert told.completed.route == "local"
    assert told.completed.cost_microusd == BOOK.cost_microusd("local", "m", USAGE)
    assert [intent.reason for intent in told.intents] == ["local_first"]


@pytest.mark.parametrize(
    ("local", "reason"), [(refusing, "local_overloaded"), (silent, "local_timeout")]
)
async def test_the_upstream_answers_when_the_local_model_does_not(
    local: Script, reason: str
) -> None:
    told = await ask((LOCAL, Scripted(local)), (UPSTREAM, Scripted(answering)))
    assert told.completed.route == "upstream"
    assert [(i.route, i.reason, i.try_number) for i in told.intents] == [
        ("local", "local_first", 1),
        ("upstream", reason, 2),
    ]
    assert told.completed.status == "settled"


async def test_every_try_carries_the_clients_key_and_call_id() -> None:
    local, upstream = Scripted(refusing), Scripted(answering)
    await ask((LOCAL, local), (UPSTREAM, upstream), request=requested(key="client-key"))
    assert {call.idempotency_key for call in local.calls + upstream.calls} == {"client-key"}


async def test_after_the_first_byte_nobody_else_answers() -> None:
    upstream = Scripted(answering)
    told = await ask(
        (LOCAL, Scripted(breaking_off)), (UPSTREAM, upstream), request=requested(stream=True)
    )
    assert told.failed.error_class == "aborted"
    assert upstream.calls == []
    assert told.relayed == [b"data: 1\n\n"]


async def test_a_streamed_answer_is_recorded_as_sent() -> None:
    told = await ask((UPSTREAM, Scripted(answering)), request=requested(stream=True))
    assert told.completed.response == b"".join(told.relayed) + DONE


async def test_a_stall_ends_in_a_timeout() -> None:
    told = await ask((UPSTREAM, Scripted(stalling)))
    assert (told.failed.error_class, told.failed.http_status) == ("timeout", 504)


async def test_the_last_refusal_is_the_outcome_with_its_retry_after() -> None:
    told = await ask((UPSTREAM, Scripted(refusing)))
    assert (told.failed.error_class, told.failed.retry_after_ms) == ("overloaded", 1500)
    assert told.failed.is_retryable


async def test_a_client_error_is_not_retryable() -> None:
    async def rejecting(_: ProviderCall) -> AsyncIterator[ProviderEvent]:
        raise BadRequest("no such parameter", http_status=400)
        yield FirstToken()

    told = await ask((UPSTREAM, Scripted(rejecting)))
    assert (told.failed.http_status, told.failed.is_retryable) == (400, False)


async def test_without_any_provider_the_model_does_not_exist() -> None:
    told = await ask()
    assert (told.failed.error_class, told.failed.http_status) == ("no_provider", 404)


async def test_a_call_in_doubt_goes_to_whoever_may_have_been_paid_and_is_unconfirmed() -> None:
    request = requested()
    intent = replace(routed(request), provider=UPSTREAM.name)
    local = Scripted(answering)
    told = await ask(
        (LOCAL, local),
        (UPSTREAM, Scripted(answering)),
        request=request,
        how=Ask(try_number=2, in_doubt=intent),
    )
    assert (told.completed.route, told.completed.status) == ("upstream", "unconfirmed")
    assert told.intents[0].reason == "in_doubt"
    assert local.calls == []


async def test_a_silent_upstream_leaves_the_local_answer_unconfirmed() -> None:
    request = requested(body=orjson.dumps({"messages": [], "tools": [{}]}))
    told = await ask((LOCAL, Scripted(answering)), (UPSTREAM, Scripted(silent)), request=request)
    assert (told.completed.route, told.completed.status) == ("local", "unconfirmed")


async def test_a_busy_local_model_is_passed_over_when_there_is_an_upstream() -> None:
    # Given a local model whose only slot is taken
    upstream = Scripted(answering)
    asker = new_asker((LOCAL, Scripted(stalling)), (UPSTREAM, upstream))
    first = asyncio.ensure_future(ask(asker=asker, request=requested(key="a")))
    await asyncio.sleep(0)

    # When another call comes
    told = await ask(asker=asker, request=requested(key="b"))

    # Then
    assert told.completed.route == "upstream"
    assert [intent.reason for intent in told.intents] == ["local_overloaded"]
    await first


async def test_alone_the_local_model_is_waited_for_within_a_limit() -> None:
    # Given a local model that answers when told to
    gate = asyncio.Event()

    async def gated(call: ProviderCall) -> AsyncIterator[ProviderEvent]:
        await gate.wait()
        yield answer()

    asker = new_asker((LOCAL, Scripted(gated)))

    # When four calls come at once
    asking = [
        asyncio.ensure_future(ask(asker=asker, request=requested(key=str(n)))) for n in range(4)
    ]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    gate.set()
    outcomes = await asyncio.gather(*asking)

    # Then
    classes = [getattr(told.outcome, "error_class", "completed") for told in outcomes]
    # One is served, one waits, further ones are refused at once.
    assert classes.count("completed") == 2
    assert classes.count("overloaded") == 2


async def test_a_slot_is_given_back_whatever_happens() -> None:
    asker = new_asker((LOCAL, Scripted(breaking_off)))
    for n in range(3):
        told = await ask(asker=asker, request=requested(key=str(n)))
        assert told.failed.error_class == "aborted"


async def test_a_local_model_that_restarts_is_waited_for_when_nobody_else_can_answer() -> None:
    # Given a local model that is away for a moment
    async def away_once(call: ProviderCall) -> AsyncIterator[ProviderEvent]:
        if len(local.calls) == 1:
            raise Unavailable("connection refused")
        yield answer()

    local = Scripted(away_once)

    # When it is asked
    told = await ask((LOCAL, local))

    # Then it answers, and each try was announced under its own number
    assert told.completed.status == "settled"
    assert [(i.reason, i.try_number) for i in told.intents] == [
        ("local_first", 1),
        ("local_unavailable", 2),
    ]


async def test_an_upstream_that_breaks_off_is_not_asked_twice() -> None:
    async def breaking(_: ProviderCall) -> AsyncIterator[ProviderEvent]:
        raise Unavailable("connection reset")
        yield FirstToken()

    upstream = Scripted(breaking)
    told = await ask((UPSTREAM, upstream))
    assert told.failed.error_class == "unavailable"
    assert len(upstream.calls) == 1
