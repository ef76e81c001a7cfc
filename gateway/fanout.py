"""Following executions live: what a reader has not had yet, in log order, as it comes.

A follower holds no queue of its own, only how far it has read of entries that all followers share;
so a slow one costs nothing until the store drops what it has not read, and then it is told so and
let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from gateway.envelope import Stored
from gateway.live import Entry
from streams.execution.position import Place, Position

SETTLE_S: Final = 2.0
"""How long a stream stays open after the terminal event for LLM answers on the other topic."""
BATCH_EVENTS_MAX: Final = 500
"""Events given out at once, so that a long history does not become one huge frame."""


class Lagged(Exception):
    """The follower is too far behind; it may come back with its last position."""


async def follow(
    entries: Sequence[Entry],
    resume: Position,
    earlier: Sequence[Stored] = (),
    *,
    is_live: bool = True,
) -> AsyncIterator[list[tuple[Stored, Position]]]:
    """Yields batches of what lies after `resume`, each event with the position after it; ends when
    all have ended, or without `is_live` after what is known now.

    `earlier` holds events that are no longer in memory. Raises `Lagged` when the store dropped
    unread ones.
    """
    wake = asyncio.Event()
    for entry in entries:
        entry.waiters.add(wake)
    try:
        read = [entry.trimmed if earlier else 0 for entry in entries]
        position = resume
        pending = list(earlier)
        deadline: float | None = None
        while True:
            wake.clear()
            pending += _unread(entries, read)
            fresh = [item for item in in_order(pending) if not _had(resume, item)]
            pending = []
            if fresh:
                for start in range(0, len(fresh), BATCH_EVENTS_MAX):
                    batch = []
                    for item in fresh[start : start + BATCH_EVENTS_MAX]:
                        position = item.after(position)
                        batch.append((item, position))
                    yield batch
                continue
            if not is_live:
                return
            deadline = _deadline(entries, deadline)
            if deadline is None:
                await wake.wait()
            elif not await _woken(wake, deadline):
                return
    finally:
        for entry in entries:
            entry.waiters.discard(wake)


def in_order(events: Iterable[Stored]) -> list[Stored]:
    """The events of several partitions merged by time, each partition's own order untouched."""
    newest: dict[Place, int] = {}
    keyed = []
    for item in sorted(events, key=lambda item: (item.topic, item.partition, item.offset)):
        place = (item.topic, item.partition)
        # Clocks of different writers differ: within a partition the offset rules, not the time.
        newest[place] = max(newest.get(place, 0), item.at_ms)
        keyed.append((newest[place], item))
    keyed.sort(key=lambda pair: pair[0])
    return [item for _, item in keyed]


def _had(resume: Position, item: Stored) -> bool:
    return resume.has_read(item.topic, item.partition, item.offset)


def _unread(entries: Sequence[Entry], read: list[int]) -> list[Stored]:
    found: list[Stored] = []
    for index, entry in enumerate(entries):
        if read[index] < entry.trimmed:
            raise Lagged("events were dropped from memory before they were read")
        tail = entry.events[read[index] - entry.trimmed :]
        found += tail
        read[index] += len(tail)
    return found


def _deadline(entries: Sequence[Entry], current: float | None) -> float | None:
    """When the stream may end: never while one runs, now when all are settled, else a bit later."""
    if not all(entry.view.is_terminal for entry in entries):
        return None
    now = asyncio.get_running_loop().time()
    if all(entry.view.is_settled for entry in entries):
        return now
    return now + SETTLE_S if current is None else current


async def _woken(wake: asyncio.Event, deadline: float) -> bool:
    remaining_s = deadline - asyncio.get_running_loop().time()
    if remaining_s <= 0:
        return False
    try:
        await asyncio.wait_for(wake.wait(), remaining_s)
    except TimeoutError:
        return False
    return True
