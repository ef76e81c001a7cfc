"""What a runner may do when it asks before a call: every branch of the rule (laws 3 and 7)."""

from __future__ import annotations

import pytest

from streams.execution import events as e
from streams.execution.effects import (
    NETWORK_MS_ASSUMED,
    TOOL_MS_ASSUMED,
    Answer,
    Question,
    Surroundings,
    Verdict,
    ask,
)
from streams.execution.journal import EffectState
from streams.messages import Message
from tests.support.execution import (
    LEASE_MS,
    WINDOW_MS,
    Story,
    around,
    cancelled,
    denied,
    granted,
    llm_intended,
    options_json,
    paused,
    question,
    queued,
    resumed,
    started,
    tool_completed,
    tool_failed,
    tool_intended,
)


def policy(name: str, **other: object) -> str:
    """Options in which the tool `pay` has this policy."""
    return options_json(tools={"pay": {"policy": name, **other}})


def answer(story: Story, asked: Question | None = None, near: Surroundings | None = None) -> Answer:
    """The rule's answer, with its events told to the story."""
    given = ask(asked or question(), story.state, story.journal, near or around())
    story.then(*given.events)
    return given


def in_doubt(options: str = "{}") -> Story:
    """A tool call whose runner died in flight, and the next incarnation."""
    return Story(queued(options=options), started(), tool_intended(), resumed(1))


def kinds(events: tuple[Message, ...]) -> list[str]:
    """The names of the events."""
    return [type(event).__name__ for event in events]


def approval_of(given: Answer) -> str:
    """The id of the question that the answer asks a person."""
    (request,) = [event for event in given.events if isinstance(event, e.ApprovalRequested)]
    return request.approval_id


def test_a_new_tool_call_goes_after_its_intent() -> None:
    story = Story(queued(options=policy("reconcile")), started())

    given = answer(story)

    (intent,) = given.events
    assert given.verdict is Verdict.GO
    assert isinstance(intent, e.ToolCallIntended)
    assert (intent.call_id, intent.policy, intent.incarnation) == ("t1", "reconcile", 0)
    assert story.journal.effects["t1"].state is EffectState.INTENDED


def test_a_new_llm_call_goes_after_its_intent() -> None:
    given = answer(Story(queued(), started()), question("l1", kind="llm", name="gpt-oss-20b"))

    (intent,) = given.events
    assert given.verdict is Verdict.GO
    assert isinstance(intent, e.LlmCallIntended)
    assert (intent.call_id, intent.model) == ("l1", "gpt-oss-20b")


def test_a_known_llm_call_goes_again_without_a_new_intent() -> None:
    story = Story(queued(), started(), llm_intended("l1"), resumed(1))

    given = answer(story, question("l1", kind="llm", name="gpt-oss-20b"))

    assert (given.verdict, given.events) == (Verdict.GO, ())


@pytest.mark.parametrize(
    "near", [around(), around(is_predecessor_dead=False, is_replay_over=False)]
)
def test_a_finished_tool_never_goes_again(near: Surroundings) -> None:
    story = Story(queued(), started(), tool_intended(), tool_completed(result=b"7"), resumed(1))

    given = answer(story, near=near)

    assert (given.verdict, given.events) == (Verdict.RECORDED, ())
    assert given.effect is not None
    assert given.effect.result == b"7"


def test_a_failed_tool_is_recorded_as_failed() -> None:
    story = Story(queued(), started(), tool_intended(), tool_failed(message="no funds"), resumed(1))

    given = answer(story)

    assert given.verdict is Verdict.RECORDED
    assert given.effect is not None
    assert (given.effect.state, given.effect.error_message) == (EffectState.FAILED, "no funds")


def test_a_call_that_is_asked_again_in_the_same_incarnation_goes_with_an_intent_of_its_own() -> (
    None
):
    story = Story(queued(), started(), tool_intended())

    given = answer(story)

    assert given.verdict is Verdict.GO
    assert kinds(given.events) == ["ToolCallIntended"]


def test_an_idempotent_tool_in_doubt_goes_again_at_once() -> None:
    given = answer(in_doubt(policy("idempotent")), near=around(is_predecessor_dead=False))

    assert given.verdict is Verdict.GO
    (intent,) = given.events
    assert isinstance(intent, e.ToolCallIntended)
    assert intent.incarnation == 1


@pytest.mark.parametrize("name", ["reconcile", "at_most_once"])
def test_a_tool_in_doubt_waits_while_its_predecessor_may_be_alive(name: str) -> None:
    story = in_doubt(policy(name, timeout_s=5))
    safe_at_ms = LEASE_MS + WINDOW_MS + 5_000 + NETWORK_MS_ASSUMED

    early = answer(story, near=around(now_ms=safe_at_ms - 1, is_predecessor_dead=False))
    assert (early.verdict, early.events, early.wait_ms) == (Verdict.WAIT, (), 1)

    late = answer(story, near=around(now_ms=safe_at_ms, is_predecessor_dead=False))
    assert late.verdict in (Verdict.RECONCILE, Verdict.SUSPEND)


