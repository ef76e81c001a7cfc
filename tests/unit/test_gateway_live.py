"""The store of live executions stays within its bounds, and followers miss nothing that they are
not told of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from gateway.fanout import Lagged, follow, in_order
from gateway.live import Entry, Live
from streams.execution.commands import StartExecution
from streams.execution.position import Position
from streams.llm.events import LlmCallCompleted
from streams.messages import Message
from streams.topics import EXECUTIONS, LLM_RESPONSES
from tests.support.story import Story

T = "acme"
MIB = 1024 * 1024


def live(*, bytes_max: int = MIB, executions_max: int = 1000) -> Live:
    return Live(bytes_max=bytes_max, executions_max=executions_max)


def fold(store: Live, events: Iterable[Message], start: int = 0) -> int:
    """Folds events at rising offsets, each on its own topic; the next offset."""
    for event in events:
        topic = LLM_RESPONSES if isinstance(event, LlmCallCompleted) else EXECUTIONS
        store.fold(event, topic.name, 0, start, 0)
        start += 1
    return start


def command(execution_id: str) -> StartExecution:
    return StartExecution(
        event_id="c",
        tenant=T,
        execution_id=execution_id,
        workflow="w",
        workflow_version="1",
        framework="python",
        entrypoint="m:f",
        input_json="{}",
        options_json="{}",
        labels_json="{}",
        deadline_at_ms=None,
    )


async def taken(store: Live, *ids: str, resume: str = "", is_live: bool = False) -> list[str]:
    """The event ids that a follower gets."""
    entries = [entry for name in ids if (entry := store.get(T, name)) is not None]
    got: list[str] = []
    async for batch in follow(entries, Position.parse(resume), is_live=is_live):
        got += [item.event_id for item, _ in batch]
    return got


def test_finished_executions_leave_oldest_first_and_running_ones_stay() -> None:
    # given
    store = live(executions_max=3)
    running = Story(T, "running")
    offset = fold(store, [running.queued(), running.started()])

    # when
    for number in range(5):
        offset = fold(store, Story(T, f"done-{number}").whole(()), offset)

    # then
    assert [n for n in range(5) if store.get(T, f"done-{n}") is not None] == [3, 4]
    assert store.get(T, "running") is not None
    assert store.evicted == 3


def test_memory_is_bounded_even_if_nothing_ends() -> None:
    store = live(bytes_max=200_000)
    story = Story(T, "long")
    offset = fold(store, [story.queued(), story.started()])
    for number in range(600):
        offset = fold(store, [story.step_started("s", number)], offset)
        assert store.size_bytes <= 200_000
    entry = store.get(T, "long")
    assert entry is not None
    assert entry.trimmed > 0
    assert len(entry.view.steps) == 600


def test_the_store_counts_its_bytes_exactly() -> None:
    store = live()
    offset = 0
    for number in range(4):
        offset = fold(store, Story(T, f"x-{number}").whole(), offset)
    for number in range(4):
        store.drop(f"x-{number}")
    assert store.size_bytes == 0


def test_queued_executions_are_counted_until_they_start() -> None:
    store = live()
    store.accept(command("x-1"), is_fresh=True)
    store.accept(command("x-1"), is_fresh=True)
    assert store.queued(T) == 1
    story = Story(T, "x-1")
    fold(store, [story.queued()])
    assert store.queued(T) == 1
    fold(store, [story.started()], 1)
    assert store.queued(T) == 0


def test_a_command_from_before_the_start_is_not_shown_until_confirmed() -> None:
    store = live()
    store.accept(command("old"), is_fresh=False)
    assert list(store.of_tenant(T)) == []
    assert store.queued(T) == 0
    assert store.unconfirmed() == [(T, "old")]
    store.confirm("old")
    assert [entry.view.execution_id for entry in store.of_tenant(T)] == ["old"]
    assert store.queued(T) == 1


def test_another_tenants_event_under_the_same_id_changes_nothing() -> None:
    store = live()
    fold(store, [Story(T, "x").queued()])
    fold(store, [Story("other", "x").cancelled()], 1)
    entry = store.get(T, "x")
    assert entry is not None
    assert entry.view.status == "queued"
    assert store.get("other", "x") is None


async def test_a_follower_of_a_running_execution_waits_for_more() -> None:
    # given
    store = live()
    story = Story(T, "x")
    events = story.whole(("gather",))
    offset = fold(store, events[:3])
    following = asyncio.create_task(taken(store, "x", is_live=True))
    await asyncio.sleep(0)

    # when
    for event in events[3:]:
        offset = fold(store, [event], offset)
        await asyncio.sleep(0)

    # then
    assert sorted(await following) == sorted(event.event_id for event in events)


async def test_a_follower_whose_unread_events_were_dropped_is_told() -> None:
    store = live(bytes_max=60_000)
    story = Story(T, "long")
    offset = fold(store, [story.queued(), story.started()])
    entry = store.get(T, "long")
    assert entry is not None
    stream = follow([entry], Position.start())
    await anext(stream)
    for number in range(200):
        offset = fold(store, [story.step_started("s", number)], offset)
    with pytest.raises(Lagged):
        await anext(stream)
    assert entry.waiters == set()


async def test_a_follower_that_leaves_is_forgotten() -> None:
    store = live()
    fold(store, [Story(T, "x").queued()])
    entry = store.get(T, "x")
    assert entry is not None
    stream = follow([entry], Position.start())
    await anext(stream)
    assert len(entry.waiters) == 1
    await stream.aclose()  # type: ignore[attr-defined]
    assert entry.waiters == set()


async def test_partitions_are_merged_by_time_without_breaking_their_own_order() -> None:
    # given two executions on one partition, the second written by an owner whose clock is behind
    store = live()
    early, late = Story(T, "a", start_ms=5_000), Story(T, "b", start_ms=1_000)
    offset = fold(store, [early.queued(), early.started()])
    fold(store, [late.queued(), late.started()], offset)
    entries = [store.get(T, "a"), store.get(T, "b")]
    items = [item for entry in entries if isinstance(entry, Entry) for item in entry.events]

    # then offsets rise, whatever the clocks said
    assert [item.offset for item in in_order(reversed(items))] == [0, 1, 2, 3]
