"""The data plane as OpenAI's own client sees it: real Kafka and processes, scripted upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import openai
import pytest

from tests.support.llm import KEY, OTHER_KEY, LlmPath, chat, client, llm_path, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlmPath]:
    with llm_path(tmp_path_factory.mktemp("llm")) as path:
        yield path


@pytest.fixture
def sdk(path: LlmPath) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=path.url, api_key=KEY, max_retries=0, http_client=httpx.Client(trust_env=False)
    ) as sdk:
        yield sdk


def ask(sdk: openai.OpenAI, text: str) -> str:
    answer = sdk.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": text}]
    )
    return answer.choices[0].message.content or ""


def test_the_sdk_gets_an_answer_with_route_cost_and_call_id(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "!say=Paris"}]
    )
    assert raw.parse().choices[0].message.content == "Paris"
    assert raw.headers["x-omium-route"] == "upstream"
    assert float(raw.headers["x-omium-cost-usd"]) > 0
    assert int(raw.headers["x-omium-overhead-ms"]) >= 0
    assert raw.headers["x-omium-call-id"]


def test_a_streamed_answer_comes_in_pieces_and_ends(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "!tokens=5\n!chunk_ms=30"}],
        stream=True,
    ) as stream:
        pieces = [c.choices[0].delta.content for c in stream if c.choices[0].delta.content]
    assert len(pieces) == 5


def test_usage_is_streamed_only_to_who_asked_for_it(sdk: openai.OpenAI) -> None:
    def usages(**options: object) -> list[object]:
        stream = sdk.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            **options,  # type: ignore[call-overload]
        )
        return [chunk.usage for chunk in stream if chunk.usage]

    assert usages() == []
    assert len(usages(stream_options={"include_usage": True})) == 1


def test_tool_calls_reach_the_client(sdk: openai.OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "rate", "parameters": {"type": "object"}}}
    answer = sdk.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": '!tool=rate:{"amount": 3}'}],
        tools=[tool],  # type: ignore[list-item]
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "rate"  # type: ignore[union-attr]


async def test_the_async_client_is_served_alike(path: LlmPath) -> None:
    async with openai.AsyncOpenAI(
        base_url=path.url, api_key=KEY, http_client=httpx.AsyncClient(trust_env=False)
    ) as sdk:
        answers = await asyncio.gather(
            *(
                sdk.chat.completions.create(
                    model="gpt-4o-mini", messages=[{"role": "user", "content": f"!say={n}"}]
                )
                for n in range(20)
            )
        )
    assert [answer.choices[0].message.content for answer in answers] == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("!status=400", openai.BadRequestError),
        ("!status=404", openai.NotFoundError),
        ("!status=422", openai.UnprocessableEntityError),
        ("!status=429", openai.RateLimitError),
        ("!status=500", openai.InternalServerError),
        ("!status=503", openai.InternalServerError),
    ],
)
def test_an_upstream_error_raises_the_class_that_it_means(
    sdk: openai.OpenAI, text: str, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as raised:
        ask(sdk, text)
    assert "scripted refusal" in str(raised.value)


def test_retry_after_reaches_the_client(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        ask(sdk, "!status=429\n!retry_after=7")
    assert raised.value.response.headers["retry-after"] == "7"


def test_a_stream_that_breaks_upstream_raises_and_does_not_end_silently(
    sdk: openai.OpenAI,
) -> None:
    stream = sdk.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "!tokens=9\n!break_after=3\n!chunk_ms=20"}],
        stream=True,
    )
    with pytest.raises(openai.APIError):
        list(stream)


def test_a_wrong_key_is_an_authentication_error(path: LlmPath) -> None:
    with (
        openai.OpenAI(
            base_url=path.url,
            api_key="omk_wrong",
            http_client=httpx.Client(trust_env=False),
        ) as sdk,
        pytest.raises(openai.AuthenticationError),
    ):
        ask(sdk, "hi")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{not json", 400, "body"),
        (b"[]", 400, "body"),
        (b'{"messages":[{"role":"user","content":"x"}]}', 400, "model"),
        (b'{"model":"m"}', 400, "messages"),
        (b'{"model":"m","messages":[]}', 400, "messages"),
        (b'{"model":"m","messages":[{}],"stream":"yes"}', 400, "stream"),
        (b'{"model":"local/m","messages":[{"role":"user","content":"x"}]}', 404, "model"),
        (b'{"model":"m","messages":["' + b"x" * 5_000_000 + b'"]}', 413, "body"),
    ],
)
def test_bad_input_is_a_problem_that_names_the_field(
    path: LlmPath, body: bytes, status: int, field: str
) -> None:
    with client(path) as http:
        response = http.post("/chat/completions", content=body)
    problem = response.json()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["field"]) == (status, field)
    assert problem["error"]["message"] == problem["detail"]


def test_equal_keys_at_once_are_one_upstream_call(path: LlmPath) -> None:
    key, body = f"same-{uuid4()}", chat("!delay_ms=300")
    with client(path) as http, ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(
                lambda _: http.post(
                    "/chat/completions", json=body, headers={"Idempotency-Key": key}
                ),
                range(12),
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["x-omium-call-id"] for answer in answers}) == 1
    assert path.counts()[key] == 1


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_equal_key_later_gets_the_recorded_bytes(path: LlmPath, is_stream: bool) -> None:
    key, body = f"later-{uuid4()}", chat("again", stream=is_stream)
    with client(path) as http:
        first = http.post("/chat/completions", json=body, headers={"Idempotency-Key": key})
        second = http.post("/chat/completions", json=body, headers={"Idempotency-Key": key})
    assert second.headers["x-omium-replayed"] == "true"
    assert second.content == first.content
    assert second.headers["content-type"] == first.headers["content-type"]
    assert path.counts()[key] == 1


def test_an_equal_key_with_another_body_is_refused(path: LlmPath) -> None:
    headers = {"Idempotency-Key": f"reused-{uuid4()}"}
    with client(path) as http:
        http.post("/chat/completions", json=chat("one"), headers=headers)
        response = http.post("/chat/completions", json=chat("two"), headers=headers)
    assert response.status_code == 422
    assert response.json()["field"] == "Idempotency-Key"


def test_an_equal_key_of_another_tenant_is_another_call(path: LlmPath) -> None:
    headers = {"Idempotency-Key": f"shared-{uuid4()}"}
    with client(path) as ours, client(path, OTHER_KEY) as theirs:
        first = ours.post("/chat/completions", json=chat("hi"), headers=headers)
        second = theirs.post("/chat/completions", json=chat("hi"), headers=headers)
    assert second.status_code == 200
    assert "x-omium-replayed" not in second.headers
    assert first.headers["x-omium-call-id"] != second.headers["x-omium-call-id"]


def test_a_failed_call_is_tried_again_when_asked_again(path: LlmPath) -> None:
    key, body = f"flaky-{uuid4()}", chat("!status=503\n!fail_times=1")
    headers = {"Idempotency-Key": key}
    with client(path) as http:
        first = http.post("/chat/completions", json=body, headers=headers)
        second = http.post("/chat/completions", json=body, headers=headers)
    assert (first.status_code, first.headers["x-should-retry"]) == (503, "true")
    assert second.status_code == 200
    assert path.counts()[key] == 2


def test_a_client_that_goes_away_does_not_cancel_the_call(path: LlmPath) -> None:
    # Given a client that leaves in the middle of its stream
    key, body = f"gone-{uuid4()}", chat("!tokens=10\n!chunk_ms=50", stream=True)
    headers = {"Idempotency-Key": key}
    with (
        client(path) as http,
        http.stream("POST", "/chat/completions", json=body, headers=headers) as r,
    ):
        next(r.iter_raw())

    # When it comes back with the same key
    with client(path) as http:
        response = http.post("/chat/completions", json=body, headers=headers)

    # Then the call was made once, and the whole answer is there
    assert response.status_code == 200
    assert response.content.endswith(b"data: [DONE]\n\n")
    assert path.counts()[key] == 1


def test_answers_survive_a_restart_of_the_gateway(path: LlmPath) -> None:
    # Given a recorded answer, and a call under way
    recorded, pending = f"recorded-{uuid4()}", f"pending-{uuid4()}"
    slow = chat("!delay_ms=4000")
    with client(path) as http:
        first = http.post(
            "/chat/completions", json=chat("keep"), headers={"Idempotency-Key": recorded}
        )
        with pytest.raises(httpx.TimeoutException):
            http.post(
                "/chat/completions", json=slow, headers={"Idempotency-Key": pending}, timeout=0.5
            )
    until(lambda: path.counts()[pending] == 1, "the slow call reached the upstream")

    # When the gateway is killed and comes back
    path.gateway.kill()
    path.gateway.start()

    # Then both are answered, and neither was asked again
    with client(path) as http:
        again = http.post(
            "/chat/completions", json=chat("keep"), headers={"Idempotency-Key": recorded}
        )
        late = http.post("/chat/completions", json=slow, headers={"Idempotency-Key": pending})
    assert again.content == first.content
    assert late.status_code == 200
    assert path.counts()[recorded] == 1
    assert path.counts()[pending] == 1


def test_models_are_listed(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["gpt-oss-20b"]