def test_a_tool_without_a_timeout_is_assumed_to_run_for_a_while() -> None:
    given = answer(in_doubt(policy("reconcile")), near=around(is_predecessor_dead=False))

    assert given.wait_ms == LEASE_MS + WINDOW_MS + TOOL_MS_ASSUMED + NETWORK_MS_ASSUMED


def test_proof_of_death_spares_the_wait() -> None:
    assert answer(in_doubt(policy("reconcile"))).verdict is Verdict.RECONCILE


def test_reconciliation_takes_the_call_over_with_an_intent_so_that_a_rerun_is_its_own() -> None:
    story = in_doubt(policy("reconcile"))

    first = answer(story)
    again = answer(story)

    assert kinds(first.events) == ["ToolCallIntended"]
    assert story.journal.effects["t1"].incarnation == 1
    assert (again.verdict, kinds(again.events)) == (Verdict.GO, ["ToolCallIntended"])


def test_an_at_most_once_tool_in_doubt_asks_a_person_and_waits() -> None:
    story = in_doubt(policy("at_most_once"))

    first = answer(story)
    second = answer(story)

    assert (first.verdict, kinds(first.events)) == (Verdict.SUSPEND, ["ApprovalRequested"])
    (request,) = first.events
    assert isinstance(request, e.ApprovalRequested)
    assert (request.kind, request.tool) == ("tool_in_doubt", "pay")
    assert "may have happened" in request.payload_json
    assert (second.verdict, second.events) == (Verdict.SUSPEND, ())


def test_an_undeclared_tool_is_at_most_once() -> None:
    assert kinds(answer(in_doubt()).events) == ["ApprovalRequested"]


def test_an_at_most_once_tool_goes_again_when_a_person_said_so() -> None:
    story = in_doubt()
    asked = answer(story)
    story.then(granted(approval_of(asked)), resumed(2))

    given = answer(story)

    assert (given.verdict, kinds(given.events)) == (Verdict.GO, ["ToolCallIntended"])


def test_an_at_most_once_tool_is_denied_when_a_person_said_no() -> None:
    story = in_doubt()
    asked = answer(story)
    story.then(denied(approval_of(asked), reason="it did happen"), resumed(2))

    given = answer(story)

    assert (given.verdict, given.events, given.reason) == (Verdict.DENY, (), "it did happen")


def test_a_denial_without_a_reason_still_says_why() -> None:
    story = in_doubt()
    asked = answer(story)
    story.then(denied(approval_of(asked), reason=""), resumed(2))

    assert answer(story).reason == "a person said no"


def test_a_gated_tool_asks_before_its_first_intent() -> None:
    story = Story(queued(options=policy("idempotent", approval=True)), started())

    first = answer(story)
    second = answer(story)

    assert (first.verdict, kinds(first.events)) == (Verdict.SUSPEND, ["ApprovalRequested"])
    assert (second.verdict, second.events) == (Verdict.SUSPEND, ())
    assert story.journal.effects == {}


def test_a_gated_tool_goes_once_it_was_approved() -> None:
    story = Story(queued(options=policy("idempotent", approval=True)), started())
    story.then(granted(approval_of(answer(story))), resumed(1))

    given = answer(story)

    assert (given.verdict, kinds(given.events)) == (Verdict.GO, ["ToolCallIntended"])


def test_a_gated_tool_that_was_refused_is_denied() -> None:
    story = Story(queued(options=policy("idempotent", approval=True)), started())
    story.then(denied(approval_of(answer(story))), resumed(1))

    assert answer(story).verdict is Verdict.DENY


def test_an_approved_gate_does_not_settle_a_later_doubt() -> None:
    story = Story(queued(options=policy("at_most_once", approval=True)), started())
    story.then(granted(approval_of(answer(story))), resumed(1))
    assert answer(story).verdict is Verdict.GO
    story.then(resumed(2))

    given = answer(story)

    assert (given.verdict, kinds(given.events)) == (Verdict.SUSPEND, ["ApprovalRequested"])


def test_a_gate_never_holds_an_llm_call() -> None:
    story = Story(queued(options=options_json(tools={"*": {"approval": True}})), started())

    assert answer(story, question("l1", kind="llm", name="m")).verdict is Verdict.GO


def test_a_strange_question_waits_for_the_replay_to_end() -> None:
    story = Story(queued(), started(), tool_intended("t1"), tool_completed("t1"), resumed(1))

    given = answer(story, question("t9"), around(is_replay_over=False))

    assert (given.verdict, given.events) == (Verdict.WAIT, ())


