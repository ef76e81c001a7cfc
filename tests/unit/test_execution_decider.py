"""The execution's rules: what a command or a runner's report leads to, once and only once."""

from __future__ import annotations

import pytest

from streams.execution import events as e
from streams.execution.commands import ExecutionCommand
from streams.execution.decider import (
    LOST_WITHOUT_PROGRESS_MAX,
    Failure,
    Interrupt,
    begin,
    complete,
    decide,
    fail,
    interrupt,
    resume_values,
    runner_lost,
)
from streams.execution.state import RESUME_SIGNAL, Status
from streams.messages import Event
from tests.support.execution import (
    Story,
    asked,
    cancel,
    completed,
    denied,
    granted,
    options_json,
    pause,
    paused,
    queued,
    resolve,
    resume,
    signal,
    start,
    started,
    step_completed,
)

COMMANDS: list[ExecutionCommand] = [cancel(), pause(), resume(), signal(), resolve("p1")]


def test_a_start_queues_the_execution_with_the_place_of_its_command() -> None:
    (event,) = decide(start(), None, command_offset=12)

    assert isinstance(event, e.ExecutionQueued)
    assert (event.workflow, event.command_offset) == ("loan", 12)


def test_a_start_with_unreadable_options_is_queued_and_ends_at_once() -> None:
    story = Story()

    events = decide(start(options='{"toolz": {}}'), None)
    story.then(*events)

    assert [type(event) for event in events] == [e.ExecutionQueued, e.ExecutionFailed]
    assert story.state.status is Status.FAILED
    refusal = events[1]
    assert isinstance(refusal, e.ExecutionFailed)
    assert (refusal.error_class, refusal.error_type) == ("rejected", "unknown_field")
    assert "toolz" in refusal.error_message


def test_a_start_of_a_known_execution_gives_nothing() -> None:
    assert decide(start(), Story(queued()).state) == ()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_for_an_unknown_execution_gives_nothing(command: ExecutionCommand) -> None:
    assert decide(command, None) == ()


@pytest.mark.parametrize("command", [start(), *COMMANDS])
def test_a_command_for_an_ended_execution_gives_nothing(command: ExecutionCommand) -> None:
    assert decide(command, Story(queued(), started(), asked("p1"), completed()).state) == ()


@pytest.mark.parametrize("command", [start(), *COMMANDS])
def test_a_redelivered_command_gives_nothing(command: ExecutionCommand) -> None:
    story = Story() if command == start() else Story(queued(), started(), asked("p1"))

    first = decide(command, story.state if story.told else None)
    story.then(*first)

    assert decide(command, story.state) == ()


@pytest.mark.parametrize(
    "story",
    [
        Story(queued()),
        Story(queued(), started()),
        Story(queued(), started(), asked("p1")),
        Story(queued(), started(), paused()),
    ],
)
def test_a_cancel_ends_it_in_every_open_state(story: Story) -> None:
    story.then(*decide(cancel(), story.state))

    assert story.state.status is Status.CANCELLED


@pytest.mark.parametrize("story", [Story(queued()), Story(queued(), started())])
def test_a_pause_holds_it_and_a_resume_lets_it_go_on(story: Story) -> None:
    story.then(*decide(pause(), story.state))
    assert story.state.status is Status.PAUSED

    events = decide(resume(), story.state)
    story.then(*events)

    assert [getattr(event, "name", "") for event in events] == [RESUME_SIGNAL]
    assert story.state.status is Status.QUEUED


def test_two_pauses_are_two_commands_and_one_pause() -> None:
    story = Story(queued(), started())
    story.then(*decide(pause("first"), story.state))

    story.then(*decide(pause("second"), story.state))

    assert story.state.status is Status.PAUSED


def test_a_signal_is_recorded_with_its_payload() -> None:
    (event,) = decide(signal(to="ready", payload_json="7"), Story(queued(), started()).state)

    assert isinstance(event, e.SignalReceived)
    assert (event.name, event.payload_json) == ("ready", "7")


def test_an_approval_is_granted_or_denied_as_the_person_said() -> None:
    state = Story(queued(), started(), asked("p1")).state

    (yes,) = decide(resolve("p1", value_json="5"), state)
    (no,) = decide(resolve("p1", is_granted=False), state)

    assert isinstance(yes, e.ApprovalGranted)
    assert (yes.approved_by, yes.value_json) == ("ann", "5")
    assert isinstance(no, e.ApprovalDenied)
    assert (no.denied_by, no.reason) == ("ann", "because")


def test_an_unknown_or_answered_question_cannot_be_answered() -> None:
    state = Story(queued(), started(), asked("p1"), granted("p1")).state

    assert decide(resolve("p1", name="second"), state) == ()
    assert decide(resolve("p9"), state) == ()


