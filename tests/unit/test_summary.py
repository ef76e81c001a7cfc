"""What people see of an execution is a fold that holds on to facts, in whatever order readers get
them.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from streams.execution import events as e
from streams.execution.state import RESUME_SIGNAL
from streams.execution.state import evolve as evolve_state
from streams.execution.summary import empty, evolve, summarize
from streams.llm.events import LlmCallCompleted
from streams.messages import Message
from tests.support.story import Story

T, X = "acme", "x-1"


def story() -> Story:
    return Story(T, X)


def test_a_whole_life_is_told_with_its_sums() -> None:
    view = summarize(T, X, story().whole())
    assert (view.status, view.output_json) == ("completed", '{"status": "approved", "apr": 6.4}')
    assert [(s.step, s.status, s.attempts) for s in view.steps] == [
        ("gather", "completed", 1),
        ("assess", "completed", 1),
        ("decide", "completed", 1),
    ]
    assert (view.count("llm"), view.count("tool")) == (3, 3)
    assert view.total(lambda call: call.cost_microusd) == 93
    assert view.is_settled


@given(st.integers(min_value=0, max_value=10_000))
def test_llm_answers_may_come_at_any_time_and_twice(seed: int) -> None:
    # given the two topics in any interleaving, LLM answers repeated
    events = story().whole()
    answers = [event for event in events if isinstance(event, LlmCallCompleted)]
    own = [event for event in events if not isinstance(event, LlmCallCompleted)]
    random, merged = Random(seed), list(own)
    for answer in (*answers, *answers):
        merged.insert(random.randrange(len(merged) + 1), answer)

    # then the view is the same, up to the order in which calls were heard of
    told, expected = summarize(T, X, merged), summarize(T, X, events)
    order = sorted(told.calls, key=lambda call: call.call_id)
    assert [replace(c, started_at_ms=0) for c in order] == [
        replace(c, started_at_ms=0) for c in sorted(expected.calls, key=lambda call: call.call_id)
    ]
    assert replace(told, calls=()) == replace(expected, calls=())


def test_an_end_is_settled_once_every_llm_answer_is_known() -> None:
    events = story().whole(("gather",))
    late = next(event for event in events if isinstance(event, LlmCallCompleted))
    view = summarize(T, X, [event for event in events if event is not late])
    assert view.is_terminal
    assert not view.is_settled
    assert evolve(view, late).is_settled


def test_a_resume_is_no_attempt_and_a_retry_is_one() -> None:
    s = story()
    begun = [s.queued(), s.started(), s.step_started("gather", 1)]
    resumed = [s.resumed(1), s.step_started("gather", 1, incarnation=1)]
    retried = [s.step_failed("gather", 1), s.step_started("gather", 1, attempt=2)]
    assert summarize(T, X, begun + resumed).steps[0].attempts == 1
    view = summarize(T, X, begun + resumed + retried)
    assert (view.steps[0].attempts, view.steps[0].status, view.incarnation) == (2, "running", 1)


def test_nothing_changes_the_status_after_the_end() -> None:
    s = story()
    ended = summarize(T, X, [s.queued(), s.started(), s.completed()])
    later = [s.cancelled(), s.resumed(5), s.approval_requested("a")]
    for event in later:
        assert evolve(ended, event).status == "completed"


def test_the_first_outcome_of_a_call_counts() -> None:
    s = story()
    asked = s.llm_intended("gather", 1)
    tool = s.tool_intended("gather", 1)
    failed = e.ToolCallFailed(
        **s.of("ToolCallFailed"),  # type: ignore[arg-type]
        call_id=tool.call_id,
        step="gather",
        tool=tool.tool,
        error_type="Late",
        error_message="",
        duration_ms=1,
    )
    events: list[Message] = [asked, s.llm_completed(asked), s.llm_completed(asked, tokens=(9, 9))]
    events += [tool, s.tool_completed(tool), failed]
    view = summarize(T, X, events)
    assert [(c.kind, c.status, c.input_tokens) for c in view.calls] == [
        ("llm", "completed", 210),
        ("tool", "completed", 0),
    ]


def _lifecycle() -> st.SearchStrategy[list[Message]]:
    """Any order of what moves an execution between states, impossible ones included."""
    s = story()
    approvals = ("a", "b")
    asked = [s.approval_requested(name) for name in approvals]
    granted = [
        e.ApprovalGranted(
            **s.of("ApprovalGranted", ordinal=name),  # type: ignore[arg-type]
            approval_id=name,
            approved_by="p",
            reason="",
            value_json="1",
        )
        for name in approvals
    ]
    signals = [
        e.SignalReceived(**s.of("SignalReceived", ordinal=name), name=name, payload_json="1")  # type: ignore[arg-type]
        for name in ("a", "other", RESUME_SIGNAL)
    ]
    paused = e.ExecutionPaused(**s.of("ExecutionPaused"), reason="")  # type: ignore[arg-type]
    resumes = [s.resumed(1), s.resumed(2)]
    ends = [s.completed(), s.cancelled()]
    pool = [s.started(), paused, *resumes, *asked, *granted, *signals, *ends]
    return st.lists(st.sampled_from(pool), max_size=12, unique_by=id)


@given(_lifecycle())
def test_people_see_the_status_that_the_decider_acts_on(events: list[Message]) -> None:
    first = story().queued()
    state, view = evolve_state(None, first), evolve(empty(T, X), first)
    for event in events:
        state, view = evolve_state(state, event), evolve(view, event)
        assert state is not None
        assert view.status == state.status.value
