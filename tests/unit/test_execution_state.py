"""The fold of an execution's events: what a reader believes, whatever comes (law 6)."""

from __future__ import annotations

import pytest

from streams.execution.options import Options
from streams.execution.state import HANDLED_MAX, RESUME_SIGNAL, Execution, Status, evolve
from streams.messages import Message
from tests.support.execution import (
    Story,
    asked,
    cancelled,
    checkpoint,
    completed,
    denied,
    failed,
    granted,
    llm_intended,
    paused,
    queued,
    resumed,
    signalled,
    started,
    step_completed,
    tool_completed,
    tool_failed,
    tool_intended,
)

ENDS = [
    (completed(), Status.COMPLETED),
    (failed(), Status.FAILED),
    (cancelled(), Status.CANCELLED),
]


def test_nothing_is_known_before_the_first_event() -> None:
    assert evolve(None, started()) is None
    assert evolve(None, completed()) is None


def test_an_execution_begins_queued_with_what_was_asked() -> None:
    state = Story(queued(options='{"tools": {"pay": {"approval": true}}}')).state

    assert state.status is Status.QUEUED
    assert state.incarnation == -1
    assert state.options.tool("pay").needs_approval


def test_a_runner_makes_it_run_and_each_later_one_is_a_new_incarnation() -> None:
    story = Story(queued(), started())
    assert (story.state.status, story.state.incarnation) == (Status.RUNNING, 0)

    story.then(resumed(1))

    assert (story.state.status, story.state.incarnation) == (Status.RUNNING, 1)
    assert story.state.worker_id == "w2"


@pytest.mark.parametrize(("end", "status"), ENDS)
def test_terminal_is_final(end: Message, status: Status) -> None:
    ended = Story(queued(), started(), end).state

    assert ended.status is status
    assert ended.status.is_terminal
    for late in (
        resumed(),
        paused(),
        asked(),
        granted(),
        completed(),
        failed(),
        cancelled(),
        tool_intended(),
    ):
        assert evolve(ended, late) == ended


def test_a_question_waits_and_its_answer_queues_it_again() -> None:
    story = Story(queued(), started(), asked("p1"))
    assert story.state.status is Status.WAITING_APPROVAL

    story.then(granted("p1", value_json='"yes"'))

    assert story.state.status is Status.QUEUED
    assert story.state.approvals["p1"].is_granted is True
    assert story.state.approvals["p1"].value_json == '"yes"'


def test_a_denial_is_an_answer_too() -> None:
    state = Story(queued(), started(), asked("p1"), denied("p1", reason="no")).state

    assert state.status is Status.QUEUED
    assert state.approvals["p1"].is_granted is False
    assert state.approvals["p1"].reason == "no"


def test_it_waits_until_every_question_is_answered() -> None:
    story = Story(queued(), started(), asked("p1", call_id="i1"), asked("p2", call_id="i2"))

    story.then(granted("p1"))
    assert story.state.status is Status.WAITING_APPROVAL

    story.then(granted("p2"))
    assert story.state.status is Status.QUEUED


def test_the_first_answer_counts() -> None:
    answered = Story(queued(), started(), asked("p1"), granted("p1")).state

    again = evolve(answered, denied("p1"))

    assert again is not None
    assert again.approvals == answered.approvals


def test_an_answer_to_an_unknown_question_changes_nothing_but_the_memory_of_it() -> None:
    before = Story(queued(), started()).state

    after = evolve(before, granted("unknown"))

    assert after is not None
    assert (after.status, after.approvals) == (before.status, before.approvals)


def test_a_pause_ends_with_the_resume_signal() -> None:
    story = Story(queued(), started(), paused())
    assert story.state.status is Status.PAUSED

    story.then(signalled(RESUME_SIGNAL))

    assert story.state.status is Status.QUEUED


def test_a_resume_signal_without_a_pause_changes_no_status() -> None:
    assert Story(queued(), started(), signalled(RESUME_SIGNAL)).state.status is Status.RUNNING


def test_a_signal_answers_the_interrupt_of_its_name() -> None:
    story = Story(queued(), started(), asked("p1", call_id="i1"), asked("p2", call_id="i2"))

    story.then(signalled("p2", '"blue"'))

    assert story.state.approvals["p2"].value_json == '"blue"'
    assert story.state.approvals["p1"].is_granted is None
    assert story.state.status is Status.WAITING_APPROVAL


