"""The simulated shell of `processors/execution_partition.py`: a partition while it is owned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streams.execution import decider, effects
from streams.execution.commands import ExecutionCommand, StartExecution
from streams.execution.events import ExecutionQueued, PartitionMarked
from streams.execution.journal import Journal
from streams.execution.state import Execution, Status, queued
from streams.messages import Event, Message, event_id
from streams.ownership import NO_CLAIM, EpochFold
from tests.simulation.broker import Broker, Log
from tests.simulation.kernel import Act, Kernel, Process
from tests.simulation.lane import Lane
from tests.simulation.runner import LEASE_MS, WINDOW_MS, Runner
from tests.simulation.session import Hosted

CLAIM_RETRY_MS = 500
MARK_EVERY_MS = 3_000
MARK_UNTIL_MS = 200_000
MARK_RECORDS_MIN = 4


class Host(Protocol):
    """The worker that a partition's owner lives in."""

    process: Process
    name: str
    host: str

    def advance(self, owner: PartitionOwner, hosted: Hosted, reason: str) -> None:
        """Acts on what the execution's state asks for."""

    def ended(self, owner: PartitionOwner, hosted: Hosted, how: str) -> None:
        """A runner's session is over."""

    def prove(self, owner: PartitionOwner, hosted: Hosted, then: Act) -> None:
        """Finds out whether earlier runners are dead."""

    def drop(self, hosted: Hosted) -> None:
        """Kills the runner of an execution that is no longer ours."""

    def done(self, partition: int, offset: int) -> None:
        """A command needs no more attention."""

    def done_to(self, partition: int) -> int:
        """Every command below this offset is done."""

    def commands_end(self, partition: int) -> int:
        """The offset that the partition's next command will get."""

    def rebuilt(self, owner: PartitionOwner, epoch: int) -> None:
        """The owner has folded the log up to its claim."""


