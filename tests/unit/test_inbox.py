"""Commands in hand: nothing is done before its time, nothing is lost between two claims."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from processors.faust_batch import Batch
from processors.inbox import INBOX_BATCHES_MAX, Inbox


def a_batch(*offsets: int) -> Batch:
    records: Any = [
        SimpleNamespace(
            topic="t", partition=0, offset=offset, key=None, value=None,
            timestamp=0, timestamp_type=0,
        )
        for offset in offsets
    ]  # fmt: skip
    return Batch(records)


async def test_a_command_stays_in_hand_until_it_is_done() -> None:
    inbox, batch = Inbox(), a_batch(5, 6, 7)
    await inbox.put(batch)
    await inbox.take()

    inbox.done(6)

    assert [record.offset for record in inbox.in_hand()] == [5, 7]
    assert inbox.done_to == 4
    assert batch.done_below() == 5


async def test_what_is_done_moves_the_offset_over_the_finished_prefix_only() -> None:
    inbox, batch = Inbox(), a_batch(5, 6, 7)
    await inbox.put(batch)
    await inbox.take()

    for offset in (5, 7):
        inbox.done(offset)
    before = batch.done_below()
    inbox.done(6)

    assert (before, batch.done_below()) == (6, 8)
    assert inbox.done_to == 7
    assert inbox.is_idle


async def test_a_command_that_came_twice_is_done_in_both_deliveries() -> None:
    inbox, first, second = Inbox(), a_batch(5), a_batch(5)
    for batch in (first, second):
        await inbox.put(batch)
        await inbox.take()

    inbox.done(5)

    assert (first.done_below(), second.done_below()) == (6, 6)


async def test_a_full_inbox_makes_the_group_wait() -> None:
    inbox = Inbox()
    for offset in range(INBOX_BATCHES_MAX):
        await inbox.put(a_batch(offset))

    waiting = asyncio.create_task(inbox.put(a_batch(99)))
    await asyncio.sleep(0)
    was_waiting = not waiting.done()
    await inbox.take()
    await waiting

    assert was_waiting