def test_a_signal_of_any_name_answers_the_only_interrupt() -> None:
    state = Story(queued(), started(), asked("p1"), signalled("ready", "7")).state

    assert state.approvals["p1"].value_json == "7"
    assert state.status is Status.QUEUED


def test_a_signal_answers_no_gate() -> None:
    state = Story(queued(), started(), asked("p1", kind="tool_gate"), signalled("p1")).state

    assert state.approvals["p1"].is_granted is None
    assert state.status is Status.WAITING_APPROVAL


def test_a_signal_that_nobody_waits_for_changes_no_status() -> None:
    assert Story(queued(), started(), signalled("ready")).state.status is Status.RUNNING


def test_every_fact_about_the_work_is_progress() -> None:
    facts = (
        tool_intended(),
        tool_completed(),
        tool_failed("t2"),
        llm_intended(),
        step_completed(),
        checkpoint(),
    )

    assert Story(queued(), started(), *facts).state.progress == len(facts)
    assert Story(queued(), started(), resumed()).state.progress == 0


def test_an_answer_is_marked_as_told_when_a_runner_begins() -> None:
    story = Story(queued(), started(), step_completed(), asked("p1"), granted("p1"))
    assert story.state.approvals["p1"].told_at is None

    story.then(resumed(1))
    assert story.state.approvals["p1"].told_at == 1

    story.then(step_completed("b#1"), resumed(2))
    assert story.state.approvals["p1"].told_at == 1


def test_handled_commands_are_remembered_up_to_the_limit() -> None:
    story = Story(queued(), started())

    story.then(*(signalled("x", as_=f"signal {n}") for n in range(HANDLED_MAX + 5)))

    assert len(story.state.handled) == HANDLED_MAX
    assert story.told[-1].event_id in story.state.handled


def test_the_latest_question_about_a_call_is_the_one_that_counts() -> None:
    state: Execution = Story(
        queued(), started(), asked("p1"), granted("p1"), resumed(), asked("p2")
    ).state

    found = state.approval_of("i1")

    assert found is not None
    assert found.approval_id == "p2"
    assert state.approval_of("unknown") is None


def test_a_question_that_is_told_twice_stays_answered() -> None:
    answered = Story(queued(), started(), asked("p1"), granted("p1")).state

    assert evolve(answered, asked("p1")) == answered


def test_a_runner_that_is_told_twice_never_turns_the_incarnation_back() -> None:
    story = Story(queued(), started(), resumed(1), asked("p1"))

    assert evolve(story.state, started()) == story.state
    assert evolve(story.state, resumed(1)) == story.state


def test_a_signal_that_is_told_twice_answers_one_interrupt() -> None:
    story = Story(queued(), started(), asked("p1", call_id="i1"), signalled("go"))
    story.then(resumed(1), asked("p2", call_id="i2"))

    assert evolve(story.state, signalled("go")) == story.state


def test_a_pause_that_is_told_twice_does_not_hold_it_again() -> None:
    story = Story(queued(), started(), paused(), signalled(RESUME_SIGNAL))

    assert evolve(story.state, paused()) == story.state


def test_a_signal_never_ends_a_pause() -> None:
    story = Story(queued(), started(), asked("p1"), paused())

    story.then(signalled("p1", "7"))

    assert story.state.status is Status.PAUSED


def test_a_pause_that_ends_with_open_questions_waits_for_their_answers() -> None:
    story = Story(queued(), started(), asked("p1"), paused())

    story.then(signalled(RESUME_SIGNAL))
    assert story.state.status is Status.WAITING_APPROVAL

    story.then(granted("p1"))
    assert story.state.status is Status.QUEUED


def test_a_question_during_a_pause_keeps_it_paused() -> None:
    story = Story(queued(), started(), paused(), asked("p1"))

    assert story.state.status is Status.PAUSED


def test_options_that_an_older_omium_wrote_fold_to_the_safe_defaults() -> None:
    state = Story(queued(options='{"no_longer_known": 1}')).state

    assert state.options == Options()
