"""`omiumctl replay`: tables rebuilt from the log are the tables, also while the projector runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from producers import registry
from producers.topology import create_topics
from producers.wire import Wire
from projections.clickhouse import ClickHouseStore
from projections.http import ClickHouse, Endpoint
from projections.rebuild import Compared, Rebuild
from projections.source import LogSource, first_offsets
from tests.integration.test_projector import (
    Projector,
    Server,
    assert_ledger_covers_the_log,
    claims,
    eventually,
    expected,
    numbers,
    stories,
)
from tests.support.projection import KafkaLog, append


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


@pytest.fixture
def projector(kafka: str, clickhouse: Server, tmp_path: Path) -> Iterator[Projector]:
    """A running projector over topics of this test's own."""
    create_topics(kafka)
    registry.register_all(kafka)
    log = KafkaLog.made(kafka)
    name = log.executions.replace("-", "_").removesuffix("_executions")
    tables = ClickHouse(Endpoint(clickhouse.url, clickhouse.user, clickhouse.password, name))
    ClickHouseStore(tables).migrate()
    made = Projector(log, tables, tmp_path / "projector.log")
    made.start()
    yield made
    made.end()
    tables.execute(f"DROP DATABASE {name}")
    tables.close()


def rebuilt(projector: Projector, wire: Wire) -> list[Compared]:
    """The outcome of a rebuild beside the projector's tables."""
    keys = projector.log.keys()
    endpoint = projector.tables.endpoint
    fresh = ClickHouse(endpoint._replace(database=f"{endpoint.database}_rebuild"))
    try:
        return Rebuild(
            standing=projector.tables,
            fresh=fresh,
            source=LogSource(projector.log.bootstrap, monotonic_ms),
            decode=wire.decode,
            partitions=keys,
            lows=first_offsets(projector.log.bootstrap, keys),
            sleep_ms=lambda milliseconds: time.sleep(milliseconds / 1000),
            monotonic_ms=monotonic_ms,
            say=lambda _text: None,
        ).run()
    finally:
        fresh.close()


def test_rebuilt_tables_equal_the_standing_ones_and_the_projector_goes_on(
    kafka: str, projector: Projector
) -> None:
    wire, log = Wire.load(kafka), projector.log
    append(log, wire, [*claims(log), *stories(log, 0, 30, (0, 0)), (log.executions, 0, b"junk")])
    want = expected(30, claims=4)
    eventually(lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want))
    compared = rebuilt(projector, wire)
    assert [one.table for one in compared if not one.is_equal] == []
    assert {one.table: one.new_rows for one in compared}["events"] == want["events"]
    append(log, wire, stories(log, 30, 10, (0, 0)))
    want = expected(40, claims=4)
    eventually(lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want))


def test_a_table_that_differs_from_the_log_is_found_and_not_swapped(
    kafka: str, projector: Projector
) -> None:
    wire, log = Wire.load(kafka), projector.log
    append(log, wire, [*claims(log), *stories(log, 0, 5, (0, 0))])
    want = expected(5, claims=4)
    eventually(lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want))
    projector.tables.execute(
        "ALTER TABLE usage UPDATE cost_microusd = cost_microusd + 1 WHERE step = 's0'"
        " SETTINGS mutations_sync = 2"
    )
    compared = rebuilt(projector, wire)
    assert [one.table for one in compared if not one.is_equal] == ["usage"]
    # The projector was released and goes on over the tables as they were.
    append(log, wire, stories(log, 5, 5, (0, 0)))
    eventually(lambda: numbers(projector.tables)["events"] == expected(10, claims=4)["events"])
    assert_ledger_covers_the_log(projector)
