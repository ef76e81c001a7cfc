"""The LLM path under kill -9: every call is answered, paid once, at most the one in flight asked
again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Producer

from producers.kafka import end_offset, scan
from producers.wire import Wire
from streams.control.events import RecordDeadLettered
from streams.execution.events import OwnerClaimed
from streams.llm.events import LlmCallCompleted, LlmCallFailed
from streams.messages import Message
from streams.ownership import EpochFold
from streams.topics import DLQ, LLM_REQUESTS, LLM_RESPONSES, partitions
from tests.support.llm import LlmPath, chat, client, llm_path, until
from tests.support.llm_events import requested

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlmPath]:
    """One path for all: every test leaves a running router behind."""
    with llm_path(tmp_path_factory.mktemp("llm-crash")) as path:
        yield path


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def posted(
    path: LlmPath, pool: ThreadPoolExecutor, key: str, body: dict[str, object]
) -> Future[httpx.Response]:
    def post() -> httpx.Response:
        with client(path) as http:
            return http.post("/chat/completions", json=body, headers={"Idempotency-Key": key})

    return pool.submit(post)


def standing(kafka: str) -> list[tuple[int, int, Message]]:
    """Every event of the responses topic that counts, with its place."""
    wire, found = Wire.load(kafka), []
    for number in range(partitions(LLM_RESPONSES)):
        epochs = EpochFold()
        end = end_offset(kafka, LLM_RESPONSES.name, number)
        for batch in scan(kafka, LLM_RESPONSES.name, number, 0, end):
            for record in batch:
                offset, event = int(record.offset() or 0), wire.decode(record.value())  # type: ignore[arg-type]
                if isinstance(event, OwnerClaimed):
                    epochs = epochs.claimed(offset)
                elif not epochs.is_void(event.epoch):
                    found.append((number, offset, event))
    return found


def failures_of(kafka: str, call: str) -> list[str]:
    events = [event for _, _, event in standing(kafka)]
    return [e.error_class for e in events if isinstance(e, LlmCallFailed) and e.call_id == call]


def answers_of(kafka: str, call: str) -> list[LlmCallCompleted]:
    events = [event for _, _, event in standing(kafka)]
    return [e for e in events if isinstance(e, LlmCallCompleted) and e.call_id == call]


def test_a_router_killed_mid_call_leaves_an_answer_and_at_most_one_repeat(
    path: LlmPath, pool: ThreadPoolExecutor
) -> None:
    # Given a call that the upstream is working on
    key = f"killed-{uuid4()}"
    waiting = posted(path, pool, key, chat("!delay_ms=1500"))
    until(lambda: path.counts()[key] == 1, "the call reached the upstream")

    # When its router is killed and started again
    path.router.kill()
    path.router.start()

    # Then the waiting client is answered; the repeat carried the same key and is marked
    response = waiting.result(60)
    assert response.status_code == 200
    assert path.counts()[key] == 2
    (answer,) = answers_of(path.kafka, response.headers["x-omium-call-id"])
    assert answer.status == "unconfirmed"
    assert answer.response == response.content


def test_a_router_killed_mid_stream_continues_the_same_bytes(
    path: LlmPath, pool: ThreadPoolExecutor
) -> None:
    key = f"stream-{uuid4()}"
    waiting = posted(path, pool, key, chat("!tokens=20\n!chunk_ms=100", stream=True))
    until(lambda: path.counts()[key] == 1, "the call reached the upstream")

    path.router.kill()
    path.router.start()

    response = waiting.result(60)
    assert response.content.endswith(b"data: [DONE]\n\n")
    assert response.content.count(b"w19-") == 1
    (answer,) = answers_of(path.kafka, response.headers["x-omium-call-id"])
    assert answer.response == response.content
    assert path.counts()[key] == 2


def test_finished_calls_are_not_asked_again_by_a_new_router(
    path: LlmPath, pool: ThreadPoolExecutor
) -> None:
    # Given answered calls, whose offsets a killed router may not have committed
    keys = [f"done-{uuid4()}" for _ in range(20)]
    for waiting in [posted(path, pool, key, chat(f"!say={key}")) for key in keys]:
        assert waiting.result(60).status_code == 200
    path.router.kill()
    path.router.start()

    # When one more call goes through every partition
    after = [f"after-{uuid4()}" for _ in range(20)]
    for waiting in [posted(path, pool, key, chat("hi")) for key in after]:
        assert waiting.result(60).status_code == 200

    # Then
    counts = path.counts()
    assert {counts[key] for key in keys + after} == {1}


def test_under_repeated_kills_every_call_is_answered_and_only_those_in_flight_repeat(
    path: LlmPath, pool: ThreadPoolExecutor
) -> None:
    keys = [f"storm-{n}-{uuid4()}" for n in range(24)]
    waiting = [posted(path, pool, key, chat("!delay_ms=400")) for key in keys]
    kills, before = 3, len(path.calls())
    for kill in range(kills):
        reached = before + 4 * (kill + 1)
        until(lambda least=reached: len(path.calls()) >= least, "calls reach the upstream")  # type: ignore[misc]
        path.router.kill()
        path.router.start()
    responses = [call.result(90) for call in waiting]
    assert {response.status_code for response in responses} == {200}
    counts = path.counts()
    assert all(1 <= counts[key] <= 1 + kills for key in keys)
    for response in responses:
        (answer,) = answers_of(path.kafka, response.headers["x-omium-call-id"])
        assert answer.response == response.content


def test_a_standby_takes_over_and_the_old_owner_changes_nothing_when_it_wakes(
    path: LlmPath, pool: ThreadPoolExecutor
) -> None:
    # Given a standby, and a router stopped in the middle of calls
    standby = path.second_router()
    standby.start()
    keys = [f"zombie-{uuid4()}" for _ in range(8)]
    waiting = [posted(path, pool, key, chat("!delay_ms=700")) for key in keys]
    until(lambda: all(path.counts()[key] for key in keys), "all calls reached the upstream")
    path.router.send(signal.SIGSTOP)
    try:
        responses = [call.result(60) for call in waiting]
    finally:
        # When it wakes up
        path.router.send(signal.SIGCONT)
    later = [f"later-{uuid4()}" for _ in range(12)]
    answered = [call.result(60) for call in [posted(path, pool, key, chat("hi")) for key in later]]
    standby.end()

    # Then every call has one standing answer, and its client has that one
    assert {response.status_code for response in responses + answered} == {200}
    for response in responses + answered:
        (answer,) = answers_of(path.kafka, response.headers["x-omium-call-id"])
        assert answer.response == response.content
    assert {path.counts()[key] for key in later} == {1}


def test_a_router_that_is_told_to_stop_finishes_what_it_pays_for(
    path: LlmPath, pool: ThreadPoolExecutor
) -> None:
    # Given calls under way
    keys = [f"drained-{uuid4()}" for _ in range(4)]
    waiting = [posted(path, pool, key, chat("!delay_ms=800")) for key in keys]
    until(lambda: all(path.counts()[key] for key in keys), "all calls reached the upstream")

    # When the router is told to stop, and another is started
    path.router.end(signal.SIGTERM)
    path.router.start()

    # Then nothing was asked twice
    assert {call.result(60).status_code for call in waiting} == {200}
    assert {path.counts()[key] for key in keys} == {1}


def test_a_request_that_nobody_waits_for_any_more_is_not_paid_for(
    path: LlmPath,
) -> None:
    # Given a request that lay on the log for a day
    wire, key = Wire.load(path.kafka), f"old-{uuid4()}"
    old = requested(key=key, nonce=key)
    record = wire.encode(old, LLM_REQUESTS)

    # When the router meets it
    producer = Producer({"bootstrap.servers": path.kafka})
    producer.produce(
        record.topic,
        key=record.key,
        value=record.value,
        partition=record.partition,
        headers=record.headers,
    )
    assert producer.flush(10) == 0

    # Then it fails without a call
    until(lambda: failures_of(path.kafka, old.call_id) == ["timeout"], "the request expired")
    assert path.counts()[key] == 0


def test_a_poison_record_goes_to_the_dlq_and_the_partition_goes_on(
    path: LlmPath, pool: ThreadPoolExecutor
) -> None:
    # Given poison on every partition of the requests topic
    marker = uuid4().hex.encode()
    producer = Producer({"bootstrap.servers": path.kafka})
    for number in range(partitions(LLM_REQUESTS)):
        producer.produce(LLM_REQUESTS.name, value=b"poison " + marker, partition=number)
    # and a request where its key does not belong
    stray = Wire.load(path.kafka).encode(requested(nonce=str(marker), body=marker), LLM_REQUESTS)
    elsewhere = (stray.partition + 1) % partitions(LLM_REQUESTS)
    producer.produce(stray.topic, key=stray.key, value=stray.value, partition=elsewhere)
    assert producer.flush(10) == 0

    # When calls come after it
    calls = [posted(path, pool, f"healthy-{uuid4()}", chat("hi")) for _ in range(12)]

    # Then they are answered, and the poison is in the DLQ with its place
    assert {call.result(60).status_code for call in calls} == {200}
    expected = partitions(LLM_REQUESTS) + 1
    until(lambda: len(dead_letters(path.kafka, marker)) == expected, "DLQ entries")
    letters = dead_letters(path.kafka, marker)
    assert {letter.partition for letter in letters} == set(range(partitions(LLM_REQUESTS)))
    assert all(letter.topic == LLM_REQUESTS.name and letter.reason for letter in letters)


def dead_letters(kafka: str, marker: bytes) -> list[RecordDeadLettered]:
    wire = Wire.load(kafka)
    end = end_offset(kafka, DLQ.name, 0)
    events = [
        wire.decode(record.value())  # type: ignore[arg-type]
        for batch in scan(kafka, DLQ.name, 0, 0, end)
        for record in batch
    ]
    return [e for e in events if isinstance(e, RecordDeadLettered) and marker in e.value]
