"""The real tritonserver with the production repository and the stand-in backend, asked by the
router's adapter.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from ops.embedded import triton, triton_venv
from ops.embedded.process import spawn
from ops.settings import Settings
from processors.effects.llm.chat_template import ChatMl
from processors.effects.llm.port import (
    Answer,
    FirstToken,
    Overloaded,
    Piece,
    ProviderCall,
    ProviderEvent,
    Unavailable,
    Unsupported,
)
from processors.effects.llm.triton import TritonBackend
from tests.support.llm import free_port, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[triton.Triton]:
    venv = Settings().triton_venv
    triton_venv.ensure(venv, lambda _: None)
    server = triton.Triton(
        home=tmp_path_factory.mktemp("triton"),
        venv=venv,
        http_port=free_port(),
        grpc_port=free_port(),
    )
    server.prepare()
    log = server.home / "triton.log"
    process = spawn(server.command(), log, {**os.environ, **server.environment()})
    until(lambda: triton.answers(server.http_port), f"Triton is ready, see {log}", 120)
    yield server
    process.terminate()
    process.wait(20)


@pytest.fixture
async def backend(server: triton.Triton) -> AsyncIterator[TritonBackend]:
    backend = TritonBackend(server.url, model=triton.MODEL, template=ChatMl())
    yield backend
    await backend.close()


def call(text: str, *, stream: bool = False, **fields: object) -> ProviderCall:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
    return ProviderCall(
        call_id="1-2",
        idempotency_key="k",
        model="gpt-oss-20b",
        request=orjson.dumps(body),
        body=body,
        is_stream=stream,
        created_s=1,
    )


async def events(backend: TritonBackend, asked: ProviderCall) -> list[ProviderEvent]:
    return [event async for event in backend.ask(asked)]


async def answer(backend: TritonBackend, asked: ProviderCall) -> Answer:
    last = (await events(backend, asked))[-1]
    assert isinstance(last, Answer)
    return last


def test_the_server_says_that_the_model_is_a_stand_in(server: triton.Triton) -> None:
    url = f"http://127.0.0.1:{server.http_port}/v2/models/{triton.MODEL}"
    model = httpx.get(url, trust_env=False).json()
    assert model["platform"] == "vllm"
    assert "stand_in" in [output["name"] for output in model["outputs"]]


@pytest.mark.parametrize(("excluded", "expected"), [(None, True), (False, True), (True, False)])
def test_the_prompt_leads_the_answer_unless_it_is_excluded(
    server: triton.Triton, excluded: bool | None, expected: bool
) -> None:
    body: dict[str, object] = {"text_input": "The capital of France is"}
    body["sampling_parameters"] = json.dumps({"max_tokens": 3, "temperature": 0})
    if excluded is not None:
        body["exclude_input_in_output"] = excluded
    url = f"http://127.0.0.1:{server.http_port}/v2/models/{triton.MODEL}/generate"
    text = httpx.post(url, json=body, trust_env=False, timeout=60).json()["text_output"]
    assert text.startswith("The capital of France is") is expected
    assert len(text) > 1


async def test_usage_counts_every_token(backend: TritonBackend) -> None:
    told = await answer(backend, call("Count to ten.", max_tokens=7))
    document = orjson.loads(told.body)
    assert told.usage.output_tokens == 7
    assert told.usage.input_tokens > 10
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["usage"]["total_tokens"] == told.usage.input_tokens + 7


async def test_a_streamed_answer_is_the_same_answer(backend: TritonBackend) -> None:
    # Given the whole answer
    whole = orjson.loads((await answer(backend, call("Count to ten.", max_tokens=12))).body)

    # When it is streamed
    told = await events(backend, call("Count to ten.", stream=True, max_tokens=12))

    # Then its pieces are the same text, one event each
    assert isinstance(told[0], FirstToken)
    pieces = [event.data for event in told if isinstance(event, Piece)]
    deltas = [
        orjson.loads(piece.removeprefix(b"data: "))["choices"][0]["delta"] for piece in pieces
    ]
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    assert len(pieces) > 5


async def test_more_than_it_can_take_is_refused_and_not_queued(backend: TritonBackend) -> None:
    asked = [events(backend, call(f"Story {n}.", max_tokens=60)) for n in range(8)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert len(refused) == 4


async def test_a_client_that_leaves_frees_its_slot(backend: TritonBackend) -> None:
    # Given as many long answers as the model takes, all left after their first token
    for _ in range(4):
        asking = backend.ask(call("Tell a very long story.", stream=True, max_tokens=3000))
        await anext(asking)
        await asking.aclose()  # type: ignore[attr-defined]

    # When the next one asks, then it is served, and soon
    async with asyncio.timeout(20):
        await answer(backend, call("Hi.", max_tokens=2))


async def test_an_answer_follows_its_json_schema(backend: TritonBackend) -> None:
    schema = {
        "type": "object",
        "properties": {"word": {"enum": ["yes", "no"]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    told = await answer(backend, call("Yes?", max_tokens=40, response_format=response_format))
    content = orjson.loads(orjson.loads(told.body)["choices"][0]["message"]["content"])
    assert content["word"] in ("yes", "no")


async def test_a_prompt_beyond_the_context_is_for_somebody_else(backend: TritonBackend) -> None:
    with pytest.raises(Unsupported):
        await answer(backend, call("x " * 9000))


async def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    backend = TritonBackend(f"127.0.0.1:{free_port()}", model="m", template=ChatMl())
    with pytest.raises(Unavailable):
        await answer(backend, call("Hi."))
    await backend.close()
