"""Laws of the gateway's view: void never counts, streams never mix, memory is bounded."""

from __future__ import annotations

from dataclasses import replace

from gateway.llm_flight import Flight
from gateway.llm_index import AnswerCache, AnswerIndex, Claims
from streams.llm.events import LlmCallChunk, LlmCallRequested
from tests.support.llm_events import completed, failed, requested

REQUEST = requested(stream=True)


def chunk(sequence: int, data: bytes, epoch: int = 5) -> LlmCallChunk:
    return LlmCallChunk(
        event_id=f"{sequence}",
        tenant=REQUEST.tenant,
        execution_id="",
        epoch=epoch,
        call_id=REQUEST.call_id,
        sequence=sequence,
        data=data,
    )


def flight(request: LlmCallRequested = REQUEST) -> Flight:
    return Flight(request, "sha", 0)


def test_an_event_behind_a_later_claim_is_void_wherever_it_is_judged_from() -> None:
    claims = Claims()
    for offset in (3, 10, 20):
        claims.claimed(offset)
    assert not claims.is_void(offset=5, epoch=3)
    assert claims.is_void(offset=11, epoch=3)
    assert not claims.is_void(offset=11, epoch=10)
    assert claims.is_void(offset=25, epoch=10)


def test_an_event_of_a_higher_epoch_proves_a_claim_that_was_not_read() -> None:
    claims = Claims()
    claims.claimed(40)
    assert claims.highest == 40
    assert claims.is_void(offset=50, epoch=39)


def test_a_void_answer_behind_the_valid_one_does_not_hide_it() -> None:
    index = AnswerIndex()
    index.add(b"call", 2, 11)
    index.add(b"call", 2, 30)
    assert index.places(b"call") == (2, (11, 30))


def test_the_index_forgets_the_oldest_call_first() -> None:
    index = AnswerIndex(calls_max=2)
    for number, call in enumerate((b"a", b"b", b"c")):
        index.add(call, 0, number)
    assert index.places(b"a") is None
    assert index.places(b"c") == (0, (2,))


def test_the_cache_is_bounded_by_bytes() -> None:
    cache = AnswerCache(bytes_max=100)
    answers = [completed(requested(key=str(n)), b"x" * 40) for n in range(5)]
    for answer in answers:
        cache.put(answer)
    assert [cache.get(a.call_id) is not None for a in answers] == [False, False, False, True, True]


def test_chunks_in_order_are_followed() -> None:
    seen = flight()
    seen.chunk(chunk(0, b"a"))
    seen.chunk(chunk(1, b"b"))
    assert seen.chunks == [b"a", b"b"]


def test_a_second_try_is_not_mixed_into_the_first() -> None:
    seen = flight()
    seen.chunk(chunk(0, b"a", epoch=5))
    seen.chunk(chunk(0, b"A", epoch=9))
    seen.chunk(chunk(1, b"B", epoch=9))
    seen.chunk(chunk(1, b"b", epoch=5))
    assert seen.chunks == [b"a"]


def test_a_stream_met_in_its_middle_waits_for_the_whole_answer() -> None:
    seen = flight()
    seen.chunk(chunk(3, b"d"))
    seen.chunk(chunk(4, b"e"))
    assert seen.chunks == []


def test_the_failure_of_another_request_does_not_end_this_one() -> None:
    seen = flight()
    assert not seen.end(failed(requested(nonce="another")))
    assert seen.outcome is None
    assert seen.end(failed(REQUEST))


def test_any_requests_answer_ends_the_call() -> None:
    seen = flight()
    assert seen.end(replace(completed(requested(nonce="another")), response=b"data"))
    assert seen.outcome is not None
