"""One hosted execution: its runner's frames become events, and events' standing becomes replies.

No rule lives here: `streams.execution` decides, this module posts and answers (append, then act).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

from processors.runner_pool import Runner
from producers.runner.protocol import Frame
from streams.errors import OmiumError
from streams.execution import decider, effects
from streams.execution import events as e
from streams.execution.journal import Journal
from streams.execution.state import Execution, Status, evolve
from streams.messages import Event, Message, event_id

log = logging.getLogger("omium.execution")

HOLD_MS = 40
"""How long a `StepStarted` may wait for company: most steps end sooner, and one request carries
both.
"""
REPLAY_GRACE_MS = 250
"""How long a question that the journal does not hold waits for parallel calls to claim their
entries.
"""
CANCELLED = "omium.Cancelled"
"""How a runner reports that it obeyed a `cancel` frame."""
PREVIEW_CHARS_MAX = 16 * 1024


Stood = Callable[[Exception | None], None]
"""Hears, on the loop, that all events of a post stand, or why they never will."""


class Stamp(TypedDict):
    """What every event of an execution carries, written where it is made."""

    tenant: str
    execution_id: str
    epoch: int
    at_ms: int


class Owner(Protocol):
    """The partition that an execution lives on."""

    def post(self, hosted: Hosted, events: Sequence[Event], stood: Stood) -> None:
        """Appends and folds the events. Raises OmiumError or ValueError for what cannot go."""

    def around(self, hosted: Hosted, *, is_replay_over: bool) -> effects.Surroundings:
        """Time and proofs for the effect rules."""
        ...

    def stamp(self) -> tuple[int, int]:
        """The epoch and time of an event made now."""
        ...

    def ended(self, hosted: Hosted, how: str) -> None:
        """The runner reported its last frame, or died (`lost`)."""


@dataclass(slots=True, kw_only=True)
class Hosted:
    """An open execution in this worker's memory: the fold of its standing events, and its runner if
    it has one.
    """

    state: Execution
    journal: Journal
    first_offset: int
    first_epoch: int
    runner: Runner | None = None
    is_starting: bool = False
    is_predecessor_dead: bool = True
    doubted_at_ms: int = 0
    """Since when a runner of this tenure is gone without proof; 0 if none is."""
    hosts: set[str] = field(default_factory=set[str])
    """Where its runners were started: proof of death must cover all of them."""
    losses: int = 0
    progress_at_loss: int = -1
    has_slot: bool = False

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
        return (
            self.state.status in (Status.QUEUED, Status.RUNNING)
            and self.runner is None
            and not self.is_starting
        )


class Session:
    """One runner working on one execution."""

    def __init__(self, owner: Owner, hosted: Hosted, runner: Runner) -> None:
        self._owner = owner
        self._hosted = hosted
        self._runner = runner
        self._held: list[Event] = []
        self._flush: asyncio.TimerHandle | None = None
        self._is_over = False
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "step_started": self._step_started,
            "step_completed": self._step_completed,
            "step_failed": self._step_failed,
            "checkpoint": self._checkpoint,
            "tool_intended": lambda frame: self._asked("tool", frame),
            "llm_intended": lambda frame: self._asked("llm", frame),
            "tool_completed": self._tool_completed,
            "tool_failed": self._tool_failed,
            "interrupted": self._interrupted,
            "finished": self._finished,
            "failed": self._failed,
            "suspended": lambda _: self._over("suspended"),
        }

    def on_frame(self, frame: Frame) -> None:
        """Handles one frame; what cannot be handled fails the execution, never the worker."""
        handler = self._handlers.get(frame.kind)
        if handler is None or self._is_over:
            return
        try:
            handler(frame)
        except OmiumError as error:
            self._refuse("rejected", error)
        except (ValueError, TypeError, KeyError) as error:
            log.exception("frame %s of %s", frame.kind, self._hosted.state.execution_id)
            self._refuse("exception", error)

    def on_lost(self, reason: str) -> None:
        """The runner's connection is gone."""
        if not self._is_over:
            log.info("runner of %s lost: %s", self._hosted.state.execution_id, reason)
            self._over("lost")

    def close(self) -> None:
        """Ends the session without a word: the execution is over or somebody else's."""
        self._is_over = True
        if self._flush is not None:
            self._flush.cancel()

    def _over(self, how: str) -> None:
        if self._is_over:
            return
        if self._held:
            self._commit([])
        self.close()
        self._owner.ended(self._hosted, how)

    def _refuse(self, error_class: str, error: Exception) -> None:
        failure = decider.Failure(
            error_class=error_class, error_type=type(error).__name__, error_message=str(error)
        )
        self._commit(decider.fail(self._hosted.state, failure), lambda: self._over("failed"))

    def _commit(self, events: Sequence[Event], then: Callable[[], None] | None = None) -> None:
        """Posts held and given events; `then` runs when all stand, never when they don't."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        held, self._held = self._held, []
        posted = [*held, *events]
        if not posted:
            if then is not None:
                then()
            return

        def stood(error: Exception | None) -> None:
            if error is not None or then is None:
                return
            try:
                then()
            except (ValueError, OSError) as broken:
                log.exception("answering the runner of %s", self._hosted.state.execution_id)
                self._runner.kill(f"it could not be answered: {broken}")

        self._owner.post(self._hosted, posted, stood)

    def _reply(
        self, frame: Frame, decision: str = "go", *, blob: bytes = b"", **more: object
    ) -> None:
        header = {"seq": frame.number("seq"), "decision": decision, **more}
        self._runner.send("reply", header, blob)

    def _step_started(self, frame: Frame) -> None:
        self._held.append(
            e.StepStarted(
                event_id=self._id("StepStarted", frame),
                **self._of(),
                step=frame.text("step"),
                step_key=frame.text("step_key"),
                agent=frame.text("agent"),
                attempt=frame.number("attempt"),
                ordinal=frame.number("ordinal"),
                incarnation=self._hosted.state.incarnation,
            )
        )
        if self._flush is None:
            loop = asyncio.get_running_loop()
            self._flush = loop.call_later(HOLD_MS / 1000, self._commit, ())

    def _step_completed(self, frame: Frame) -> None:
        used = frame.header.get("effects")
        event = e.StepCompleted(
            event_id=self._id("StepCompleted", frame),
            **self._of(),
            step=frame.text("step"),
            step_key=frame.text("step_key"),
            agent=frame.text("agent"),
            attempt=frame.number("attempt"),
            ordinal=frame.number("ordinal"),
            incarnation=self._hosted.state.incarnation,
            output_json=frame.text("output_json")[:PREVIEW_CHARS_MAX],
            duration_ms=frame.number("duration_ms"),
            record=frame.blob,
            effects=tuple(str(call) for call in used) if isinstance(used, list) else (),
        )
        self._commit((event,), lambda: self._reply(frame))

    def _step_failed(self, frame: Frame) -> None:
        event = e.StepFailed(
            event_id=self._id("StepFailed", frame),
            **self._of(),
            step=frame.text("step"),
            step_key=frame.text("step_key"),
            agent=frame.text("agent"),
            attempt=frame.number("attempt"),
            ordinal=frame.number("ordinal"),
            incarnation=self._hosted.state.incarnation,
            error_type=frame.text("error_type"),
            error_message=frame.text("error_message")[:PREVIEW_CHARS_MAX],
            error_trace=frame.text("error_trace")[:PREVIEW_CHARS_MAX],
            duration_ms=frame.number("duration_ms"),
        )
        self._commit((event,), lambda: self._reply(frame))

    def _checkpoint(self, frame: Frame) -> None:
        checkpoint_id = frame.text("checkpoint_id")
        event = e.CheckpointSaved(
            event_id=self._id("CheckpointSaved", frame, checkpoint_id),
            **self._of(),
            step_key=frame.text("step_key"),
            checkpoint_id=checkpoint_id,
            record=frame.blob,
        )
        self._commit((event,), lambda: self._reply(frame))

    def _asked(self, kind: str, frame: Frame, *, is_replay_over: bool = False) -> None:
        if self._is_over:
            return
        question = effects.Question(
            kind=kind,
            name=frame.text("tool") if kind == "tool" else frame.text("model"),
            call_id=frame.text("call_id"),
            step=frame.text("step"),
            step_key=frame.text("step_key"),
            agent=frame.text("agent"),
            request_hash=frame.text("request_hash"),
            ordinal=frame.number("ordinal"),
            arguments_json=frame.text("arguments_json")[:PREVIEW_CHARS_MAX],
        )
        hosted = self._hosted
        around = self._owner.around(hosted, is_replay_over=is_replay_over)
        answer = effects.ask(question, hosted.state, hosted.journal, around)
        if answer.verdict is effects.Verdict.WAIT:
            self._ask_later(kind, frame, answer.wait_ms)
        elif answer.verdict is effects.Verdict.FAIL:
            failure = decider.Failure(
                error_class="diverged",
                error_type="ReplayDiverged",
                error_message=answer.reason,
                step=question.step,
            )
            ending = (*answer.events, *decider.fail(hosted.state, failure))
            self._commit(_events(ending), lambda: self._over("failed"))
        else:
            self._commit(_events(answer.events), lambda: self._tell(frame, answer))

    def _ask_later(self, kind: str, frame: Frame, wait_ms: int) -> None:
        is_grace = wait_ms == 0
        delay_ms = REPLAY_GRACE_MS if is_grace else min(wait_ms, 60_000)
        asyncio.get_running_loop().call_later(
            delay_ms / 1000, lambda: self._asked(kind, frame, is_replay_over=is_grace)
        )

    def _tell(self, frame: Frame, answer: effects.Answer) -> None:
        if (effect := answer.effect) is None:
            self._reply(frame, answer.verdict.value, reason=answer.reason)
            return
        self._reply(
            frame,
            answer.verdict.value,
            blob=effect.result,
            result_type=effect.result_type,
            error_type=effect.error_type,
            error_message=effect.error_message,
        )

    def _tool_completed(self, frame: Frame) -> None:
        call_id = frame.text("call_id")
        event = e.ToolCallCompleted(
            event_id=self._id("ToolCallCompleted", frame, call_id),
            **self._of(),
            call_id=call_id,
            step=frame.text("step"),
            tool=frame.text("tool"),
            result_type=frame.text("result_type"),
            result=frame.blob,
            result_json=frame.text("result_json")[:PREVIEW_CHARS_MAX],
            resolution=frame.text("resolution", "returned"),
            duration_ms=frame.number("duration_ms"),
        )
        self._commit((event,), lambda: self._reply(frame))

    def _tool_failed(self, frame: Frame) -> None:
        call_id = frame.text("call_id")
        event = e.ToolCallFailed(
            event_id=self._id("ToolCallFailed", frame, call_id),
            **self._of(),
            call_id=call_id,
            step=frame.text("step"),
            tool=frame.text("tool"),
            error_type=frame.text("error_type"),
            error_message=frame.text("error_message")[:PREVIEW_CHARS_MAX],
            duration_ms=frame.number("duration_ms"),
        )
        self._commit((event,), lambda: self._reply(frame))

    def _interrupted(self, frame: Frame) -> None:
        listed = frame.header.get("interrupts")
        asked = [
            decider.Interrupt(
                interrupt_id=str(item.get("interrupt_id", "")),
                step=str(item.get("step", "")),
                payload_json=str(item.get("payload_json", "null"))[:PREVIEW_CHARS_MAX],
            )
            for item in (listed if isinstance(listed, list) else [])
            if isinstance(item, dict)
        ]
        events = decider.interrupt(self._hosted.state, asked)
        self._commit(events, lambda: self._over("interrupted"))

    def _finished(self, frame: Frame) -> None:
        events = decider.complete(self._hosted.state, frame.text("output_json"))
        self._commit(events, lambda: self._over("finished"))

    def _failed(self, frame: Frame) -> None:
        if frame.text("error_type") == CANCELLED:
            # We asked it to stop; what that means for the execution was decided when we did.
            self._over("suspended")
            return
        failure = decider.Failure(
            error_class=frame.text("error_class", "exception"),
            error_type=frame.text("error_type"),
            error_message=frame.text("error_message")[:PREVIEW_CHARS_MAX],
            error_trace=frame.text("error_trace")[:PREVIEW_CHARS_MAX],
            step=frame.text("step"),
        )
        self._commit(decider.fail(self._hosted.state, failure), lambda: self._over("failed"))

    def _of(self) -> Stamp:
        state, (epoch, at_ms) = self._hosted.state, self._owner.stamp()
        return {
            "tenant": state.tenant,
            "execution_id": state.execution_id,
            "epoch": epoch,
            "at_ms": at_ms,
        }

    def _id(self, kind: str, frame: Frame, ordinal: str = "") -> str:
        state = self._hosted.state
        return event_id(
            state.tenant,
            state.execution_id,
            frame.text("step_key"),
            frame.number("attempt"),
            kind,
            ordinal,
        )


def _events(messages: Sequence[Message]) -> list[Event]:
    return [message for message in messages if isinstance(message, Event)]
