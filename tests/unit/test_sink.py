"""Exactly once, whatever is killed: a sink over a store in memory, stopped at every single call of
the store."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest

from projections.batches import DeadRecord, LogRecord
from projections.ledger import HOLD_WRITER, Batch, Ledger, PartitionKey, Range, Settled, Store
from projections.memory import MemoryStore
from projections.sink import Sink
from projections.tables import COLUMNS, EVENTS, EVENTS_VOID, USAGE, PackedRow
from streams.errors import Retryable
from tests.support.projection import COST, FakeLog, answered, claim, requested, story

RESTS_MAX = 3000
KEYS = {("executions", 0): True, ("requests", 0): False, ("responses", 0): True}


class Killed(BaseException):
    """kill -9: nothing in the sink may catch it."""


class LogReader:
    """A source over a log in memory. Batches are cut at seeded places, so a restart would cut them
    elsewhere."""

    def __init__(self, log: FakeLog, rng: random.Random) -> None:
        self._log = log
        self._rng = rng
        self._left: list[LogRecord] = []
        self.idle = 0

    def open(self, positions: dict[PartitionKey, int]) -> None:
        """Read on from these offsets."""
        self._left = [r for r in self._log.records if r.offset >= positions[r.topic, r.partition]]

    def take(self) -> list[LogRecord]:
        """The next few records."""
        count = self._rng.randint(1, 12)
        taken, self._left = self._left[:count], self._left[count:]
        self.idle = 0 if taken else self.idle + 1
        return taken

    def again(self, part: Range) -> Iterator[LogRecord]:
        """The records of a range."""
        return (
            r
            for r in self._log.records
            if (r.topic, r.partition) == part.key
            and part.first_offset <= r.offset <= part.last_offset
        )

    def close(self) -> None:
        """Nothing to close."""


@dataclass(slots=True)
class Grave:
    """Dead letters, by place: burying twice is one letter."""

    letters: dict[tuple[str, int, int], str] = field(default_factory=dict)

    def bury(self, dead: Sequence[DeadRecord]) -> None:
        """Keep them."""
        for one in dead:
            self.letters[one.record[:3]] = one.reason


class Fragile:
    """A store whose n-th call kills the sink, before or after it took effect."""

    def __init__(self, store: Store, kill_at: int, is_after: bool) -> None:
        self._store = store
        self._left = kill_at
        self._is_after = is_after

    def _guarded(self, act: Callable[[], None]) -> None:
        self._left -= 1
        if self._left == 0 and not self._is_after:
            raise Killed
        act()
        if self._left == 0:
            raise Killed

    def ledger(self) -> Ledger:
        return self._store.ledger()

    def intend(self, batch: Batch) -> None:
        self._guarded(lambda: self._store.intend(batch))

    def insert(self, table: str, seq: int, rows: Sequence[PackedRow]) -> None:
        self._guarded(lambda: self._store.insert(table, seq, rows))

    def complete(self, seq: int) -> None:
        self._guarded(lambda: self._store.complete(seq))

    def prune(self, before_seq: int) -> None:
        self._store.prune(before_seq)

    def settled(self, calls: Sequence[tuple[str, str, str]]) -> set[Settled]:
        return self._store.settled(calls)


def eventful_log() -> FakeLog:
    """Stories with a zombie's events, repeats, poison and calls, over three partitions."""
    log = FakeLog()
    log.append("executions", claim())
    log.append("responses", claim())
    for number in range(6):
        execution = f"x{number}"
        log.append("executions", *story(execution, 0))
        log.append("requests", requested(execution, 0), requested(execution, 0))
        log.append(
            "responses",
            answered(execution, 0, 0),
            answered(execution, 1, 0),
            answered(execution, 0, 0),
        )
    log.append("executions", b"junk", claim(1), *story("late", 0), *story("x1", 0)[:2])
    return log


STANDING = 2 + 6 * 8 + 6 + 6 * 2 + 1
VOID = 8 + 2


