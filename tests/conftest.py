"""What the tests share: real Kafka and ClickHouse, started once a session, also under xdist."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT_VARIABLE = "OMIUM_TEST_ROOT"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouseServer:
    """A running ClickHouse and its admin."""

    url: str
    user: str
    password: str


def pytest_configure(config: pytest.Config) -> None:
    """The controlling process makes the folder; xdist workers inherit its name."""
    if not hasattr(config, "workerinput"):
        os.environ[ROOT_VARIABLE] = tempfile.mkdtemp(prefix="omium-test-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The controlling process stops the servers after the last worker has gone."""
    if hasattr(config, "workerinput") or ROOT_VARIABLE not in os.environ:
        return
    from ops.embedded.throwaway import stop_all

    root = Path(os.environ.pop(ROOT_VARIABLE))
    stop_all(root)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka() -> str:
    """Bootstrap address of a real broker; `OMIUM_TEST_KAFKA` names one that already runs."""
    given = os.environ.get("OMIUM_TEST_KAFKA")
    if given:
        return given
    from ops.embedded.throwaway import kafka_in
    from ops.settings import Settings

    return kafka_in(Path(os.environ[ROOT_VARIABLE]), Settings().cache_dir).address


@pytest.fixture(scope="session")
def clickhouse() -> ClickHouseServer:
    """A real ClickHouse server with its admin's name and password."""
    from ops.embedded.throwaway import clickhouse_in

    server = clickhouse_in(Path(os.environ[ROOT_VARIABLE]))
    return ClickHouseServer(url=server.address, user=server.user, password=server.password)
