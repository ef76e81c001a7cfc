"""LLM calls of unmodified code: one key a call, whatever breaks on the way (law 3)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.runner import ROOT, FakeGateway, TinyWorker

FUNCTIONS = f"{ROOT}/tests/support/workflows/functions.py"


@pytest.fixture
def worker(langgraph_zygote: Path, upstream: FakeGateway) -> TinyWorker:
    return TinyWorker(
        zygote=langgraph_zygote,
        entrypoint="",
        input={"question": "q"},
        gateway=upstream.url,
        framework="python",
    )


def output(worker: TinyWorker) -> object:
    final = worker.log[-1]
    assert final.kind == "finished", final
    return json.loads(final.text("output_json"))


@pytest.mark.parametrize("function", ["ask_async", "stream", "stream_async", "impatient"])
def test_sync_async_and_streamed_calls_carry_key_and_place(
    worker: TinyWorker, upstream: FakeGateway, function: str
) -> None:
    worker.entrypoint = f"{FUNCTIONS}:{function}"

    worker.run()

    assert output(worker) in ("answer to q", "one two three four")
    (seen,) = upstream.seen
    (intended,) = (f for f in worker.log if f.kind == "llm_intended")
    assert seen["idempotency-key"] == intended.text("call_id")
    assert seen["x-omium-execution"] == "11111111-1111-5111-8111-111111111111"
    assert (seen["x-omium-step"], seen["x-omium-agent"]) == (function, function)
    assert seen["authorization"] == "Bearer omk_test"
    (completed,) = (f for f in worker.log if f.kind == "step_completed")
    assert completed.header["effects"] == [intended.text("call_id")]


def test_equal_questions_are_different_calls_with_stable_keys(
    worker: TinyWorker, upstream: FakeGateway
) -> None:
    worker.entrypoint, worker.input = f"{FUNCTIONS}:ask", {"question": "q", "times": 3}
    worker.run()
    first = list(upstream.keys)

    worker.run()

    assert len(set(first)) == 3
    assert upstream.keys == first * 2


@pytest.mark.parametrize("function", ["ask", "ask_async"])
def test_a_gateway_that_restarts_is_ridden_out_under_the_same_key(
    worker: TinyWorker, upstream: FakeGateway, function: str
) -> None:
    worker.entrypoint = f"{FUNCTIONS}:{function}"
    upstream.script = [503, 502, 504]

    worker.run()

    assert output(worker) in ("answer to q", ["answer to q"])
    assert len(upstream.keys) == 4
    assert len(set(upstream.keys)) == 1


def test_the_sdks_own_retry_is_the_same_call(worker: TinyWorker, upstream: FakeGateway) -> None:
    worker.entrypoint = f"{FUNCTIONS}:impatient"
    upstream.script = [500]

    worker.run()

    assert output(worker) == "answer to q"
    assert len(upstream.keys) == 2
    assert len(set(upstream.keys)) == 1


@pytest.mark.parametrize("function", ["stream", "stream_async"])
@pytest.mark.parametrize("after_bytes", [1, 150, 400])
def test_a_broken_stream_goes_on_where_it_broke(
    worker: TinyWorker, upstream: FakeGateway, function: str, after_bytes: int
) -> None:
    worker.entrypoint = f"{FUNCTIONS}:{function}"
    upstream.script = [-after_bytes]

    worker.run()

    assert output(worker) == "one two three four"
    assert len(upstream.keys) == 2
    assert len(set(upstream.keys)) == 1


def test_a_call_to_a_provider_named_by_hand_goes_to_the_gateway(
    worker: TinyWorker, upstream: FakeGateway
) -> None:
    worker.entrypoint = f"{FUNCTIONS}:elsewhere"

    worker.run()

    assert output(worker) == "answer to q"
    (seen,) = upstream.seen
    assert seen["x-omium-original-host"] == "api.openai.com"
    assert seen["authorization"] == "Bearer omk_test"


def test_input_that_does_not_fit_names_what_is_wrong(worker: TinyWorker) -> None:
    worker.entrypoint, worker.input = f"{FUNCTIONS}:ask", {"quest": "q"}

    worker.run()

    final = worker.log[-1]
    assert (final.kind, final.text("error_class")) == ("failed", "bad_input")
    assert "question" in final.text("error_message")
