"""The laws of `projections.batches`: void first, duplicates second, equal records give equal
batches."""

from __future__ import annotations

from collections.abc import Sequence

from projections.batches import BatchBuilder, LogRecord, PartitionReader, Prepared
from projections.ledger import WINDOW_OFFSETS, Ledger, Settled
from projections.tables import COLUMNS, EVENTS, EVENTS_VOID, USAGE, unpack
from tests.support.projection import FakeLog, answered, claim, queued, started, step, story

TOPIC = "t"
EMPTY = Ledger(newest=None, is_complete=True, ranges={}, recent={})


def builder(log: FakeLog, ledger: Ledger = EMPTY, is_claimed: bool = True) -> BatchBuilder:
    """A builder of one partition."""
    key = (TOPIC, 0)
    return BatchBuilder(log.decode, {key: PartitionReader.resumed(key, is_claimed, ledger)})


def build(
    of: BatchBuilder, records: Sequence[LogRecord], settled: frozenset[Settled] = frozenset()
) -> Prepared:
    """The records as one batch."""
    return of.build(records, 0, "w", lambda _calls: set(settled))


def ids(prepared: Prepared, table: str) -> list[object]:
    """Event ids of a table's rows."""
    at = COLUMNS[table].index("event_id")
    return [unpack(row)[at] for row in prepared.rows[table]]


def test_an_event_of_a_deposed_owner_goes_to_the_void_and_nowhere_else() -> None:
    log = FakeLog()
    records = log.append(TOPIC, claim(), queued("x1", 0), claim(1), started("x1", 0))
    prepared = build(builder(log), records)
    assert ids(prepared, EVENTS_VOID) == [started("x1", 0).event_id]
    assert len(ids(prepared, EVENTS)) == 3
    assert prepared.batch.ranges[0].void == 1


def test_a_void_event_leaves_its_valid_twin_standing() -> None:
    log = FakeLog()
    records = log.append(TOPIC, claim(), claim(1), queued("x1", 0), queued("x1", 1))
    prepared = build(builder(log), records)
    assert ids(prepared, EVENTS).count(queued("x1", 1).event_id) == 1
    assert prepared.batch.ranges[0].duplicates == 0


def test_a_repeat_is_dropped_and_counted() -> None:
    log = FakeLog()
    records = log.append(TOPIC, claim(), queued("x1", 0), queued("x1", 0))
    prepared = build(builder(log), records)
    assert ids(prepared, EVENTS).count(queued("x1", 0).event_id) == 1
    assert prepared.batch.ranges[0].duplicates == 1


def test_a_repeat_in_a_later_batch_is_dropped() -> None:
    log = FakeLog()
    of = builder(log)
    build(of, log.append(TOPIC, claim(), queued("x1", 0)))
    assert ids(build(of, log.append(TOPIC, queued("x1", 0))), EVENTS) == []


def test_a_restarted_sink_remembers_what_the_store_says() -> None:
    log = FakeLog()
    log.append(TOPIC, claim(), queued("x1", 0))
    known = Ledger(
        newest=None,
        is_complete=True,
        ranges={},
        recent={(TOPIC, 0): [(queued("x1", 0).event_id, 1)]},
    )
    of = builder(log, known)
    of.readers[TOPIC, 0].position = 2
    assert ids(build(of, log.append(TOPIC, queued("x1", 0))), EVENTS) == []


def test_ids_are_forgotten_by_offset_alone() -> None:
    of = PartitionReader.resumed((TOPIC, 0), False, EMPTY)
    assert of.judge(queued("x1", 0), 0) == "standing"
    assert of.judge(queued("x1", 0), WINDOW_OFFSETS) == "duplicate"
    assert of.judge(queued("x1", 0), 2 * WINDOW_OFFSETS + 1) == "standing"


def test_a_settled_call_is_dropped_however_late_it_comes_again() -> None:
    log = FakeLog()
    event = answered("x1", 0, epoch=5)
    log.append(TOPIC, *(step("x1", n, 5) for n in range(4)))
    of = builder(log)
    of.readers[TOPIC, 0].position = 4
    known = frozenset({Settled(event.event_id, TOPIC, 0, 3)})
    prepared = build(of, log.append(TOPIC, event), known)
    assert ids(prepared, USAGE) == []
    assert ids(prepared, EVENTS) == []
    assert prepared.batch.ranges[0].duplicates == 1


def test_a_batch_sent_again_does_not_take_its_own_rows_for_repeats() -> None:
    log = FakeLog()
    event = answered("x1", 0, epoch=0)
    records = log.append(TOPIC, claim(), event)
    own = frozenset({Settled(event.event_id, TOPIC, 0, 1)})
    assert ids(build(builder(log), records, own), USAGE) == [event.event_id]


def test_poison_is_set_aside_and_the_partition_goes_on() -> None:
    log = FakeLog()
    records = log.append(TOPIC, claim(), b"junk", queued("x1", 0))
    prepared = build(builder(log), records)
    assert [dead.record.offset for dead in prepared.dead] == [1]
    assert len(ids(prepared, EVENTS)) == 2
    assert prepared.batch.ranges[0].last_offset == 2


def test_on_a_topic_without_owner_nothing_is_void() -> None:
    log = FakeLog()
    records = log.append(TOPIC, claim(), queued("x1", -1))
    assert len(ids(build(builder(log, is_claimed=False), records), EVENTS)) == 2


def test_equal_records_give_equal_batches() -> None:
    log = FakeLog()
    records = log.append(
        TOPIC, claim(), *story("x1", 0), b"junk", claim(1), *story("x1", 0), *story("x2", 18)
    )
    assert build(builder(log), records) == build(builder(log), records)


def test_every_record_is_accounted_for() -> None:
    log = FakeLog()
    records = log.append(
        TOPIC, claim(), *story("x1", 0), b"junk", queued("x1", 0), claim(1), *story("x2", 0)
    )
    part = build(builder(log), records).batch.ranges[0]
    assert part.records == len(records)
    assert part.rows + part.void + part.duplicates + part.poison == part.records
