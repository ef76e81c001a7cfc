"""Laws of one call: a completed one is final, a failed one is not, an open one is in doubt."""

from __future__ import annotations

from streams.decider import fold
from streams.messages import Message
from streams.routing.call import Answered, Ask, CallState, answers, decide, evolve, settlement
from tests.support.llm_events import completed, failed, requested, routed

FIRST = requested(nonce="n1")
AGAIN = requested(nonce="n2")


def after(*events: Message) -> CallState:
    return fold(evolve, CallState(), events)


def test_an_unknown_call_is_asked_for_the_first_time() -> None:
    assert decide(after(), FIRST) == Ask(try_number=1, in_doubt=None)


def test_a_completed_call_is_never_asked_again_by_any_request() -> None:
    state = after(routed(FIRST), completed(FIRST))
    assert decide(state, FIRST) == Answered()
    assert decide(state, AGAIN) == Answered()


def test_a_failed_request_delivered_again_is_not_asked_again() -> None:
    assert decide(after(routed(FIRST), failed(FIRST)), FIRST) == Answered()


def test_a_new_request_for_a_failed_call_is_asked_again() -> None:
    state = after(routed(FIRST), failed(FIRST))
    assert decide(state, AGAIN) == Ask(try_number=2, in_doubt=None)


def test_an_intent_without_outcome_puts_the_next_try_in_doubt() -> None:
    intent = routed(FIRST)
    assert decide(after(intent), FIRST) == Ask(try_number=2, in_doubt=intent)


def test_only_an_upstream_in_doubt_makes_a_cost_unconfirmed() -> None:
    assert settlement(None) == "settled"
    assert settlement(routed(FIRST, route="local")) == "settled"
    assert settlement(routed(FIRST, route="upstream")) == "unconfirmed"


def test_a_recorded_answer_answers_its_own_body_and_no_other() -> None:
    answer = completed(FIRST)
    assert answers(answer, FIRST.request)
    assert not answers(answer, FIRST.request + b" ")


def test_failures_remembered_are_bounded() -> None:
    requests = [requested(nonce=str(n)) for n in range(100)]
    state = after(*(failed(request) for request in requests))
    assert len(state.failures) <= 8
    assert decide(state, requests[-1]) == Answered()