def test_the_first_incarnation_starts_and_every_later_one_resumes() -> None:
    story = Story(queued())

    (first,) = begin(story.state, "w1", "")
    story.then(first)
    (second,) = begin(story.state, "w2", "owner_changed")
    story.then(second)

    assert isinstance(first, e.ExecutionStarted)
    assert isinstance(second, e.ExecutionResumed)
    assert (second.incarnation, second.reason, second.worker_id) == (1, "owner_changed", "w2")
    assert story.state.incarnation == 1


def test_an_execution_ends_once_whoever_ends_it() -> None:
    story = Story(queued(), started())
    why = Failure(error_class="timeout", error_type="Deadline", error_message="too long")

    ends = [*complete(story.state, "1"), *fail(story.state, why), *decide(cancel(), story.state)]

    assert len({end.event_id for end in ends}) == 1
    story.then(ends[0])
    assert complete(story.state, "2") == ()
    assert fail(story.state, why) == ()


def test_an_interrupt_asks_one_question_for_each_that_has_none() -> None:
    story = Story(queued(), started())
    questions = [
        Interrupt(interrupt_id="i1", step="a", payload_json='"age?"'),
        Interrupt(interrupt_id="i2", step="a", payload_json='"name?"'),
    ]

    story.then(*interrupt(story.state, questions))

    assert story.state.status is Status.WAITING_APPROVAL
    assert [a.call_id for a in story.state.pending] == ["i1", "i2"]
    assert interrupt(story.state, questions) == ()


def test_an_interrupt_that_is_asked_again_after_its_answer_is_a_new_question() -> None:
    story = Story(queued(), started())
    question = [Interrupt(interrupt_id="i1", step="a", payload_json="1")]
    (first,) = interrupt(story.state, question)
    assert isinstance(first, e.ApprovalRequested)
    story.then(first, granted(first.approval_id))

    (second,) = interrupt(story.state, question)

    assert isinstance(second, e.ApprovalRequested)
    assert second.approval_id != first.approval_id


def test_the_answer_to_an_interrupt_is_told_until_something_follows_from_it() -> None:
    story = Story(queued(), started(), asked("p1", call_id="i1"), granted("p1", value_json="5"))
    assert resume_values(story.state) == {}

    story.then(*begin(story.state, "w1", "approval"))
    assert resume_values(story.state) == {"i1": "5"}

    story.then(*begin(story.state, "w1", "runner_lost"))
    assert resume_values(story.state) == {"i1": "5"}

    story.then(step_completed(), *begin(story.state, "w1", "runner_lost"))
    assert resume_values(story.state) == {}


def test_a_plain_yes_or_no_answers_true_or_false() -> None:
    story = Story(queued(), started(), asked("p1", call_id="i1"), asked("p2", call_id="i2"))
    story.then(granted("p1"), denied("p2"))

    story.then(*begin(story.state, "w1", "approval"))

    assert resume_values(story.state) == {"i1": "true", "i2": "false"}


def test_gates_are_not_told_as_resume_values() -> None:
    story = Story(queued(), started(), asked("p1", kind="tool_gate"), granted("p1"))

    story.then(*begin(story.state, "w1", "approval"))

    assert resume_values(story.state) == {}


def test_a_lost_runner_is_replaced_until_too_many_died_without_progress() -> None:
    state = Story(queued(), started()).state

    assert runner_lost(state, LOST_WITHOUT_PROGRESS_MAX - 1, "signal 9") == ()
    (end,) = runner_lost(state, LOST_WITHOUT_PROGRESS_MAX, "signal 9")

    assert isinstance(end, e.ExecutionFailed)
    assert (end.error_class, "signal 9" in end.error_message) == ("runner_lost", True)


def test_good_options_are_kept_as_they_were_asked() -> None:
    text = options_json(tools={"pay": {"policy": "reconcile"}})

    (event,) = decide(start(options=text), None)

    assert isinstance(event, e.ExecutionQueued)
    assert event.options_json == text


def test_commands_that_had_nothing_to_do_do_nothing_when_delivered_again() -> None:
    story = Story(queued(), started(), asked("p1"))
    commands = [resume("r0"), pause("w1"), resolve("p1", name="y"), resume("r1"), pause("w2")]
    for command in commands:
        story.then(*decide(command, story.state))
    settled = story.state

    for command in commands:
        story.then(*decide(command, story.state))

    assert story.state == settled


def test_an_execution_that_waits_for_a_person_can_be_paused() -> None:
    story = Story(queued(), started(), asked("p1"))

    story.then(*decide(pause(), story.state))

    assert story.state.status is Status.PAUSED


def test_a_start_with_bottomless_options_is_refused_like_any_other() -> None:
    text = '{"constraints": ' + "[" * 100_000 + "]" * 100_000 + "}"

    events = decide(start(options=text), None)

    assert [type(event) for event in events] == [e.ExecutionQueued, e.ExecutionFailed]


@pytest.mark.parametrize("held", [paused(), asked(), completed()])
def test_no_runner_begins_on_an_execution_that_is_held_or_over(held: Event) -> None:
    assert begin(Story(queued(), started(), held).state, "w1", "runner_lost") == ()
