"""Commands in hand: taken from the group, not done until what followed from them stands."""

from __future__ import annotations

import asyncio

from processors.faust_batch import Batch, InboxRecord

INBOX_BATCHES_MAX = 4
"""Batches that may wait; then the group's delivery waits too."""


class Inbox:
    """Remembers every command that is not done, so that a new claim can decide it again.

    A command whose event became void would otherwise be decided by nobody until the next rebalance.
    """

    def __init__(self) -> None:
        self._batches: asyncio.Queue[Batch] = asyncio.Queue(INBOX_BATCHES_MAX)
        self._open: dict[int, tuple[InboxRecord, list[Batch]]] = {}
        self._taken_to = -1

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand and nothing waits."""
        return not self._open and self._batches.empty()

    @property
    def done_to(self) -> int:
        """The highest offset such that it and all below it are done, of those seen here."""
        return min(self._open, default=self._taken_to + 1) - 1

    async def put(self, batch: Batch) -> None:
        """Hands a batch over; waits while there is no room."""
        await self._batches.put(batch)

    async def take(self) -> list[InboxRecord]:
        """The next batch's records, in order; all of them are in hand now."""
        batch = await self._batches.get()
        for record in batch.records:
            # A renewed assignment may deliver it again while the first delivery is in hand.
            self._open.setdefault(record.offset, (record, []))[1].append(batch)
            self._taken_to = max(self._taken_to, record.offset)
        return batch.records

    def in_hand(self) -> list[InboxRecord]:
        """What is taken and not done, in order."""
        return [self._open[offset][0] for offset in sorted(self._open)]

    def done(self, offset: int) -> None:
        """What followed from the command stands, or it is known to need nothing."""
        _, batches = self._open.pop(offset, (None, []))
        for batch in batches:
            batch.done(offset)
