"""The simulated shell of `processors/execution_host.py`: frames in, events out, then replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streams.execution import decider, effects
from streams.execution import events as e
from streams.execution.journal import Journal
from streams.execution.state import Execution, Status, evolve
from streams.messages import Event, Message, event_id
from tests.simulation.kernel import Act, Kernel, Process
from tests.simulation.runner import Runner

REPLAY_GRACE_MS = 250


@dataclass(slots=True, kw_only=True)
class Hosted:
    """An open execution in a worker's memory."""

    state: Execution
    journal: Journal
    first_offset: int
    first_epoch: int
    hosts: set[str] = field(default_factory=set)
    """Where its runners have lived."""
    runner: Runner | None = None
    is_starting: bool = False
    is_predecessor_dead: bool = True
    losses: int = 0
    progress_at_loss: int = -1

    def apply(self, event: Message) -> None:
        """Folds one event."""
        self.journal.apply(event)
        if isinstance(event, e.ExecutionStarted | e.ExecutionResumed):
            self.hosts.add(event.worker_id.partition("/")[0])
        state = evolve(self.state, event)
        assert state is not None
        self.state = state

    @property
    def is_runnable(self) -> bool:
        """Whether it waits for nothing but a runner."""
        is_due = self.state.status in (Status.QUEUED, Status.RUNNING)
        return is_due and self.runner is None and not self.is_starting


class Owner(Protocol):
    """The partition that an execution lives on."""

    process: Process

    def post(self, hosted: Hosted, events: Sequence[Event], then: Act) -> None:
        """Appends and folds the events; `then` when all stand."""

    def around(self, hosted: Hosted, *, is_replay_over: bool) -> effects.Surroundings:
        """Time and proofs for the effect rules."""

    def ended(self, hosted: Hosted, how: str) -> None:
        """The runner reported its last frame, or died (`lost`)."""


class Session:
    """One runner working on one execution."""

    def __init__(self, kernel: Kernel, owner: Owner, hosted: Hosted, runner: Runner) -> None:
        self._kernel = kernel
        self._owner = owner
        self._hosted = hosted
        self._runner = runner
        self.is_over = False

    def close(self) -> None:
        """Ends the session without a word."""
        self.is_over = True

    def on_lost(self) -> None:
        """The runner's connection is gone."""
        self._over("lost")

    def _over(self, how: str) -> None:
        if not self.is_over:
            self.close()
            self._owner.ended(self._hosted, how)

    def _commit(self, events: Sequence[Event], then: Act) -> None:
        if not self.is_over:
            self._owner.post(self._hosted, events, then)

    def asked(
        self,
        question: effects.Question,
        tell: Callable[[effects.Answer], None],
        is_replay_over: bool = False,
    ) -> None:
        """A question before an effect."""
        if self.is_over:
            return
        hosted, kernel = self._hosted, self._kernel
        near = self._owner.around(hosted, is_replay_over=is_replay_over)
        answer = effects.ask(question, hosted.state, hosted.journal, near)
        if answer.verdict is effects.Verdict.WAIT:
            is_grace = answer.wait_ms == 0
            delay_ms = REPLAY_GRACE_MS if is_grace else min(answer.wait_ms, 60_000)
            kernel.after(
                delay_ms, lambda: self.asked(question, tell, is_grace), self._owner.process
            )
            return
        events = [event for event in answer.events if isinstance(event, Event)]
        if answer.verdict is effects.Verdict.FAIL:
            why = decider.Failure(
                error_class="diverged", error_type="ReplayDiverged", error_message=answer.reason
            )
            self._commit([*events, *decider.fail(hosted.state, why)], lambda: self._over("failed"))
        elif kernel.rules.acts_after_standing:
            self._commit(events, lambda: self._runner.reply(lambda: tell(answer)))
        else:
            self._commit(events, lambda: None)
            self._runner.reply(lambda: tell(answer))

    def tool_completed(self, question: effects.Question, result: str, how: str, then: Act) -> None:
        """A tool answered."""
        event = e.ToolCallCompleted(
            event_id=self._id("ToolCallCompleted", question.step_key, question.call_id),
            **decider.of(self._hosted.state),
            call_id=question.call_id,
            step=question.step,
            tool=question.name,
            result_type="text",
            result=result.encode(),
            result_json="",
            resolution=how,
            duration_ms=1,
        )
        self._commit([event], lambda: self._runner.reply(then))

    def step_completed(self, step_key: str, record: str, then: Act) -> None:
        """A step is done."""
        event = e.StepCompleted(
            event_id=self._id("StepCompleted", step_key, ""),
            **decider.of(self._hosted.state),
            step="s",
            step_key=step_key,
            agent="s",
            attempt=1,
            ordinal=0,
            incarnation=self._hosted.state.incarnation,
            output_json="",
            duration_ms=1,
            record=record.encode(),
            effects=(),
        )
        self._commit([event], lambda: self._runner.reply(then))

    def checkpoint(self, record: str, then: Act) -> None:
        """The framework saves what belongs to no step."""
        ordinal = str(self._hosted.state.incarnation)
        event = e.CheckpointSaved(
            event_id=self._id("CheckpointSaved", "", ordinal),
            **decider.of(self._hosted.state),
            step_key="",
            checkpoint_id=ordinal,
            record=record.encode(),
        )
        self._commit([event], lambda: self._runner.reply(then))

    def interrupted(self, call: str) -> None:
        """The workflow asks a person."""
        asked = [decider.Interrupt(interrupt_id=call, step="s", payload_json="1")]
        events = decider.interrupt(self._hosted.state, asked)
        self._commit(events, lambda: self._over("interrupted"))

    def finished(self, output: str) -> None:
        """The workflow is done."""
        events = decider.complete(self._hosted.state, output)
        self._commit(events, lambda: self._over("finished"))

    def failed(self, reason: str) -> None:
        """The workflow raised."""
        why = decider.Failure(error_class="exception", error_type="E", error_message=reason)
        self._commit(decider.fail(self._hosted.state, why), lambda: self._over("failed"))

    def suspended(self) -> None:
        """The runner was told to wait, and stops."""
        self._over("suspended")

    def _id(self, kind: str, step_key: str, ordinal: str) -> str:
        state = self._hosted.state
        return event_id(state.tenant, state.execution_id, step_key, 1, kind, ordinal)
