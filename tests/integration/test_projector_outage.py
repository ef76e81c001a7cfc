"""A projector whose ClickHouse is killed and comes back: nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.embedded import clickhouse, ports
from producers import registry
from producers.topology import create_topics
from producers.wire import Wire
from projections.clickhouse import ClickHouseStore
from projections.http import ClickHouse, Endpoint
from tests.integration.test_projector import (
    Projector,
    assert_ledger_covers_the_log,
    claims,
    eventually,
    expected,
    is_mid_batch,
    numbers,
    rows_in,
    stories,
)
from tests.support.projection import KafkaLog, append

FIRST_PORT = 37300


@dataclass(slots=True)
class OwnServer:
    """A ClickHouse that may be killed: no other test uses it."""

    server: clickhouse.ClickHouse
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.logs_dir.mkdir(parents=True, exist_ok=True)
        with (self.server.logs_dir / "out.log").open("ab") as file:
            self._process = subprocess.Popen(
                self.server.command(), stdout=file, stderr=file, start_new_session=True
            )
        eventually(lambda: clickhouse.answers(self.server.http_port))

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnServer]:
    """A running server of this test's own."""
    chosen, _ = ports.choose(ports.natural(FIRST_PORT + os.getpid() % 1000 * 10), {}, ports.is_free)
    made = OwnServer(
        clickhouse.ClickHouse(
            home=tmp_path / "clickhouse",
            logs_dir=tmp_path / "logs",
            http_port=chosen.clickhouse_http,
            native_port=chosen.clickhouse_native,
            admin_password="admin",
            tenant_password="tenant",
        )
    )
    made.server.prepare()
    made.start()
    yield made
    made.kill()


def test_a_killed_clickhouse_loses_and_repeats_nothing(
    kafka: str, own: OwnServer, tmp_path: Path
) -> None:
    create_topics(kafka)
    registry.register_all(kafka)
    wire, log = Wire.load(kafka), KafkaLog.made(kafka)
    tables = ClickHouse(Endpoint(own.server.url, clickhouse.ADMIN, "admin", "omium"))
    ClickHouseStore(tables).migrate()
    projector = Projector(log, tables, tmp_path / "projector.log")
    append(log, wire, claims(log))
    projector.start()
    try:
        for outage in range(4):
            append(log, wire, stories(log, outage * 40, 40, (0, 0)))
            settled = (outage + 1) * 80
            eventually(lambda: is_mid_batch(tables) or rows_in(tables, "usage") >= settled)  # noqa: B023
            own.kill()
            own.start()
        want = expected(160, claims=4)
        eventually(lambda: numbers(tables) == want, lambda: (numbers(tables), want))
        assert_ledger_covers_the_log(projector)
    finally:
        projector.end()
        tables.close()
