"""One command partition and the executions that live on it, while this worker owns it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from processors.execution_host import Hosted, Stood
from processors.execution_marks import Marks
from processors.faust_batch import InboxRecord
from processors.inbox import Inbox
from processors.lane import Lane
from producers.dlq import dead_letter
from streams.errors import Deposed, OmiumError, Retryable
from streams.execution import decider, effects
from streams.execution.commands import ExecutionCommand, StartExecution
from streams.execution.events import ExecutionQueued
from streams.execution.journal import Journal
from streams.execution.state import Execution, Status, queued
from streams.messages import Event, Message
from streams.ownership import NO_CLAIM, EpochFold
from streams.topics import DLQ, EXECUTIONS

if TYPE_CHECKING:
    from processors.execution import ExecutionProcessor

log = logging.getLogger("omium.execution")

CLAIM_RETRY_S = 0.5
DEPOSED_WAIT_S = 1.5
"""About a heartbeat: a worker that was asleep learns whether the partition is still its own before
it claims again and deposes whoever took over.
"""
MARK_EVERY_S = 10.0
LEASE_MS = 5_000
"""L of SPINE rule 1: a runner acts within this of sending its intent, or asks again."""
WINDOW_MS = 20_000
"""W of SPINE rule 1: a runner that was stopped for longer is killed by its kernel timer."""


class PartitionOwner:
    """Claims its partition, folds what stands there, decides commands, and hosts the open
    executions.
    """

    def __init__(self, processor: ExecutionProcessor, partition: int) -> None:
        self.partition = partition
        self.inbox = Inbox()
        self.hosted: dict[str, Hosted] = {}
        self.is_open = True
        self._processor = processor
        self._lane: Lane | None = None
        self._claimed_at_ms = 0
        self._commands_handled = -1
        self._commands_known = -1
        self._stands_to = 0
        self._marks = Marks(
            processor.config.bootstrap, partition, processor.wire, processor.producer
        )
        self._confirming: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._marker: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts owning in the background."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._own())
        self._marker = loop.create_task(self._mark_for_ever())

    async def end(self) -> None:
        """Stops owning: runners die, their executions are somebody else's."""
        self.is_open = False
        for task in (self._task, self._marker):
            if task is not None:
                task.cancel()
        self._drop_all()

    async def _own(self) -> None:
        while self.is_open:
            try:
                lane = await self._claim()
                self._resume_open()
                await self._serve(lane)
            except Deposed as error:
                # SPINE rule 2: stop, and claim again while the group says that it is ours.
                log.warning("partition %s: %s", self.partition, error)
                self._drop_all()
                await asyncio.sleep(DEPOSED_WAIT_S)
            except (Retryable, OSError) as error:
                log.warning("partition %s: %s; claiming again", self.partition, error)
                self._drop_all()
                await asyncio.sleep(CLAIM_RETRY_S)

    async def _serve(self, lane: Lane) -> None:
        """Decides what an earlier tenure left in hand, then what comes. Ends by raising."""
        for record in self.inbox.in_hand():
            await self._take_safely(record)
        loop = asyncio.get_running_loop()
        deposed = loop.create_task(lane.deposed.wait())
        try:
            while True:
                taken = loop.create_task(self.inbox.take())
                await asyncio.wait({taken, deposed}, return_when=asyncio.FIRST_COMPLETED)
                if not taken.done():
                    taken.cancel()
                if lane.deposed.is_set():
                    raise Deposed(lane.topic.name, lane.partition, lane.epoch)
                for record in taken.result():
                    await self._take_safely(record)
        finally:
            deposed.cancel()

    async def _claim(self) -> Lane:
        processor = self._processor
        loop = asyncio.get_running_loop()
        mark = await loop.run_in_executor(None, self._marks.read)
        self.hosted = {}
        self._marks.reset()
        lane = Lane(
            bootstrap=processor.config.bootstrap,
            topic=EXECUTIONS,
            partition=self.partition,
            worker_id=processor.worker_name,
            generation=processor.clock.now_ms(),
            wire=processor.wire,
            producer=processor.producer,
            clock=processor.clock,
        )
        self._commands_handled = -1 if mark is None else mark.command_offset
        await lane.claim(
            self._fold,
            start=0 if mark is None else mark.position,
            epochs=EpochFold(NO_CLAIM if mark is None else mark.highest_claim),
        )
        self._claimed_at_ms = processor.clock.now_ms()
        self._commands_known = self._commands_handled
        self._lane = lane
        self._stands_to = lane.epoch + 1
        log.info(
            "partition %s claimed at %s with %s open executions",
            self.partition,
            lane.epoch,
            len(self.hosted),
        )
        return lane

    def _fold(self, offset: int, message: Message) -> None:
        if isinstance(message, ExecutionQueued):
            self._commands_handled = max(self._commands_handled, message.command_offset)
            is_known = message.execution_id in self.hosted
            if not is_known and not self._marks.has_ended(message.execution_id):
                self.hosted[message.execution_id] = _hosted(queued(message), offset, message.epoch)
            return
        hosted = self.hosted.get(message.execution_id)
        if hosted is None:
            return
        hosted.apply(message)
        if hosted.state.status.is_terminal:
            self._marks.ended(self.hosted.pop(message.execution_id), self._processor.clock.now_ms())

    def _resume_open(self) -> None:
        for hosted in list(self.hosted.values()):
            asyncio.get_running_loop().create_task(self._resume(hosted))

    async def _resume(self, hosted: Hosted) -> None:
        reason = "approval" if hosted.state.status is Status.QUEUED else "owner_changed"
        self._processor.advance(self, hosted, reason)

    async def _take_safely(self, record: InboxRecord) -> None:
        try:
            await self._take(record)
        except (Deposed, Retryable):
            raise
        except (OmiumError, ValueError) as error:
            await self._bury(record, f"{type(error).__name__}: {error}")
            self.inbox.done(record.offset)

    async def _take(self, record: InboxRecord) -> None:
        """Decides one command; it is done only when what followed from it stands (SPINE rule 3)."""
        command = await self._decode(record)
        if command is None:
            self.inbox.done(record.offset)
            return
        hosted = self.hosted.get(command.execution_id)
        if self._is_over(command, record.offset):
            self._confirm_later(record.offset)
            return
        state = hosted.state if hosted is not None else None
        events = decider.decide(command, state, record.offset)
        if not events:
            self._confirm_later(record.offset)
            return
        if hosted is None:
            first = events[0]
            assert isinstance(first, ExecutionQueued), "an execution begins with ExecutionQueued"
            assert self._lane is not None
            hosted = _hosted(queued(first), self._stands_to, self._lane.epoch)
            self.hosted[command.execution_id] = hosted
            self._commands_handled = max(self._commands_handled, record.offset)
        now = hosted
        self.post(now, events, lambda error: self._stood(error, record.offset, now))

    def _is_over(self, command: ExecutionCommand, offset: int) -> bool:
        """Whether the command asks for what is known to have happened."""
        if not isinstance(command, StartExecution):
            return False
        return offset <= self._commands_handled or self._marks.has_ended(command.execution_id)

    def _stood(self, error: Exception | None, offset: int, hosted: Hosted) -> None:
        if error is not None:
            return
        self.inbox.done(offset)
        if self.has(hosted):
            reason = "approval" if hosted.state.incarnation >= 0 else ""
            self._processor.advance(self, hosted, reason)

    def _confirm_later(self, offset: int) -> None:
        """A command that leads to nothing is done once nothing foreign can have been overlooked."""
        task = asyncio.get_running_loop().create_task(self._confirm(offset))
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm(self, offset: int) -> None:
        lane = self._lane
        while lane is not None and lane is self._lane:
            try:
                await lane.confirm()
            except Deposed:
                return  # The next claim decides it again: it is still in hand.
            except (Retryable, OSError) as error:
                log.info("partition %s: command %s waits: %s", self.partition, offset, error)
                await asyncio.sleep(CLAIM_RETRY_S)
            else:
                self.inbox.done(offset)
                return

    async def _decode(self, record: InboxRecord) -> ExecutionCommand | None:
        try:
            message = self._processor.wire.decode(record.value)
            if isinstance(message, ExecutionCommand):
                return message
            reason = f"{type(message).__name__} is not a command"
        except ValueError as error:
            reason = str(error)
        await self._bury(record, reason)
        return None

    async def _bury(self, record: InboxRecord, reason: str) -> None:
        """Puts a record that cannot be handled on the DLQ; the partition goes on (law 13)."""
        log.warning("%s[%s]@%s: %s", record.topic, record.partition, record.offset, reason)
        letter = dead_letter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            reason=reason,
            processor="execution",
            at_ms=self._processor.clock.now_ms(),
        )
        await self._processor.producer.send(self._processor.wire.encode(letter, DLQ))

    def post(self, hosted: Hosted, events: Sequence[Event], stood: Stood) -> None:
        """Appends and folds the events; `stood` hears when all of them stand, or that they never
        will.
        """
        if self._lane is None or not self.is_open:
            stood(Deposed(EXECUTIONS.name, self.partition, NO_CLAIM))
            return
        last = len(events) - 1
        if last < 0:
            stood(None)
            return
        last_hears = partial(self._settled, stood)
        self._lane.post(
            *((event, self._settled_in_passing) for event in events[:last]),
            *((event, last_hears) for event in events[last:]),
        )
        for event in events:
            hosted.apply(event)

    async def posted(self, hosted: Hosted, events: Sequence[Event]) -> None:
        """The same for those who can wait: returns when all of them stand, else raises."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def stood(error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.post(hosted, events, stood)
        await future

    def _settled(self, stood: Stood, offset: int, error: Exception | None) -> None:
        self._settled_in_passing(offset, error)
        stood(error)

    def _settled_in_passing(self, offset: int, error: Exception | None) -> None:
        if error is None:
            self._stands_to = max(self._stands_to, offset + 1)
        elif self._lane is not None and not isinstance(error, Deposed):
            # What was folded did not stand: only a rebuild knows the truth now.
            self._lane.depose(self._lane.epoch)

    def around(self, hosted: Hosted, *, is_replay_over: bool) -> effects.Surroundings:
        """Time and proofs for the effect rules."""
        return effects.Surroundings(
            now_ms=self._processor.clock.now_ms(),
            claimed_at_ms=max(self._claimed_at_ms, hosted.doubted_at_ms),
            lease_ms=LEASE_MS,
            window_ms=WINDOW_MS,
            is_predecessor_dead=hosted.is_predecessor_dead,
            is_replay_over=is_replay_over,
        )

    def stamp(self) -> tuple[int, int]:
        """The epoch and time of an event made now."""
        epoch = self._lane.epoch if self._lane is not None else NO_CLAIM
        return epoch, self._processor.clock.now_ms()

    def has(self, hosted: Hosted) -> bool:
        """Whether this very execution is still ours."""
        return self.is_open and self.hosted.get(hosted.state.execution_id) is hosted

    def ended(self, hosted: Hosted, how: str) -> None:
        """The runner's session is over."""
        if self.has(hosted):
            self._processor.ended(self, hosted, how)

    def forget(self, execution_id: str) -> None:
        """A finished execution needs no memory but its id."""
        hosted = self.hosted.pop(execution_id, None)
        if hosted is not None:
            self._marks.ended(hosted, self._processor.clock.now_ms())

    def _drop_all(self) -> None:
        hosted, self.hosted, self._lane = self.hosted, {}, None
        for each in hosted.values():
            self._processor.drop(each)

    async def _mark_for_ever(self) -> None:
        while True:
            await asyncio.sleep(MARK_EVERY_S)
            try:
                await self._mark()
            except OmiumError as error:
                log.warning("partition %s: no mark: %s", self.partition, error)

    async def _mark(self) -> None:
        lane = self._lane
        if lane is None or lane.deposed.is_set():
            return
        await self._marks.write(
            hosted=list(self.hosted.values()),
            stands_to=self._stands_to,
            epoch=lane.epoch,
            # Not what was posted: a mark that counts a command whose event became void loses it.
            command_offset=max(self._commands_known, self.inbox.done_to),
            is_idle=self.inbox.is_idle,
            now_ms=self._processor.clock.now_ms(),
        )


def _hosted(state: Execution, first_offset: int, first_epoch: int) -> Hosted:
    return Hosted(
        state=state, journal=Journal(), first_offset=first_offset, first_epoch=first_epoch
    )
