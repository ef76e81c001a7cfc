"""One command partition and the executions that live on it, while this worker owns it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from processors.execution_host import Hosted, Stood
from processors.faust_batch import Batch, InboxRecord
from processors.lane import Lane
from producers.dlq import dead_letter
from producers.kafka import end_offset, scan
from streams.errors import Deposed, OmiumError, Retryable
from streams.execution import decider, effects
from streams.execution.commands import ExecutionCommand, StartExecution
from streams.execution.events import ExecutionQueued, PartitionMarked
from streams.execution.journal import Journal
from streams.execution.state import Execution, Status, queued
from streams.messages import Event, Message, event_id
from streams.ownership import NO_CLAIM, EpochFold
from streams.topics import DLQ, EXECUTIONS, SNAPSHOTS

if TYPE_CHECKING:
    from processors.execution import ExecutionProcessor

log = logging.getLogger("omium.execution")

INBOX_BATCHES_MAX = 4
CLAIM_RETRY_S = 0.5
MARK_EVERY_S = 10.0
MARK_RECORDS_MIN = 200
"""A mark is worth its record only when a rebuild would skip this many."""
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
        self.inbox: asyncio.Queue[Batch] = asyncio.Queue(INBOX_BATCHES_MAX)
        self.hosted: dict[str, Hosted] = {}
        self.is_open = True
        self._processor = processor
        self._lane: Lane | None = None
        self._claimed_at_ms = 0
        self._commands_handled = -1
        self._commands_standing = -1
        self._generation = 0
        self._stands_to = 0
        self._marked_at = 0
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
        carried: list[Batch] = []
        while self.is_open:
            try:
                lane = await self._claim()
                self._resume_open()
                await self._serve(lane, carried)
            except Deposed as error:
                # SPINE rule 2: stop, and claim again while the group still says that the partition
                # is ours.
                log.warning("partition %s: %s", self.partition, error)
            except (Retryable, OSError) as error:
                log.warning("partition %s: %s; claiming again", self.partition, error)
                await asyncio.sleep(CLAIM_RETRY_S)
            self._drop_all()

    async def _serve(self, lane: Lane, carried: list[Batch]) -> None:
        deposed = asyncio.get_running_loop().create_task(lane.deposed.wait())
        try:
            while True:
                if not carried:
                    taken = asyncio.get_running_loop().create_task(self.inbox.get())
                    await asyncio.wait({taken, deposed}, return_when=asyncio.FIRST_COMPLETED)
                    if not taken.done():
                        taken.cancel()
                    else:
                        carried.append(taken.result())
                if lane.deposed.is_set():
                    raise Deposed(lane.topic.name, lane.partition, lane.epoch)
                # A batch that is interrupted by a deposal is handled again, whole: commands are
                # idempotent.
                for record in carried[0].records:
                    await self._take_safely(carried[0], record)
                carried.pop(0)
        finally:
            deposed.cancel()

    async def _claim(self) -> Lane:
        processor = self._processor
        loop = asyncio.get_running_loop()
        mark = await loop.run_in_executor(None, self._read_mark)
        self.hosted = {}
        self._generation = processor.clock.now_ms()
        lane = Lane(
            bootstrap=processor.config.bootstrap,
            topic=EXECUTIONS,
            partition=self.partition,
            worker_id=processor.worker_name,
            generation=self._generation,
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
        self._commands_standing = self._commands_handled
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
            if message.execution_id not in self.hosted:
                self.hosted[message.execution_id] = _hosted(queued(message), offset, message.epoch)
            return
        hosted = self.hosted.get(message.execution_id)
        if hosted is None:
            return
        hosted.apply(message)
        if hosted.state.status.is_terminal:
            del self.hosted[message.execution_id]

    def _resume_open(self) -> None:
        for hosted in list(self.hosted.values()):
            asyncio.get_running_loop().create_task(self._resume(hosted))

    async def _resume(self, hosted: Hosted) -> None:
        host = hosted.state.worker_id.partition("/")[0]
        if hosted.state.incarnation >= 0:
            hosted.is_predecessor_dead = await self._processor.pool.prove_dead(
                hosted.state.execution_id, host
            )
        if self.is_open and self.hosted.get(hosted.state.execution_id) is hosted:
            reason = "approval" if hosted.state.status is Status.QUEUED else "owner_changed"
            self._processor.advance(self, hosted, reason)

    async def _take_safely(self, batch: Batch, record: InboxRecord) -> None:
        try:
            await self._take(batch, record)
        except (Deposed, Retryable):
            raise
        except (OmiumError, ValueError) as error:
            await self._bury(record, f"{type(error).__name__}: {error}")
            batch.done(record.offset)

    async def _take(self, batch: Batch, record: InboxRecord) -> None:
        """Decides one command; its offset moves only when what followed from it stands (SPINE rule
        3).
        """
        command = await self._decode(record)
        if command is None:
            batch.done(record.offset)
            return
        if isinstance(command, StartExecution) and record.offset <= self._commands_handled:
            batch.done(record.offset)
            return
        hosted = self.hosted.get(command.execution_id)
        state = hosted.state if hosted is not None else None
        events = decider.decide(command, state, record.offset)
        if not events:
            batch.done(record.offset)
            return
        if hosted is None:
            first = events[0]
            assert isinstance(first, ExecutionQueued), "an execution begins with ExecutionQueued"
            assert self._lane is not None
            hosted = _hosted(queued(first), self._stands_to, self._lane.epoch)
            self.hosted[command.execution_id] = hosted
            self._commands_handled = max(self._commands_handled, record.offset)
        now = hosted
        self.post(now, events, lambda error: self._stood(error, batch, record.offset, now))

    def _stood(self, error: Exception | None, batch: Batch, offset: int, hosted: Hosted) -> None:
        if error is not None:
            return
        batch.done(offset)
        # Not earlier: a mark that counts a command whose event became void would lose it.
        self._commands_standing = max(self._commands_standing, offset)
        if self.is_open and self.hosted.get(hosted.state.execution_id) is hosted:
            reason = "approval" if hosted.state.incarnation >= 0 else ""
            self._processor.advance(self, hosted, reason)

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
        for number, event in enumerate(events):
            hears = partial(self._settled, stood) if number == last else self._settled_in_passing
            self._lane.post(event, hears)
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
            claimed_at_ms=self._claimed_at_ms,
            lease_ms=LEASE_MS,
            window_ms=WINDOW_MS,
            is_predecessor_dead=hosted.is_predecessor_dead,
            is_replay_over=is_replay_over,
        )

    def stamp(self) -> tuple[int, int]:
        """The epoch and time of an event made now."""
        epoch = self._lane.epoch if self._lane is not None else NO_CLAIM
        return epoch, self._processor.clock.now_ms()

    def ended(self, hosted: Hosted, how: str) -> None:
        """The runner's session is over."""
        if self.is_open and self.hosted.get(hosted.state.execution_id) is hosted:
            self._processor.ended(self, hosted, how)

    def forget(self, execution_id: str) -> None:
        """A finished execution needs no memory."""
        self.hosted.pop(execution_id, None)

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
        """Says where a rebuild may start: at the first event of the oldest open execution, or the
        end.
        """
        lane = self._lane
        if lane is None or lane.deposed.is_set():
            return
        oldest = min(self.hosted.values(), key=lambda h: h.first_offset, default=None)
        position, claim = self._stands_to, lane.epoch
        if oldest is not None and oldest.first_offset < position:
            position, claim = oldest.first_offset, oldest.first_epoch
        if position < self._marked_at + MARK_RECORDS_MIN:
            return
        mark = PartitionMarked(
            event_id=event_id("", "", EXECUTIONS.name, self.partition, "PartitionMarked", position),
            tenant="",
            execution_id="",
            epoch=lane.epoch,
            at_ms=self._processor.clock.now_ms(),
            topic=EXECUTIONS.name,
            partition=self.partition,
            position=position,
            highest_claim=claim,
            command_offset=self._commands_standing,
        )
        record = self._processor.wire.encode(mark, SNAPSHOTS, partition=self.partition)
        await self._processor.producer.send(record)
        self._marked_at = position

    def _read_mark(self) -> PartitionMarked | None:
        """The latest mark of this partition. A mark by a deposed owner is as true as any: it speaks
        of the past.
        """
        bootstrap = self._processor.config.bootstrap
        end = end_offset(bootstrap, SNAPSHOTS.name, self.partition)
        latest: PartitionMarked | None = None
        for batch in scan(bootstrap, SNAPSHOTS.name, self.partition, 0, end):
            for record in batch:
                value = record.value()
                mark = self._processor.wire.decode(value) if isinstance(value, bytes) else None
                if isinstance(mark, PartitionMarked) and mark.topic == EXECUTIONS.name:
                    latest = mark
        return latest


def _hosted(state: Execution, first_offset: int, first_epoch: int) -> Hosted:
    return Hosted(
        state=state, journal=Journal(), first_offset=first_offset, first_epoch=first_epoch
    )
