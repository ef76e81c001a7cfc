"""Where a rebuild of a partition may start: written now and then, read by the next owner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producers.kafka import AsyncProducer, end_offset, scan
from producers.wire import Wire
from streams.execution.events import PartitionMarked
from streams.messages import event_id
from streams.topics import EXECUTIONS, SNAPSHOTS

if TYPE_CHECKING:
    from processors.execution_host import Hosted

MARK_RECORDS_MIN = 200
"""A mark is worth its record only when a rebuild would skip this many."""
ENDED_KEPT_MS = 120_000
"""How long marks stay before an execution that ended: a start may come twice, moments apart, and
an owner that no longer sees the first would run it again.
"""
ENDED_IDS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An execution that ended lately: where it began, and when this owner learned of its end."""

    first_offset: int
    first_epoch: int
    at_ms: int


class Marks:
    """The marks of one partition, and the ended executions that they must not pass yet."""

    def __init__(self, bootstrap: str, partition: int, wire: Wire, producer: AsyncProducer) -> None:
        self._bootstrap = bootstrap
        self._partition = partition
        self._wire = wire
        self._producer = producer
        self._ended: dict[str, Ended] = {}
        self._marked_at = 0

    def read(self) -> PartitionMarked | None:
        """The latest mark. One by a deposed owner is as true as any: it speaks of the past."""
        end = end_offset(self._bootstrap, SNAPSHOTS.name, self._partition)
        latest: PartitionMarked | None = None
        for batch in scan(self._bootstrap, SNAPSHOTS.name, self._partition, 0, end):
            for record in batch:
                value = record.value()
                try:
                    mark = self._wire.decode(value) if isinstance(value, bytes) else None
                except ValueError:
                    continue  # Put there by hand: nobody's mark.
                if isinstance(mark, PartitionMarked) and mark.topic == EXECUTIONS.name:
                    latest = mark
        return latest

    def reset(self) -> None:
        """A new claim begins: what ended is learned again from the log."""
        self._ended = {}
        self._marked_at = 0

    def ended(self, hosted: Hosted, now_ms: int) -> None:
        """Remembers an execution that ended."""
        while len(self._ended) >= ENDED_IDS_MAX:
            self._ended.pop(next(iter(self._ended)))
        self._ended[hosted.state.execution_id] = Ended(
            first_offset=hosted.first_offset, first_epoch=hosted.first_epoch, at_ms=now_ms
        )

    def has_ended(self, execution_id: str) -> bool:
        """Whether the execution is known to have ended."""
        return execution_id in self._ended

    async def write(
        self,
        *,
        hosted: Iterable[Hosted],
        stands_to: int,
        epoch: int,
        command_offset: int,
        is_idle: bool,
        now_ms: int,
    ) -> None:
        """Writes a mark if it is worth it: no later than the first event of anything that is open,
        or that ended so lately that its start may be on its way a second time.
        """
        oldest_kept_ms = now_ms - ENDED_KEPT_MS
        fresh = [e for e in self._ended.values() if not is_idle or e.at_ms > oldest_kept_ms]
        places = [(h.first_offset, h.first_epoch) for h in hosted]
        places += [(each.first_offset, each.first_epoch) for each in fresh]
        position, claim = min([*places, (stands_to, epoch)])
        if position < self._marked_at + MARK_RECORDS_MIN:
            return
        mark = PartitionMarked(
            event_id=event_id(
                "", "", EXECUTIONS.name, self._partition, "PartitionMarked", position
            ),
            tenant="",
            execution_id="",
            epoch=epoch,
            at_ms=now_ms,
            topic=EXECUTIONS.name,
            partition=self._partition,
            position=position,
            highest_claim=claim,
            command_offset=command_offset,
        )
        await self._producer.send(self._wire.encode(mark, SNAPSHOTS, partition=self._partition))
        self._marked_at = position
