"""Laws 3, 5 and 6 of the execution core over arbitrary histories."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.decider import fold
from streams.execution.commands import ExecutionCommand
from streams.execution.decider import begin, decide
from streams.execution.effects import Verdict, ask
from streams.execution.journal import EffectState, Journal
from streams.execution.options import Policy
from streams.execution.state import Execution, evolve
from streams.messages import Message
from tests.support.execution import Story, around, options_json, question, queued, start
from tests.support.histories import LAW, commands, events, histories

State = Execution | None


def state_of(told: list[Message], begun: State = None) -> State:
    """The state after the events."""
    return fold(evolve, begun, told)


def journal_of(told: list[Message]) -> Journal:
    """The journal after the events."""
    journal = Journal()
    for event in told:
        journal.apply(event)
    return journal


@LAW
@given(st.lists(events(), max_size=20))
def test_the_fold_is_total(told: list[Message]) -> None:
    state_of(told)
    journal_of(told)


@LAW
@given(histories(), st.data())
def test_a_prefix_and_the_rest_fold_to_the_same_as_all(
    told: list[Message], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(told)))

    resumed = state_of(told[cut:], state_of(told[:cut]))

    assert resumed == state_of(told)


@LAW
@given(histories(), st.data())
def test_an_event_told_again_later_changes_nothing(
    told: list[Message], data: st.DataObject
) -> None:
    event = data.draw(st.sampled_from(told))

    once, twice = Story(*told), Story(*told, event)

    assert twice.state.status == once.state.status
    assert twice.state.approvals == once.state.approvals
    assert twice.state.incarnation == once.state.incarnation
    assert twice.journal.effects == once.journal.effects
    assert twice.journal.records == once.journal.records


@LAW
@given(histories())
def test_a_journal_that_reads_the_log_twice_is_the_same_journal(told: list[Message]) -> None:
    once, twice = journal_of(told), journal_of([*told, *told])

    assert twice.effects == once.effects
    assert twice.records == once.records


@LAW
@given(histories(), events())
def test_an_ended_execution_stays_as_it_ended(told: list[Message], late: Message) -> None:
    state = Story(*told).state

    assert not state.status.is_terminal or evolve(state, late) == state


@LAW
@given(st.lists(commands(), max_size=8), st.data())
def test_commands_delivered_again_from_any_point_give_nothing(
    later: list[ExecutionCommand], data: st.DataObject
) -> None:
    sent = [start(), *later]
    state: State = None
    for command in sent:
        state = state_of(list(decide(command, state)), state)
    settled = state

    for command in sent[data.draw(st.integers(0, len(sent))) :]:
        given_again = decide(command, state)
        assert given_again == ()
        state = state_of(list(given_again), state)

    assert state == settled


@LAW
@given(histories(), commands())
def test_what_a_command_leads_to_is_decided_once(
    told: list[Message], command: ExecutionCommand
) -> None:
    story = Story(*told)

    story.then(*decide(command, story.state))

    assert decide(command, story.state) == ()


@LAW
@given(
    histories(),
    st.sampled_from(list(Policy)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 100_000),
)
def test_a_finished_effect_never_gets_a_go_again(
    told: list[Message], policy: Policy, is_dead: bool, is_replay_over: bool, now_ms: int
) -> None:
    options = options_json(tools={"pay": {"policy": policy.value}})
    story = Story(queued(options=options), *told)
    near = around(now_ms=now_ms, is_predecessor_dead=is_dead, is_replay_over=is_replay_over)
    finished = [
        e
        for e in story.journal.effects.values()
        if e.kind == "tool" and e.state is not EffectState.INTENDED
    ]

    for effect in finished:
        for _ in range(2):
            answer = ask(question(effect.call_id), story.state, story.journal, near)
            assert answer.verdict in (Verdict.RECORDED, Verdict.SUSPEND)
            story.then(*answer.events, *begin(story.state, "w", "runner_lost"))


@LAW
@given(histories(), st.sampled_from(list(Policy)), st.booleans())
def test_a_go_for_a_tool_always_carries_an_intent_of_its_own(
    told: list[Message], policy: Policy, is_dead: bool
) -> None:
    options = options_json(tools={"pay": {"policy": policy.value}})
    story = Story(queued(options=options), *told)

    for call in ("t1", "t2", "t3"):
        answer = ask(
            question(call), story.state, story.journal, around(is_predecessor_dead=is_dead)
        )
        intents = [event for event in answer.events if type(event).__name__ == "ToolCallIntended"]
        assert bool(intents) == (answer.verdict in (Verdict.GO, Verdict.RECONCILE))


@LAW
@given(histories())
def test_the_same_question_gets_the_same_answer_from_whoever_folded_the_same_log(
    told: list[Message],
) -> None:
    first, second = Story(*told), Story(*told)

    for call in ("t1", "t2", "t3"):
        assert ask(question(call), first.state, first.journal, around()) == ask(
            question(call), second.state, second.journal, around()
        )