class PartitionOwner:
    """Claims its partition, folds what stands there, decides commands, hosts open executions."""

    def __init__(
        self, kernel: Kernel, broker: Broker, worker: Host, partition: int, log: Log, marks: Log
    ) -> None:
        self.partition = partition
        self.process = worker.process
        self.hosted: dict[str, Hosted] = {}
        self.is_open = True
        self.log = log
        self.lane: Lane | None = None
        self._kernel = kernel
        self._broker = broker
        self._worker = worker
        self._marks = marks
        self._is_ready = False
        self._ended: dict[str, tuple[int, int]] = {}
        self._fence: tuple[int, frozenset[str]] | None = None
        self._inbox: list[tuple[int, ExecutionCommand]] = []
        self._unsettled: dict[int, ExecutionCommand] = {}
        self._claimed_at_ms = 0
        self._commands_handled = -1
        self._commands_standing = -1
        """Handled before this tenure: a mark must never say less than the one it follows."""
        self._stands_to = 0
        self._marked_at = 0
        self._posted = 0
        self._stood = 0
        self._barriers: list[tuple[int, Act]] = []
        self._claim()
        self._mark_later()

    def end(self) -> None:
        """Stops owning: runners die, nothing is appended any more."""
        self.is_open = False
        if self.lane is not None:
            self.lane.end()
        self._drop_all()

    # Claiming -----------------------------------------------------------------------------------

    def _claim(self) -> None:
        self._kernel.hazard(self.process, "claim")
        self._kernel.after(self._kernel.between(1, 30), self._begin_claim, self.process)

    def _begin_claim(self) -> None:
        if not self.is_open:
            return
        rules, mark = self._kernel.rules, self._read_mark()
        self.hosted, self._ended, self._fence = {}, {}, None
        self._commands_handled = -1
        if mark is not None and rules.marks_count_commands:
            self._commands_handled = mark.command_offset
        claim = NO_CLAIM
        if mark is not None and rules.marks_carry_claim:
            claim = mark.highest_claim
        lane = Lane(self._kernel, self._broker, self.process, self.log, self._deposed)
        self.lane = lane
        start = 0 if mark is None else mark.position
        lane.claim(self._fold, start, EpochFold(claim), lambda: self._claimed(lane))

    def _claimed(self, lane: Lane) -> None:
        if not self.is_open or lane is not self.lane or lane.is_deposed:
            return
        self._claimed_at_ms = self._kernel.now_ms
        self._commands_standing = self._commands_handled
        self._stands_to = lane.epoch + 1
        self._posted = self._stood = 0
        self._barriers.clear()
        self._is_ready = True
        self._worker.rebuilt(self, lane.epoch)
        for hosted in list(self.hosted.values()):
            self._resume(hosted)
        if self._kernel.rules.redoes_interrupted:
            # What was taken under an earlier claim and does not stand is decided again, in order.
            again = sorted({**self._unsettled, **dict(self._inbox)}.items())
        else:
            again = list(self._inbox)
        self._inbox = []
        for offset, command in again:
            self._take(offset, command)

    def _deposed(self) -> None:
        self._is_ready = False
        self._drop_all()
        if self.is_open and self._kernel.rules.reclaims:
            self._kernel.after(
                self._kernel.between(1, CLAIM_RETRY_MS), self._claim_again, self.process
            )

    def _claim_again(self) -> None:
        if self.is_open:
            self._claim()

    def _fold(self, offset: int, message: Message) -> None:
        if isinstance(message, ExecutionQueued):
            self._commands_handled = max(self._commands_handled, message.command_offset)
            if message.execution_id not in self.hosted and message.execution_id not in self._ended:
                self.hosted[message.execution_id] = _hosted(queued(message), offset, message.epoch)
            return
        hosted = self.hosted.get(message.execution_id)
        if hosted is None:
            return
        hosted.apply(message)
        if hosted.state.status.is_terminal:
            del self.hosted[message.execution_id]
            self._remember(hosted)

    def _remember(self, hosted: Hosted) -> None:
        if self._kernel.rules.remembers_ended:
            self._ended[hosted.state.execution_id] = (hosted.first_offset, hosted.first_epoch)

    def _resume(self, hosted: Hosted) -> None:
        def proven() -> None:
            if self.is_current(hosted):
                is_queued = hosted.state.status is Status.QUEUED
                self._worker.advance(self, hosted, "approval" if is_queued else "owner_changed")

        if hosted.state.incarnation >= 0:
            self._worker.prove(self, hosted, proven)
        else:
            proven()

    def is_current(self, hosted: Hosted) -> bool:
        """Whether this owner still hosts the execution."""
        return self.is_open and self.hosted.get(hosted.state.execution_id) is hosted

    # Commands -----------------------------------------------------------------------------------

    def take(self, offset: int, command: ExecutionCommand) -> None:
        """Takes one command, now or when the claim is made."""
        if self._is_ready:
            self._take(offset, command)
        else:
            self._inbox.append((offset, command))

    def _take(self, offset: int, command: ExecutionCommand) -> None:
        self._unsettled[offset] = command
        if isinstance(command, StartExecution) and offset <= self._commands_handled:
            self._done_when_all_stands(offset)
            return
        if command.execution_id in self._ended:
            self._done_when_all_stands(offset)
            return
        hosted = self.hosted.get(command.execution_id)
        events = decider.decide(command, hosted.state if hosted is not None else None, offset)
        if not events:
            self._done_when_all_stands(offset)
            return
        if hosted is None:
            first = events[0]
            assert isinstance(first, ExecutionQueued) and self.lane is not None
            hosted = _hosted(queued(first), self._stands_to, self.lane.epoch)
            self.hosted[command.execution_id] = hosted
            self._commands_handled = max(self._commands_handled, offset)
        now = hosted
        is_early = not self._kernel.rules.commits_after_standing
        acknowledged = (lambda: self._done(offset)) if is_early else _nothing
        self.post(now, events, lambda: self._command_stands(offset, now), acknowledged)

    def _command_stands(self, offset: int, hosted: Hosted) -> None:
        self._done(offset)
        if self.is_current(hosted):
            self._worker.advance(self, hosted, "approval" if hosted.state.incarnation >= 0 else "")

    def _done_when_all_stands(self, offset: int) -> None:
        """A command may lead to nothing because of an event that was sent and is not standing."""
        if self._posted == self._stood or not self._kernel.rules.waits_for_what_was_sent:
            self._confirm(offset)
        else:
            self._barriers.append((self._posted, lambda: self._confirm(offset)))

    def _confirm(self, offset: int) -> None:
        """Nothing to do, says a state that may be out of date: somebody else may have claimed."""
        if self._kernel.rules.confirms_nothing_to_do and self.lane is not None:
            self.lane.confirm(lambda: self._done(offset))
        else:
            self._done(offset)

    def _done(self, offset: int) -> None:
        self._unsettled.pop(offset, None)
        self._worker.done(self.partition, offset)

    # What sessions ask --------------------------------------------------------------------------

    def post(
        self,
        hosted: Hosted,
        events: Sequence[Event],
        then: Act,
        acknowledged: Act | None = None,
    ) -> None:
        """Appends and folds the events; `then` when all of them stand."""
        lane = self.lane
        if lane is None or not self.is_open or lane.is_deposed:
            return
        if not events:
            then()
            return
        for event in events[:-1]:
            lane.post(event, self._settled)
            hosted.apply(event)
            self._posted += 1

        def stood(offset: int) -> None:
            self._settled(offset)
            then()

        lane.post(events[-1], stood, acknowledged or _nothing)
        hosted.apply(events[-1])
        self._posted += 1

    def _settled(self, offset: int) -> None:
        self._stands_to = max(self._stands_to, offset + 1)
        self._stood += 1
        while self._barriers and self._barriers[0][0] <= self._stood:
            self._barriers.pop(0)[1]()

    def around(self, hosted: Hosted, *, is_replay_over: bool) -> effects.Surroundings:
        """Time and proofs for the effect rules."""
        is_safe = hosted.is_predecessor_dead or not self._kernel.rules.waits_window
        return effects.Surroundings(
            now_ms=self._kernel.now_ms,
            claimed_at_ms=self._claimed_at_ms,
            lease_ms=LEASE_MS,
            window_ms=WINDOW_MS,
            is_predecessor_dead=is_safe,
            is_replay_over=is_replay_over,
        )

    def ended(self, hosted: Hosted, how: str) -> None:
        """A runner's session is over."""
        if self.is_current(hosted):
            self._worker.ended(self, hosted, how)

    def forget(self, hosted: Hosted) -> None:
        """A finished execution needs no memory, once its end stands."""

        def over() -> None:
            if self.hosted.get(hosted.state.execution_id) is hosted:
                del self.hosted[hosted.state.execution_id]
                self._remember(hosted)

        if self._posted > self._stood:
            self._barriers.append((self._posted, over))
        else:
            over()
        if self._kernel.chance(0.5):
            # A timer may fire at the worst of moments.
            self._mark()

    def _drop_all(self) -> None:
        hosted, self.hosted = self.hosted, {}
        for each in hosted.values():
            self._worker.drop(each)

    # Marks --------------------------------------------------------------------------------------

    def _mark_later(self) -> None:
        if self.is_open and self._kernel.now_ms < MARK_UNTIL_MS:
            self._mark()
            self._kernel.after(MARK_EVERY_MS, self._mark_later, self.process)

    def _mark(self) -> None:
        lane = self.lane
        if lane is None or not self._is_ready or lane.is_deposed:
            return
        position, claim = min([(self._stands_to, lane.epoch), *self._kept()])
        if position < self._marked_at + MARK_RECORDS_MIN:
            return
        self._marked_at = position
        mark = PartitionMarked(
            event_id=event_id("", "", self.log.name, self.partition, "PartitionMarked", position),
            tenant="",
            execution_id="",
            epoch=lane.epoch,
            topic=self.log.name,
            partition=self.partition,
            position=position,
            highest_claim=claim,
            command_offset=max(self._commands_standing, self._worker.done_to(self.partition) - 1),
        )
        self._broker.send(self.process, self._marks, mark, _ignore, _nothing)

    def _kept(self) -> list[tuple[int, int]]:
        """First offset, and claim before it, of every execution that a rebuild must see.

        An ended one is forgotten when every command on the log at its end has been handled.
        """
        if self._fence is not None and self._worker.done_to(self.partition) >= self._fence[0]:
            self._ended = {k: v for k, v in self._ended.items() if k not in self._fence[1]}
            self._commands_handled = max(self._commands_handled, self._fence[0] - 1)
            self._fence = None
        if self._fence is None and self._ended:
            self._fence = (self._worker.commands_end(self.partition), frozenset(self._ended))
        kept = list(self._ended.values())
        if self._kernel.rules.marks_keep_open:
            kept += [(each.first_offset, each.first_epoch) for each in self.hosted.values()]
        return kept

    def _read_mark(self) -> PartitionMarked | None:
        marks = self._marks.records
        return marks[-1] if marks and isinstance(marks[-1], PartitionMarked) else None


def _hosted(state: Execution, first_offset: int, first_epoch: int) -> Hosted:
    return Hosted(
        state=state, journal=Journal(), first_offset=first_offset, first_epoch=first_epoch
    )


def _ignore(_: int) -> None:
    return None


def _nothing() -> None:
    return None


__all__ = ["Host", "PartitionOwner", "Runner"]
