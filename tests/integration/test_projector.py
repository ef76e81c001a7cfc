"""Rows = the log's standing events, on a real Kafka and a real ClickHouse, with real kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from producers import registry
from producers.kafka import end_offset, scan
from producers.topology import create_topics
from producers.wire import Wire
from projections.clickhouse import ClickHouseStore
from projections.http import ClickHouse, Endpoint
from streams.control.events import RecordDeadLettered
from streams.messages import Message
from streams.topics import DLQ
from tests.support.projection import (
    COST,
    KafkaLog,
    answered,
    append,
    claim,
    queued,
    requested,
    started,
    story,
)

DEADLINE_S = 90.0
POLL_S = 0.02
Records = list[tuple[str, int, Message | bytes]]


class Server(Protocol):
    """What the `clickhouse` fixture gives."""

    url: str
    user: str
    password: str


@pytest.fixture(scope="module")
def wire(kafka: str) -> Wire:
    """The wire of a broker that knows our schemas and the dead letter topic."""
    create_topics(kafka)
    registry.register_all(kafka)
    return Wire.load(kafka)


@pytest.fixture
def tables(clickhouse: Server) -> Iterator[ClickHouse]:
    """A fresh database with our tables."""
    client = ClickHouse(
        Endpoint(clickhouse.url, clickhouse.user, clickhouse.password, f"t_{uuid4().hex[:10]}")
    )
    ClickHouseStore(client).migrate()
    yield client
    client.execute(f"DROP DATABASE {client.endpoint.database}")
    client.close()


@dataclass(slots=True)
class Projector:
    """A sink process that can be killed and started again."""

    log: KafkaLog
    tables: ClickHouse
    output: Path
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        spec = {
            "kafka": self.log.bootstrap,
            "clickhouse": list(self.tables.endpoint),
            "partitions": [[*key, claimed] for key, claimed in self.log.keys().items()],
        }
        with self.output.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.sink_process", json.dumps(spec)],
                stdout=file,
                stderr=file,
            )

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill it, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None


@pytest.fixture
def projector(kafka: str, tables: ClickHouse, tmp_path: Path) -> Iterator[Projector]:
    """A projector over topics of this test's own, not started yet."""
    made = Projector(KafkaLog.made(kafka), tables, tmp_path / "projector.log")
    yield made
    made.end()


def eventually(holds: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what()}"
        time.sleep(POLL_S)


def numbers(tables: ClickHouse) -> dict[str, int]:
    """What stands."""
    answer = tables.query(
        "SELECT (SELECT count() FROM events) AS events,"
        " (SELECT uniqExact(event_id) FROM events) AS ids,"
        " (SELECT count() FROM events_void) AS void, (SELECT count() FROM usage) AS calls,"
        " (SELECT sum(cost_microusd) FROM usage) AS cost,"
        " (SELECT sum(llm_calls) FROM executions) AS llm_calls,"
        " (SELECT sum(steps) FROM executions) AS steps,"
        " (SELECT sum(tool_calls) FROM executions) AS tool_calls,"
        " (SELECT countIf(status = 'completed') FROM executions) AS completed"
    )
    return {name: int(str(value)) for name, value in answer.records()[0].items()}


def stories(log: KafkaLog, first: int, count: int, epochs: tuple[int, int]) -> Records:
    """Executions, each with two calls, of which one is answered twice under one id."""
    records: Records = []
    for number in range(first, first + count):
        name, partition = f"x{number}", number % 2
        records += [(log.executions, partition, event) for event in story(name, epochs[partition])]
        records.append((log.requests, partition, requested(name, 0)))
        for ordinal in (0, 1, 0):
            records.append((log.responses, partition, answered(name, ordinal, epochs[partition])))
    return records


def expected(executions: int, claims: int, void: int = 0) -> dict[str, int]:
    """The numbers of so many stories."""
    return {
        "events": executions * (8 + 1 + 2) + claims,
        "ids": executions * (8 + 1 + 2) + claims,
        "void": void,
        "calls": executions * 2,
        "cost": executions * 2 * COST,
        "llm_calls": executions * 2,
        "steps": executions * 3,
        "tool_calls": executions,
        "completed": executions,
    }


def claims(log: KafkaLog, generation: int = 0) -> Records:
    """A claim on each partition of the topics with owners."""
    return [
        (topic, partition, claim(generation))
        for topic in (log.executions, log.responses)
        for partition in (0, 1)
    ]


def is_mid_batch(tables: ClickHouse) -> bool:
    """Whether a batch stands in the ledger whose rows may not all stand."""
    counts = "SELECT (SELECT max(seq) FROM batches) > (SELECT max(seq) FROM batches_done)"
    return tables.query(counts).rows == [[1]]


def test_rows_are_the_logs_events_after_kills_in_the_middle_of_batches(
    projector: Projector, wire: Wire
) -> None:
    log, rng = projector.log, random.Random(11)
    append(log, wire, claims(log))
    for life in range(8):
        projector.start()
        append(log, wire, stories(log, life * 40, 40, (0, 0)))
        table = rng.choice(["events", "execution_changes", "usage", "batches"])
        before = rows_in(projector.tables, table)
        eventually(lambda: rows_in(projector.tables, table) != before)  # noqa: B023
        projector.end(signal.SIGKILL)
    projector.start()
    want = expected(320, claims=4)
    eventually(lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want))
    assert_ledger_covers_the_log(projector)
    # The test kills where it means to: some lives began by sending a batch again.
    assert projector.output.read_text().count("sending batch") >= 2


