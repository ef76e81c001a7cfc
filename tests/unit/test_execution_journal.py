"""The journal: what was asked of the world and what came back."""

from __future__ import annotations

from streams.execution.journal import EffectState, FrameworkRecord, Journal
from tests.support.execution import (
    checkpoint,
    llm_intended,
    queued,
    step_completed,
    tool_completed,
    tool_failed,
    tool_intended,
)


def journal(*events: object) -> Journal:
    """The journal of the events."""
    made = Journal()
    for event in events:
        made.apply(event)  # type: ignore[arg-type]  # builders give messages
    return made


def test_an_intent_is_remembered_with_its_question() -> None:
    effect = journal(tool_intended("t1", incarnation=2)).effects["t1"]

    assert (effect.kind, effect.name, effect.state) == ("tool", "pay", EffectState.INTENDED)
    assert (effect.step_key, effect.request_hash, effect.incarnation) == ("a#0", "hash of t1", 2)


def test_an_outcome_is_remembered_with_its_answer() -> None:
    effect = journal(tool_intended(), tool_completed(result=b"7")).effects["t1"]

    assert (effect.state, effect.result_type, effect.result) == (
        EffectState.COMPLETED,
        "json",
        b"7",
    )


def test_a_failure_is_an_outcome_too() -> None:
    effect = journal(tool_intended(), tool_failed(message="no funds")).effects["t1"]

    assert (effect.state, effect.error_message) == (EffectState.FAILED, "no funds")


def test_a_new_intent_moves_the_incarnation_and_never_reopens_an_outcome() -> None:
    made = journal(tool_intended(), tool_completed(), tool_intended(incarnation=3))

    assert made.effects["t1"].state is EffectState.COMPLETED
    assert made.effects["t1"].incarnation == 3


def test_an_outcome_without_an_intent_is_no_effect() -> None:
    assert journal(tool_completed(), tool_failed()).effects == {}


def test_framework_records_come_back_once_and_in_log_order() -> None:
    made = journal(
        checkpoint(), step_completed("a#0"), step_completed("a#0"), step_completed("b#1")
    )

    assert made.records == [
        FrameworkRecord(step_key="", kind="checkpoint", record=b"input"),
        FrameworkRecord(step_key="a#0", kind="step", record=b"state"),
        FrameworkRecord(step_key="b#1", kind="step", record=b"state"),
    ]


def test_an_empty_framework_record_is_not_kept() -> None:
    assert journal(checkpoint(record=b""), step_completed(record=b"")).records == []


def test_events_that_are_no_effect_change_nothing() -> None:
    made = journal(queued())

    assert made.effects == {}
    assert made.records == []


def test_unasked_effects_are_those_of_the_step_that_only_an_earlier_incarnation_asked_for() -> None:
    made = journal(
        tool_intended("t1"),
        tool_intended("t2"),
        tool_intended("elsewhere", step_key="b#1"),
        tool_intended("now", incarnation=1),
        llm_intended("l1"),
    )
    made.effects["t2"].asked_in = 1

    assert [effect.call_id for effect in made.unasked("a#0", "tool", 1)] == ["t1"]
    assert [effect.call_id for effect in made.unasked("a#0", "llm", 1)] == ["l1"]
    assert made.unasked("a#0", "tool", 0) == []


def test_the_first_outcome_counts() -> None:
    twice = journal(tool_intended(), tool_completed(result=b"1"), tool_completed(result=b"2"))
    mixed = journal(tool_intended(), tool_failed(), tool_completed())

    assert twice.effects["t1"].result == b"1"
    assert mixed.effects["t1"].state is EffectState.FAILED
