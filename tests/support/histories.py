"""Hypothesis strategies for histories: what a log may hold, sensible or not."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from streams.execution.commands import ExecutionCommand
from streams.execution.events import ToolCallCompleted, ToolCallFailed, ToolCallIntended
from streams.execution.state import RESUME_SIGNAL
from streams.messages import Message
from tests.support import execution as x

LAW = settings(deadline=None, max_examples=60)
"""No deadline an example: the machine is shared and the laws hold no clock."""

_CALLS = st.sampled_from(["t1", "t2"])
_APPROVALS = st.sampled_from(["p1", "p2"])
_INCARNATIONS = st.integers(0, 3)
_NAMES = st.sampled_from([RESUME_SIGNAL, "p1", "ready"])
_RESULTS = st.sampled_from([b"1", b"2"])


def events() -> SearchStrategy[Message]:
    """Any event of one execution, in any order; equal names are the same fact told again."""
    return st.one_of(
        st.just(x.queued()),
        st.just(x.started()),
        _INCARNATIONS.filter(bool).map(x.resumed),
        st.sampled_from(["w1", "w2"]).map(x.paused),
        st.builds(x.signalled, _NAMES, as_=st.sampled_from(["s1", "s2"])),
        st.builds(x.tool_intended, _CALLS, incarnation=_INCARNATIONS),
        st.builds(x.tool_completed, _CALLS, _RESULTS),
        st.builds(x.tool_failed, _CALLS),
        st.builds(x.llm_intended, st.just("l1"), incarnation=_INCARNATIONS),
        st.builds(x.step_completed, st.sampled_from(["a#0", "b#1"])),
        st.just(x.checkpoint()),
        st.builds(x.asked, _APPROVALS, kind=st.sampled_from(["interrupt", "tool_gate"])),
        st.builds(x.granted, _APPROVALS),
        st.builds(x.denied, _APPROVALS),
        st.sampled_from([x.completed(), x.failed(), x.cancelled()]),
    )


def histories(max_size: int = 14) -> SearchStrategy[list[Message]]:
    """An execution that begins as it should and goes on in any way; outcomes follow intents."""
    return st.lists(events(), max_size=max_size).map(lambda later: _possible([x.queued(), *later]))


def _possible(told: list[Message]) -> list[Message]:
    intended: set[str] = set()
    kept: list[Message] = []
    for event in told:
        match event:
            case ToolCallIntended():
                intended.add(event.call_id)
            case ToolCallCompleted() | ToolCallFailed() if event.call_id not in intended:
                continue
        kept.append(event)
    return kept


def commands() -> SearchStrategy[ExecutionCommand]:
    """Any command of one execution; equal names are one command delivered again."""
    names = st.sampled_from(["1", "2"])
    return st.one_of(
        st.just(x.start()),
        names.map(lambda name: x.cancel(f"cancel {name}")),
        names.map(lambda name: x.pause(f"pause {name}")),
        names.map(lambda name: x.resume(f"resume {name}")),
        names.map(lambda name: x.signal(f"signal {name}")),
        st.builds(
            lambda name, approval, yes: x.resolve(
                approval, is_granted=yes, name=f"{approval} {name} {yes}"
            ),
            names,
            _APPROVALS,
            st.booleans(),
        ),
    )