def sink(
    log: FakeLog, store: Store, seed: int, writer: str = "w", grave: Grave | None = None
) -> Sink:
    """A sink that stops once it has read everything and rested."""
    source = LogReader(log, random.Random(seed))
    clock = iter(range(10**9))
    rests = iter([False] * RESTS_MAX)
    return Sink(
        source=source,
        store=store,
        dead_letters=grave or Grave(),
        decode=log.decode,
        partitions=KEYS,
        writer=writer,
        wait=lambda _ms: source.idle > 1 or next(rests, True),
        monotonic_ms=lambda: next(clock),
    )


def assert_exact(store: MemoryStore) -> None:
    """Rows are the log's standing events, each once."""
    ids = [row[2] for row in store.rows[EVENTS]]
    assert len(ids) == len(set(ids)) == STANDING
    assert len(store.rows[EVENTS_VOID]) == VOID
    cost = COLUMNS[USAGE].index("cost_microusd")
    assert sum(int(str(row[cost])) for row in store.rows[USAGE]) == 12 * COST


def test_rows_are_the_standing_events_of_the_log() -> None:
    store, grave = MemoryStore(), Grave()
    sink(eventful_log(), store, seed=1, grave=grave).run()
    assert_exact(store)
    assert list(grave.letters) == [("executions", 0, 49)]


@pytest.mark.parametrize("is_after", [False, True])
def test_a_kill_at_any_call_of_the_store_loses_and_repeats_nothing(is_after: bool) -> None:
    log = eventful_log()
    kills = 0
    for kill_at in count(1):
        store = MemoryStore()
        try:
            sink(log, Fragile(store, kill_at, is_after), seed=1, writer="first").run()
        except Killed:
            sink(log, store, seed=kill_at, writer="second").run()
            assert_exact(store)
            kills += 1
        else:
            break
    assert kills > 50


def test_kills_in_a_row_lose_and_repeat_nothing() -> None:
    rng = random.Random(7)
    for _ in range(40):
        log, store = eventful_log(), MemoryStore()
        for life in range(12):
            fragile = Fragile(store, rng.randint(1, 14), rng.random() < 0.5)
            try:
                sink(log, fragile, seed=rng.randint(0, 10**6), writer=f"life-{life}").run()
            except Killed:
                continue
        sink(log, store, seed=5, writer="last").run()
        assert_exact(store)


def test_two_sinks_at_once_write_every_row_once() -> None:
    log, store = eventful_log(), MemoryStore()

    class Overtaken(MemoryStore):
        """Before the third batch of the slow sink, a quick one does everything."""

        calls = 0

        def intend(self, batch: Batch) -> None:
            Overtaken.calls += 1
            if batch.writer == "slow" and Overtaken.calls == 3:
                sink(log, self, seed=2, writer="quick").run()
            MemoryStore.intend(self, batch)

    store = Overtaken()
    sink(log, store, seed=3, writer="slow").run()
    assert_exact(store)
    assert {batch.writer for batch in store.batches} >= {"quick"}


def test_a_store_that_is_away_is_waited_for() -> None:
    class Flaky(MemoryStore):
        """Every other insert fails before or after it took effect."""

        count = 0

        def insert(self, table: str, seq: int, rows: Sequence[PackedRow]) -> None:
            Flaky.count += 1
            if Flaky.count % 3 == 0:
                raise Retryable("away", 1)
            MemoryStore.insert(self, table, seq, rows)
            if Flaky.count % 3 == 1:
                raise Retryable("the answer was lost", 1)

    store = Flaky()
    sink(eventful_log(), store, seed=4).run()
    assert_exact(store)


def test_while_a_rebuild_holds_the_ledger_nothing_is_written() -> None:
    log, store = eventful_log(), MemoryStore()
    store.intend(Batch(seq=0, writer=HOLD_WRITER, ranges=()))
    sink(log, store, seed=1).run()
    assert store.rows[EVENTS] == []
