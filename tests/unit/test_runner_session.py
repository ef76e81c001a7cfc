"""When a runner may act on what it was told (SPINE rule 1), and under which name."""

from __future__ import annotations

import pytest

from producers.runner import session as sessions
from producers.runner.protocol import Frame, Header, StartHeader
from producers.runner.session import Session, StepInfo
from producers.runner.signals import Cancelled, Suspended


class Scripted:
    """A channel whose replies take as long as the script says."""

    def __init__(self, replies: list[tuple[float, str]]) -> None:
        self.replies = replies
        self.sent: list[str] = []
        self.now_s = 100.0
        self.cancel_reason: str | None = None

    def begin(self, kind: str, header: Header, blob: bytes = b"") -> int:
        self.sent.append(kind)
        return len(self.sent)

    def wait(self, ticket: int) -> Frame:
        took_s, decision = self.replies[ticket - 1]
        self.now_s += took_s
        return Frame("reply", {"seq": ticket, "decision": decision})


START: StartHeader = {
    "execution_id": "e", "tenant": "t", "workflow": "w", "framework": "python", "entrypoint": "",
    "input_json": "", "options_json": "", "incarnation": 1, "attempt": 1, "gateway_url": "",
    "api_key": "", "deadline_at_ms": None, "is_resume": False, "resume_values": {}, "records": 0,
    "is_reusable": False,
}  # fmt: skip


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    scripted = Scripted([])
    monkeypatch.setattr(sessions.time, "monotonic", lambda: scripted.now_s)
    return scripted


def session_on(channel: Scripted, start: StartHeader = START) -> Session:
    return Session(channel=channel, start=start)  # type: ignore[arg-type]


def test_a_go_that_came_too_late_is_asked_for_again(channel: Scripted) -> None:
    channel.replies = [(6.0, "go"), (5.1, "go"), (0.1, "go")]

    reply = session_on(channel).intend("tool_intended", {})

    assert reply.text("decision") == "go"
    assert channel.sent == ["tool_intended"] * 3


def test_a_recorded_answer_is_never_too_late(channel: Scripted) -> None:
    channel.replies = [(60.0, "recorded")]

    assert session_on(channel).intend("tool_intended", {}).text("decision") == "recorded"


def test_a_suspended_execution_asks_for_nothing_more(channel: Scripted) -> None:
    channel.replies = [(0.1, "suspend")]
    session = session_on(channel)
    with pytest.raises(Suspended):
        session.intend("tool_intended", {})

    with pytest.raises(Suspended):
        session.intend("llm_intended", {})

    assert channel.sent == ["tool_intended"]


def test_what_happened_is_reported_even_when_the_execution_must_stop(channel: Scripted) -> None:
    channel.replies = [(0.1, "go")]
    channel.cancel_reason = "user"

    with pytest.raises(Cancelled):
        session_on(channel).report("tool_completed", {})

    assert channel.sent == ["tool_completed"]


def test_a_call_has_the_same_id_in_every_incarnation_and_another_in_every_attempt(
    channel: Scripted,
) -> None:
    step = StepInfo(step="s", step_key="s#1", agent="s")
    retried = StepInfo(step="s", step_key="s#1", agent="s", attempt=2)
    first = session_on(channel)
    second = session_on(channel, {**START, "incarnation": 7})

    assert first.call_id(step, "llm", "h", 0) == second.call_id(step, "llm", "h", 0)
    assert first.call_id(step, "llm", "h", 0) != first.call_id(retried, "llm", "h", 0)
    assert first.call_id(step, "llm", "h", 0) != first.call_id(step, "llm", "h", 1)
    assert [first.next_ordinal(step, "llm", "h") for _ in range(3)] == [0, 1, 2]
    assert first.next_ordinal(step, "llm", "other") == 0
