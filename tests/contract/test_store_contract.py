"""What every store of rows promises the sink: the same tests for memory and for a real
ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol
from uuid import uuid4

import pytest

from projections.clickhouse import ClickHouseStore
from projections.http import ClickHouse, Endpoint
from projections.ledger import WINDOW_OFFSETS, Batch, Range, SinkDeposed, Store
from projections.memory import MemoryStore
from projections.rows import rows_of
from projections.tables import COLUMNS, EVENTS, USAGE, PackedRow, Place, pack
from streams.messages import Event
from tests.support.projection import answered, claim, queued


class Server(Protocol):
    """What the `clickhouse` fixture gives."""

    url: str
    user: str
    password: str


class Opened:
    """A store and a way to count its rows."""

    def __init__(self, store: Store, client: ClickHouse | None = None) -> None:
        self.store = store
        self._client = client

    def count(self, table: str) -> int:
        """Rows of the table."""
        if isinstance(self.store, MemoryStore):
            return len(self.store.rows[table])
        assert self._client is not None
        return int(str(self._client.query(f"SELECT count() FROM {table}").rows[0][0]))


@pytest.fixture(params=["memory", "clickhouse"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """An empty store."""
    if request.param == "memory":
        yield Opened(MemoryStore())
        return
    server: Server = request.getfixturevalue("clickhouse")
    database = f"t_{uuid4().hex[:10]}"
    client = ClickHouse(Endpoint(server.url, server.user, server.password, database))
    store = ClickHouseStore(client)
    store.migrate()
    yield Opened(store, client)
    client.execute(f"DROP DATABASE {database}")
    client.close()


def part(first: int, last: int, topic: str = "t", claim: int = -1) -> Range:
    """A range of partition 0."""
    return Range(
        topic=topic, partition=0, first_offset=first, last_offset=last, highest_claim=claim
    )


def batch(seq: int, *ranges: Range, writer: str = "w") -> Batch:
    """An entry of the ledger."""
    return Batch(seq=seq, writer=writer, ranges=ranges)


def packed(event: Event, table: str, offset: int) -> list[PackedRow]:
    """The event's rows in one table."""
    return [pack(row) for name, row in rows_of(event, Place("t", 0, offset)) if name == table]


def test_an_empty_store_has_an_empty_ledger(opened: Opened) -> None:
    ledger = opened.store.ledger()
    assert ledger.newest is None
    assert ledger.next_seq == 0
    assert ledger.resume(("t", 0)) == (0, -1)


def test_an_intended_batch_is_unfinished_until_it_is_completed(opened: Opened) -> None:
    opened.store.intend(batch(0, part(0, 9, claim=3)))
    ledger = opened.store.ledger()
    assert ledger.newest == batch(0, part(0, 9, claim=3))
    assert ledger.resume(("t", 0)) == (0, -1)
    opened.store.complete(0)
    ledger = opened.store.ledger()
    assert not ledger.unfinished
    assert ledger.resume(("t", 0)) == (10, 3)
    assert ledger.next_seq == 1


def test_a_partition_keeps_its_newest_range(opened: Opened) -> None:
    opened.store.intend(batch(0, part(0, 4), part(0, 7, topic="u", claim=2)))
    opened.store.complete(0)
    opened.store.intend(batch(1, part(5, 9)))
    opened.store.complete(1)
    ledger = opened.store.ledger()
    assert ledger.resume(("t", 0)) == (10, -1)
    assert ledger.resume(("u", 0)) == (8, 2)


def test_intending_twice_is_intending_once(opened: Opened) -> None:
    opened.store.intend(batch(0, part(0, 4)))
    opened.store.intend(batch(0, part(0, 4)))
    newest = opened.store.ledger().newest
    assert newest is not None
    assert newest.ranges == (part(0, 4),)


def test_of_two_writers_of_one_batch_the_second_is_deposed(opened: Opened) -> None:
    opened.store.intend(batch(0, part(0, 4), writer="first"))
    with pytest.raises(SinkDeposed):
        opened.store.intend(batch(0, part(0, 9), writer="second"))
    newest = opened.store.ledger().newest
    assert newest is not None
    assert (newest.writer, newest.ranges) == ("first", (part(0, 4),))


def test_a_writer_that_is_behind_is_deposed(opened: Opened) -> None:
    for seq in range(3):
        opened.store.intend(batch(seq, part(seq, seq), writer="quick"))
        opened.store.complete(seq)
    with pytest.raises(SinkDeposed):
        opened.store.intend(batch(1, part(1, 9), writer="slow"))
    assert opened.store.ledger().resume(("t", 0)) == (3, -1)


def test_a_batch_without_ranges_counts(opened: Opened) -> None:
    opened.store.intend(batch(0, writer="replay"))
    assert opened.store.ledger().is_held


def test_rows_of_one_batch_stand_once_however_often_they_are_sent(opened: Opened) -> None:
    rows = packed(queued("x1", 0), EVENTS, 1)
    for _ in range(3):
        opened.store.insert(EVENTS, 0, rows)
    opened.store.insert(EVENTS, 1, packed(queued("x2", 0), EVENTS, 2))
    assert opened.count(EVENTS) == 2


def test_every_table_takes_its_rows(opened: Opened) -> None:
    for table in COLUMNS:
        opened.store.insert(table, 0, packed(answered("x1", 0, 0), table, 1))
    assert opened.count(USAGE) == 1


def test_settled_calls_are_found_by_all_three_of_their_names(opened: Opened) -> None:
    events = [answered(execution, 0, 0) for execution in ("x1", "x'2", "x\\3\t")]
    opened.store.insert(
        USAGE, 0, [row for at, event in enumerate(events) for row in packed(event, USAGE, at)]
    )
    asked = [(event.tenant, event.call_id, event.event_id) for event in events]
    found = opened.store.settled([*asked, ("other", events[0].call_id, events[0].event_id)])
    assert {(one.event_id, one.offset) for one in found} == {
        (event.event_id, at) for at, event in enumerate(events)
    }


def test_the_ledger_tells_the_ids_that_stand_just_below_the_resume_offset(opened: Opened) -> None:
    far = WINDOW_OFFSETS + 100
    opened.store.insert(EVENTS, 0, packed(claim(), EVENTS, 0))
    opened.store.insert(EVENTS, 1, packed(queued("x2", 0), EVENTS, far))
    opened.store.insert(EVENTS, 2, packed(queued("x1", 0), EVENTS, far - 1))
    opened.store.insert(EVENTS, 3, packed(queued("beyond", 0), EVENTS, far + 1))
    opened.store.intend(batch(3, part(0, far)))
    opened.store.complete(3)
    assert opened.store.ledger().recent["t", 0] == [
        (queued("x1", 0).event_id, far - 1),
        (queued("x2", 0).event_id, far),
    ]


def test_pruning_keeps_what_names_every_position(opened: Opened) -> None:
    opened.store.intend(batch(0, part(0, 4)))
    opened.store.complete(0)
    opened.store.intend(batch(1, part(5, 4, claim=2)))
    opened.store.complete(1)
    opened.store.prune(1)
    assert opened.store.ledger().resume(("t", 0)) == (5, 2)
