"""A stack of two real servers: up, status, crashes, orphans, ports, down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import credentials
from ops import supervisor_state as stack_file
from ops.embedded import clickhouse, identity, kafka
from ops.embedded.ports import LOOPBACK

SERVERS = "kafka,clickhouse"
COMMAND_WAIT_S = 150
RESTART_WAIT_S = 60.0
FIRST_PORT = 23000 + os.getpid() % 300 * 20
KEYS = {
    "gateway",
    "api_key",
    "kafka",
    "clickhouse",
    "schema_registry",
    "triton",
    "data_dir",
    "pids",
}


def omiumctl(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command line, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ops.main", *words],
        capture_output=True,
        text=True,
        timeout=COMMAND_WAIT_S,
        env={**os.environ, **environment},
        check=False,
    )


def up(data_dir: Path, port: int) -> tuple[dict[str, Any], str]:
    """The stack's document, and what was said on the way."""
    words = ("--data-dir", str(data_dir), "--port", str(port), "--only", SERVERS)
    done = omiumctl("up", "--detach", "--json", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, done.stdout
    return json.loads(done.stdout), done.stderr


def status(data_dir: Path) -> dict[str, Any]:
    """The stack's document, fresh."""
    document: dict[str, Any] = json.loads(
        omiumctl("status", "--json", "--data-dir", str(data_dir)).stdout
    )
    return document


def processes_of(data_dir: Path) -> list[int]:
    """Every process that carries the stack's mark."""
    stack_id = credentials.load(data_dir).stack_id
    return [pid for pid, _ in identity.marked(stack_file.MARK, stack_id)]


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + RESTART_WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


def part(data_dir: Path, name: str) -> stack_file.PartState:
    """One part as the supervisor last wrote it."""
    state = stack_file.read(data_dir / "run")
    assert state is not None
    return state.parts[name]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A running stack of Kafka and ClickHouse."""
    data_dir = tmp_path_factory.mktemp("stack")
    document, _ = up(data_dir, FIRST_PORT)
    yield data_dir, document
    omiumctl("down", "--data-dir", str(data_dir))


def test_up_prints_one_document_whose_servers_answer(
    running: tuple[Path, dict[str, Any]],
) -> None:
    # given
    _, document = running

    # then
    assert set(document) == KEYS
    assert set(document["pids"]) == {"kafka", "clickhouse"}
    assert document["api_key"].startswith("omk_")
    assert kafka.answers(int(document["kafka"].rpartition(":")[2]))
    assert clickhouse.answers(int(document["clickhouse"].rpartition(":")[2]))


def test_status_prints_the_same_document(running: tuple[Path, dict[str, Any]]) -> None:
    data_dir, document = running
    assert {**status(data_dir), "pids": {}} == {**document, "pids": {}}


def test_a_second_up_finds_the_stack_and_starts_nothing(
    running: tuple[Path, dict[str, Any]],
) -> None:
    # given
    data_dir, _ = running
    before = status(data_dir)

    # when
    again, _ = up(data_dir, FIRST_PORT)

    # then
    assert again == before


@pytest.mark.parametrize("name", ["clickhouse", "kafka"])
def test_a_killed_server_is_back_under_a_new_pid(
    running: tuple[Path, dict[str, Any]], name: str
) -> None:
    # given
    data_dir, _ = running
    killed = part(data_dir, name)
    begun = time.monotonic()

    # when
    os.kill(killed.pid, signal.SIGKILL)
    eventually(
        lambda: part(data_dir, name).phase == "ready" and part(data_dir, name).pid != killed.pid
    )

    # then
    print(f"{name} back in {time.monotonic() - begun:.2f} s")
    assert part(data_dir, name).restarts == killed.restarts + 1
    assert status(data_dir)["pids"][name] == part(data_dir, name).pid


def test_status_says_when_the_disk_is_below_the_limit(
    running: tuple[Path, dict[str, Any]],
) -> None:
    # given
    data_dir, _ = running
    words = ("status", "--json", "--data-dir", str(data_dir))

    # when
    plenty = json.loads(omiumctl(*words, OMIUM_MIN_FREE_MB="1").stdout)
    scarce = json.loads(omiumctl(*words, OMIUM_MIN_FREE_MB=str(10**9)).stdout)

    # then
    assert "problem" not in plenty
    assert "MB of disk are free" in scarce["problem"]


def test_the_tenants_user_sees_its_own_rows_and_writes_none(
    running: tuple[Path, dict[str, Any]],
) -> None:
    # given
    import clickhouse_connect
    from clickhouse_connect.driver.exceptions import DatabaseError

    data_dir, document = running
    secrets = credentials.load(data_dir)
    port = int(document["clickhouse"].rpartition(":")[2])
    admin = clickhouse_connect.get_client(
        host=LOOPBACK, port=port, username="admin", password=secrets.clickhouse_admin_password
    )
    admin.command("CREATE DATABASE IF NOT EXISTS omium")
    admin.command("CREATE TABLE omium.usage (tenant String, n Int8) ENGINE MergeTree ORDER BY n")
    admin.insert("omium.usage", [["local", 1], ["other", 2]], column_names=["tenant", "n"])

    # when
    tenant = clickhouse_connect.get_client(dsn=document["clickhouse"])

    # then
    assert tenant.query("SELECT * FROM omium.usage").result_rows == [("local", 1)]
    with pytest.raises(DatabaseError, match="ACCESS_DENIED"):
        tenant.command("INSERT INTO omium.usage VALUES ('local', 3)")
    admin.close()
    tenant.close()


def test_after_kill_9_of_the_supervisor_up_clears_the_orphans_and_keeps_the_data(
    tmp_path: Path,
) -> None:
    # given
    first, _ = up(tmp_path, FIRST_PORT + 7)
    state = stack_file.read(tmp_path / "run")
    assert state is not None
    # A stopped process cannot obey the signal of its parent's death: it is an orphan for sure.
    os.kill(first["pids"]["kafka"], signal.SIGSTOP)
    os.kill(state.supervisor_pid, signal.SIGKILL)
    eventually(lambda: not state.is_supervised)

    # when
    second, _ = up(tmp_path, FIRST_PORT + 7)

    # then
    assert set(second["pids"].values()).isdisjoint(first["pids"].values())
    assert not identity.is_alive(state.parts["kafka"].pid, state.parts["kafka"].started)
    assert second["api_key"] == first["api_key"]
    assert second["kafka"] == first["kafka"]
    assert sorted(processes_of(tmp_path)) == sorted(second["pids"].values())

    # when
    omiumctl("down", "--data-dir", str(tmp_path))

    # then
    assert processes_of(tmp_path) == []


def test_down_after_kill_9_of_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    # given
    up(tmp_path, FIRST_PORT + 7)
    state = stack_file.read(tmp_path / "run")
    assert state is not None
    os.kill(state.supervisor_pid, signal.SIGKILL)

    # when
    done = omiumctl("down", "--json", "--data-dir", str(tmp_path))

    # then
    assert done.returncode == 0
    assert json.loads(done.stdout)["stopped"] is True
    assert processes_of(tmp_path) == []
    assert omiumctl("status", "--data-dir", str(tmp_path)).returncode == 3


def test_a_taken_port_is_avoided_and_said_and_down_stops_only_its_own_stack(
    running: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    # given
    neighbour, _ = running
    port = FIRST_PORT + 7
    with socket.socket() as listener:
        listener.bind((LOOPBACK, port + 1))
        listener.listen()

        # when
        document, said = up(tmp_path, port)

    # then
    assert f"port {port + 1} is taken" in said
    assert document["kafka"] != f"{LOOPBACK}:{port + 1}"

    # when
    done = omiumctl("down", "--data-dir", str(tmp_path))

    # then
    assert done.returncode == 0
    assert processes_of(tmp_path) == []
    assert set(status(neighbour)["pids"]) == {"kafka", "clickhouse"}
