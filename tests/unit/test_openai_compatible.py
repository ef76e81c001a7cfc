"""Laws of the upstream adapter: the client's bytes go on, usage is learned and not leaked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import web

from processors.effects.llm.openai_compatible import OpenAiCompatibleBackend, body_of, retry_after
from processors.effects.llm.port import (
    Answer,
    Overloaded,
    Piece,
    ProviderCall,
    ProviderEvent,
    TimedOut,
    Unavailable,
)


def call(body: dict[str, object], *, stream: bool = False, model: str = "m") -> ProviderCall:
    return ProviderCall(
        call_id="c",
        idempotency_key="key-1",
        model=model,
        request=orjson.dumps(body),
        body=body,
        is_stream=stream,
        created_s=1,
    )


@asynccontextmanager
async def upstream(
    answer: web.StreamResponse | bytes,
) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server that answers with the response, or streams the bytes; keeps what it was asked."""
    asked: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        asked.append(request)
        if isinstance(answer, web.StreamResponse):
            return answer
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for byte in range(0, len(answer), 7):
            await response.write(answer[byte : byte + 7])
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", asked
    finally:
        await runner.cleanup()


async def ask(url: str, provider_call: ProviderCall) -> list[ProviderEvent]:
    backend = OpenAiCompatibleBackend(url, api_key="secret")
    try:
        return [event async for event in backend.ask(provider_call)]
    finally:
        await backend.close()


CHUNK = b'data: {"model":"m-2","choices":[{"delta":{"content":"hi"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_an_unchanged_request_goes_on_byte_by_byte() -> None:
    raw = b'{"model": "m",  "messages": [], "unknown_field": {"a": 1}}'
    kept = ProviderCall(
        call_id="c",
        idempotency_key="k",
        model="m",
        request=raw,
        body=orjson.loads(raw),
        is_stream=False,
        created_s=1,
    )
    assert body_of(kept) == raw


def test_another_model_changes_the_model_and_nothing_else() -> None:
    body: dict[str, object] = {"model": "local/m", "messages": [], "unknown_field": 1}
    assert orjson.loads(body_of(call(body))) == body | {"model": "m"}


def test_a_stream_is_made_to_tell_its_usage() -> None:
    body: dict[str, object] = {"model": "m", "stream_options": {"other": 1}}
    sent = orjson.loads(body_of(call(body, stream=True)))
    assert sent["stream_options"] == {"other": 1, "include_usage": True}


async def test_key_and_authorization_go_with_the_call() -> None:
    answer = web.json_response({"model": "m-2", "choices": []})
    async with upstream(answer) as (url, asked):
        await ask(url, call({"model": "m"}))
    assert asked[0].headers["Idempotency-Key"] == "key-1"
    assert asked[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(("is_wanted", "leaked"), [(False, False), (True, True)])
async def test_the_usage_event_is_the_clients_only_if_it_asked(
    is_wanted: bool, leaked: bool
) -> None:
    body: dict[str, object] = {"model": "m"}
    if is_wanted:
        body["stream_options"] = {"include_usage": True}
    async with upstream(CHUNK + USAGE + DONE) as (url, _):
        events = await ask(url, call(body, stream=True))
    pieces = b"".join(event.data for event in events if isinstance(event, Piece))
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (USAGE in pieces) is leaked
    assert pieces.startswith(CHUNK)
    assert answer.body == DONE
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 2)
    assert (answer.usage_source, answer.model) == ("provider", "m-2")


async def test_without_usage_tokens_are_counted_and_said_to_be() -> None:
    async with upstream(CHUNK + DONE) as (url, _):
        answer = (await ask(url, call({"model": "m"}, stream=True)))[-1]
    assert isinstance(answer, Answer)
    assert answer.usage_source == "counted"
    assert answer.usage.output_tokens > 0


async def test_a_stream_without_its_end_is_no_answer() -> None:
    async with upstream(CHUNK) as (url, _):
        with pytest.raises(Unavailable):
            await ask(url, call({"model": "m"}, stream=True))


@pytest.mark.parametrize(
    ("status", "error"), [(429, Overloaded), (503, Overloaded), (504, TimedOut), (500, Unavailable)]
)
async def test_a_refusal_is_typed(status: int, error: type[Exception]) -> None:
    refusal = web.json_response({"error": {"message": "no"}}, status=status)
    async with upstream(refusal) as (url, _):
        with pytest.raises(error, match="no"):
            await ask(url, call({"model": "m"}))


async def test_nobody_there_is_unavailable() -> None:
    async with upstream(b"") as (url, _):
        pass
    with pytest.raises(Unavailable):
        await ask(url, call({"model": "m"}))


@pytest.mark.parametrize(
    ("headers", "expected_ms"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3000),
        ({"Retry-After": "0.5"}, 500),
        ({"Retry-After": "-4"}, 0),
        ({"Retry-After": "999999999"}, 3_600_000),
        ({"Retry-After": "soon"}, 0),
        ({"retry-after-ms": "250"}, 250),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50_000),
    ],
)
def test_retry_after_is_understood_and_bounded(
    headers: dict[str, str], expected_ms: int | None
) -> None:
    assert retry_after(headers, now_s=10.0) == expected_ms