def test_a_new_question_is_no_divergence_once_the_journal_was_asked() -> None:
    story = Story(queued(), started(), tool_intended("t1"), tool_completed("t1"), resumed(1))
    assert answer(story, question("t1")).verdict is Verdict.RECORDED

    given = answer(story, question("t2"), around(is_replay_over=False))

    assert (given.verdict, kinds(given.events)) == (Verdict.GO, ["ToolCallIntended"])


def test_effects_of_other_steps_and_kinds_are_no_strangers() -> None:
    story = Story(queued(), started(), tool_intended("t1"), tool_completed("t1"), resumed(1))

    assert answer(story, question("t2", step_key="b#1")).verdict is Verdict.GO
    assert answer(story, question("l1", kind="llm", name="m")).verdict is Verdict.GO


def diverged(on_divergence: str) -> Story:
    """A replay that will ask another question than its journal holds."""
    options = options_json(on_divergence=on_divergence)
    return Story(
        queued(options=options), started(), tool_intended("t1"), tool_completed("t1"), resumed(1)
    )


def test_divergence_fails_the_execution_when_told_to() -> None:
    given = answer(diverged("fail"), question("t9"))

    assert (given.verdict, kinds(given.events)) == (Verdict.FAIL, ["ReplayDiverged"])
    (said,) = given.events
    assert isinstance(said, e.ReplayDiverged)
    assert ("hash of t1" in said.expected_json, "hash of t9" in said.actual_json) == (True, True)
    assert (said.kind, said.policy) == ("tool", "fail")


def test_divergence_is_said_and_goes_on_when_told_to() -> None:
    given = answer(diverged("continue"), question("t9"))

    assert given.verdict is Verdict.GO
    assert kinds(given.events) == ["ReplayDiverged", "ToolCallIntended"]


def test_divergence_is_said_and_asks_a_person_by_default() -> None:
    story = diverged("ask")

    first = answer(story, question("t9"))
    second = answer(story, question("t9"))

    assert first.verdict is Verdict.SUSPEND
    assert kinds(first.events) == ["ReplayDiverged", "ApprovalRequested"]
    assert (second.verdict, second.events) == (Verdict.SUSPEND, ())


def test_a_divergence_that_a_person_accepted_goes_on() -> None:
    story = diverged("ask")
    asked = answer(story, question("t9"))
    story.then(granted(approval_of(asked)), resumed(2))

    given = answer(story, question("t9"))

    assert (given.verdict, kinds(given.events)) == (Verdict.GO, ["ToolCallIntended"])


def test_a_divergence_that_a_person_refused_is_denied() -> None:
    story = diverged("ask")
    asked = answer(story, question("t9"))
    story.then(denied(approval_of(asked)), resumed(2))

    assert answer(story, question("t9")).verdict is Verdict.DENY


def test_a_diverged_llm_call_is_said_too() -> None:
    story = Story(queued(), started(), llm_intended("l1"), resumed(1))

    given = answer(story, question("l9", kind="llm", name="m"))

    assert given.verdict is Verdict.SUSPEND
    assert kinds(given.events) == ["ReplayDiverged", "ApprovalRequested"]


def test_an_accepted_divergence_still_passes_the_tools_gate() -> None:
    options = options_json(tools={"pay": {"approval": True}})
    story = Story(
        queued(options=options), started(), tool_intended("t1"), tool_completed("t1"), resumed(1)
    )
    story.then(granted(approval_of(answer(story, question("t9")))), resumed(2))

    given = answer(story, question("t9"))

    (request,) = given.events
    assert isinstance(request, e.ApprovalRequested)
    assert (given.verdict, request.kind) == (Verdict.SUSPEND, "tool_gate")


def test_the_same_question_has_the_same_events_whoever_asks() -> None:
    first = answer(Story(queued(), started()))
    second = answer(Story(queued(), started()))

    assert first.events == second.events


def test_a_persons_yes_settles_one_doubt_and_not_the_next() -> None:
    story = in_doubt()
    story.then(granted(approval_of(answer(story))), resumed(2))
    assert answer(story).verdict is Verdict.GO
    story.then(resumed(3))

    given = answer(story)

    assert (given.verdict, kinds(given.events)) == (Verdict.SUSPEND, ["ApprovalRequested"])


@pytest.mark.parametrize("held", [paused(), cancelled()])
@pytest.mark.parametrize("asked", [question(), question("l1", kind="llm", name="m")])
def test_nothing_new_begins_once_the_execution_is_held_or_over(
    held: Message, asked: Question
) -> None:
    story = Story(queued(), started(), llm_intended("l1"), held)

    given = answer(story, asked)

    assert (given.verdict, given.events) == (Verdict.SUSPEND, ())
