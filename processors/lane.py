"""A lane: the one claimed writer of one output partition (laws 2 and 4; ADR 0002)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from confluent_kafka import KafkaError

from producers.kafka import AsyncProducer, end_offset, scan
from producers.wire import Record, Wire
from streams.errors import Deposed, Retryable
from streams.execution.events import OwnerClaimed
from streams.messages import Message, event_id
from streams.ownership import NO_CLAIM, EpochFold, Gap, Tenure
from streams.topics import Topic

log = logging.getLogger("omium.lane")

Fold = Callable[[int, Message], None]
"""Takes the offset and a standing event; called in log order, from a thread, never from two at
once.
"""

Stood = Callable[[int, Exception | None], None]
"""Takes the event's offset once it stands, or -1 and why it never will; called on the loop; must
not raise.
"""


class Clock(Protocol):
    """Where a shell gets its time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...


class Lane:
    """Claims a partition, appends to it, and knows which of its events stand.

    `append` returns when the events stand: acknowledged by all in-sync replicas with no later claim
    before them. Once another owner has claimed, every append raises `Deposed`, now and ever after.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        topic: Topic,
        partition: int,
        worker_id: str,
        generation: int,
        wire: Wire,
        producer: AsyncProducer,
        clock: Clock,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._bootstrap = bootstrap
        self._worker_id = worker_id
        self._generation = generation
        self._wire = wire
        self._producer = producer
        self._clock = clock
        self._tenure: Tenure | None = None
        self._unsettled: deque[tuple[int, Stood]] = deque()
        self._in_flight = 0
        self._nothing_in_flight = asyncio.Event()
        self._nothing_in_flight.set()
        self._gap_task: asyncio.Task[None] | None = None
        self.deposed = asyncio.Event()
        self._deposed_by = NO_CLAIM

    @property
    def epoch(self) -> int:
        """The offset of this lane's claim."""
        assert self._tenure is not None, "the lane is not claimed yet"
        return self._tenure.epoch

    async def claim(self, fold: Fold, *, start: int = 0, epochs: EpochFold | None = None) -> None:
        """Appends the claim, then folds every standing event from `start` up to it.

        `epochs` is the highest claim below `start` (rule 5). Events behind the claim are found by
        the first append.
        """
        claim = OwnerClaimed(
            event_id=event_id(
                "", "", self.topic.name, self.partition, self._worker_id, self._generation
            ),
            tenant="",
            execution_id="",
            at_ms=self._clock.now_ms(),
            worker_id=self._worker_id,
            generation=self._generation,
            topic=self.topic.name,
            partition=self.partition,
        )
        record = self._wire.encode(claim, self.topic, partition=self.partition)
        offset = await self._producer.send(record)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._rebuild, fold, start, offset, epochs or EpochFold())
        self._tenure = Tenure.begun(offset)

    async def append(self, *messages: Message) -> list[int]:
        """Appends the events in order and returns their offsets when all of them stand."""
        loop = asyncio.get_running_loop()
        standing: list[asyncio.Future[int]] = [loop.create_future() for _ in messages]
        hears = map(_resolver, standing)
        self.post(*zip(messages, hears, strict=True))
        return [await future for future in standing]

    def post(self, *items: tuple[Message, Stood]) -> None:
        """Appends without waiting; each `stood` is called in order of posting.

        All are encoded before the first is sent: either all are on their way or, when one raises,
        none; and they share a request. Raises `Deposed` at once if the tenure is over.
        """
        if self.deposed.is_set():
            raise Deposed(self.topic.name, self.partition, self._deposed_by)
        records = [(self._encoded(message), stood) for message, stood in items]
        for record, stood in records:
            self._producer.append(record, partial(self._acknowledged, stood))
            self._in_flight += 1
            self._nothing_in_flight.clear()

    def _encoded(self, message: Message) -> Record:
        is_stamped = message.epoch == self.epoch and message.at_ms
        stamped = message if is_stamped else self._stamped(message)
        record = self._wire.encode(stamped, self.topic)
        assert record.partition == self.partition, "an event on a partition that its key is not of"
        return record

    def _acknowledged(self, stood: Stood, offset: int, error: KafkaError | None) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._nothing_in_flight.set()
        if error is not None:
            stood(-1, Retryable(f"append failed: {error.str()}", 1000))
        elif self.deposed.is_set():
            stood(-1, Deposed(self.topic.name, self.partition, self._deposed_by))
        else:
            self._unsettled.append((offset, stood))
            self._settle()

    async def confirm(self) -> None:
        """Returns when everything posted before stands and no foreign claim is on the log now.

        To be asked before deciding that something leads to nothing: the state that said so may be
        a deposed owner's. Raises `Deposed`.
        """
        loop = asyncio.get_running_loop()
        await self._nothing_in_flight.wait()
        end = await loop.run_in_executor(
            None, end_offset, self._bootstrap, self.topic.name, self.partition
        )
        assert self._tenure is not None
        gap = self._tenure.gap_before(max(end, self._tenure.dense_to))
        claim = None if gap is None else await loop.run_in_executor(None, self._claim_within, gap)
        if claim is not None:
            self.depose(claim)
        if self.deposed.is_set():
            raise Deposed(self.topic.name, self.partition, self._deposed_by)
        if gap is not None:
            self._tenure = self._tenure.stands(gap.end - 1)
            self._settle()

    def _stamped(self, message: Message) -> Message:
        return replace(message, epoch=self.epoch, at_ms=message.at_ms or self._clock.now_ms())

    def _settle(self) -> None:
        assert self._tenure is not None, "an acknowledgement before the claim"
        while self._unsettled and self._gap_task is None and not self.deposed.is_set():
            offset, stood = self._unsettled[0]
            gap = self._tenure.gap_before(offset)
            if gap is not None:
                self._gap_task = asyncio.get_running_loop().create_task(self._judge(gap))
                return
            self._tenure = self._tenure.stands(offset)
            self._unsettled.popleft()
            stood(offset, None)

    async def _judge(self, gap: Gap) -> None:
        try:
            loop = asyncio.get_running_loop()
            claim = await loop.run_in_executor(None, self._claim_within, gap)
        except Exception as error:
            # Unknown is not standing: give the lane up, the group will hand it out again.
            log.warning("%s[%s]: cannot read a gap: %s", self.topic.name, self.partition, error)
            claim = gap.start
        self._gap_task = None
        if claim is not None:
            self.depose(claim)
            return
        assert self._tenure is not None
        self._tenure = self._tenure.stands(gap.end - 1)
        self._settle()

    def depose(self, claim_offset: int) -> None:
        """Ends the tenure: waiting and later appends raise `Deposed`."""
        self._deposed_by = claim_offset
        self.deposed.set()
        error = Deposed(self.topic.name, self.partition, claim_offset)
        while self._unsettled:
            _, stood = self._unsettled.popleft()
            stood(-1, error)

    def _claim_within(self, gap: Gap) -> int | None:
        for batch in scan(self._bootstrap, self.topic.name, self.partition, gap.start, gap.end):
            for record in batch:
                if isinstance(self._decoded(record.value()), OwnerClaimed):
                    return int(record.offset() or 0)
        return None

    def _rebuild(self, fold: Fold, start: int, claim_offset: int, epochs: EpochFold) -> None:
        for batch in scan(
            self._bootstrap, self.topic.name, self.partition, start, claim_offset + 1
        ):
            for record in batch:
                message, offset = self._decoded(record.value()), int(record.offset() or 0)
                if message is None:
                    continue
                if isinstance(message, OwnerClaimed):
                    epochs = epochs.claimed(offset)
                elif not epochs.is_void(message.epoch):
                    epochs = epochs.seen(message.epoch)
                    fold(offset, message)

    def _decoded(self, value: bytes | str | None) -> Message | None:
        """The message, or nothing for a record put there by hand: it is nobody's event."""
        try:
            return self._wire.decode(value) if isinstance(value, bytes) else None
        except ValueError as error:
            log.warning("%s[%s]: unreadable record: %s", self.topic.name, self.partition, error)
            return None


def _resolver(future: asyncio.Future[int]) -> Stood:
    def stood(offset: int, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(offset)
        else:
            future.set_exception(error)
            future.exception()  # Nobody may be waiting for this one.

    return stood