def rows_in(tables: ClickHouse, table: str) -> int:
    """Rows of one table."""
    return int(str(tables.query(f"SELECT count() FROM {table}").rows[0][0]))


def test_a_projector_told_to_stop_leaves_nothing_unfinished(
    projector: Projector, wire: Wire
) -> None:
    log = projector.log
    append(log, wire, [*claims(log), *stories(log, 0, 20, (0, 0))])
    projector.start()
    eventually(lambda: rows_in(projector.tables, "events") > 0)
    projector.end(signal.SIGTERM)
    projector.start()
    append(log, wire, stories(log, 20, 1, (0, 0)))
    want = expected(21, claims=4)
    eventually(lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want))


def assert_ledger_covers_the_log(projector: Projector) -> None:
    """The ledger's ranges are the log, end to end, without gap and overlap, and account for every
    record."""
    for topic in projector.log.names:
        for partition in (0, 1):
            rows = projector.tables.query(
                "SELECT first_offset, last_offset, records,"
                " rows + void + duplicates + poison AS told FROM batches"
                " WHERE topic = {topic:String} AND partition = {partition:UInt16}"
                " AND last_offset >= first_offset ORDER BY first_offset",
                {"topic": topic, "partition": partition},
            ).rows
            position = 0
            for first, last, records, told in rows:
                assert first == position
                position = int(str(last)) + 1
                assert records == told == position - int(str(first))
            assert position == end_offset(projector.log.bootstrap, topic, partition)


def test_void_events_repeats_and_poison_are_told_apart(projector: Projector, wire: Wire) -> None:
    log = projector.log
    append(log, wire, [*claims(log), *stories(log, 0, 2, (0, 0))])
    second = append(log, wire, claims(log, 1))
    zombie: Records = [
        (log.executions, 0, started("z", 0)),
        (log.responses, 1, answered("z", 0, 0)),
    ]
    poison: Records = [(name, 1, b"\x00\x00\x00\x00\x01garbage") for name in log.names]
    # The zombie's event has the id of its valid twin, which comes later and must stand.
    epoch = second[0]
    valid: Records = [
        (log.executions, 0, queued("z", epoch)),
        (log.executions, 0, started("z", epoch)),
    ]
    again: Records = [
        (log.requests, 0, requested("x0", 0)),
        (log.executions, 0, started("z", epoch)),
    ]
    append(log, wire, [*zombie, *poison, *valid, *again])
    projector.start()
    want = expected(2, claims=8, void=2)
    want |= {"events": want["events"] + 2, "ids": want["ids"] + 2}
    eventually(lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want))
    assert_ledger_covers_the_log(projector)
    twin = projector.tables.query(
        "SELECT count() FROM events WHERE event_id IN (SELECT event_id FROM events_void)"
    )
    assert twin.rows == [[1]]
    eventually(lambda: buried(log, wire) == {(name, 1) for name in log.names})


def buried(log: KafkaLog, wire: Wire) -> set[tuple[str, int]]:
    """Topic and partition of this log's records among the dead letters."""
    end = end_offset(log.bootstrap, DLQ.name, 0)
    letters = [
        wire.decode(message.value())
        for messages in scan(log.bootstrap, DLQ.name, 0, 0, end)
        for message in messages
    ]
    return {
        (letter.topic, letter.partition)
        for letter in letters
        if isinstance(letter, RecordDeadLettered) and letter.topic in log.names
    }


def test_two_projectors_at_once_write_every_row_once(
    projector: Projector, wire: Wire, tmp_path: Path
) -> None:
    log = projector.log
    append(log, wire, claims(log))
    other = Projector(log, projector.tables, tmp_path / "other.log")
    projector.start()
    other.start()
    try:
        for part in range(6):
            append(log, wire, stories(log, part * 20, 20, (0, 0)))
            eventually(lambda: rows_in(projector.tables, "usage") >= part * 40)  # noqa: B023
        want = expected(120, claims=4)
        eventually(
            lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want)
        )
    finally:
        other.end()
    assert_ledger_covers_the_log(projector)


def test_a_projector_that_was_stopped_for_a_while_changes_nothing(
    projector: Projector, wire: Wire, tmp_path: Path
) -> None:
    log = projector.log
    append(log, wire, claims(log))
    projector.start()
    append(log, wire, stories(log, 0, 40, (0, 0)))
    eventually(lambda: numbers(projector.tables)["events"] > 0)
    assert projector._process is not None
    os.kill(projector._process.pid, signal.SIGSTOP)
    other = Projector(log, projector.tables, tmp_path / "other.log")
    other.start()
    try:
        append(log, wire, stories(log, 40, 40, (0, 0)))
        want = expected(80, claims=4)
        eventually(
            lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want)
        )
        os.kill(projector._process.pid, signal.SIGCONT)
        append(log, wire, stories(log, 80, 20, (0, 0)))
        want = expected(100, claims=4)
        eventually(
            lambda: numbers(projector.tables) == want, lambda: (numbers(projector.tables), want)
        )
    finally:
        other.end()
    assert_ledger_covers_the_log(projector)
