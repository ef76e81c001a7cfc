"""Throwaway servers for tests: started once in a shared folder, stopped by who made the folder."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ops import credentials
from ops.embedded import clickhouse, identity, kafka, ports
from ops.embedded.java import locked
from ops.embedded.process import spawn
from ops.exits import CommandError

START_WAIT_S = 120.0
STOP_WAIT_S = 15.0
POLL_S = 0.03
FIRST_PORT = 21100
_STARTED: list[subprocess.Popen[bytes]] = []
"""Servers outlive their starter; to drop a running one's handle is a warning, an error in tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One running throwaway server."""

    pid: int
    started: str
    address: str
    user: str = ""
    password: str = ""


def kafka_in(root: Path, cache_dir: Path) -> Server:
    """The broker of this folder, started by the first who asks; others wait and share it."""

    def start() -> Server:
        ours, _ = _free_ports()
        broker = kafka.Kafka(
            home=root / "kafka",
            logs_dir=root / "logs",
            cache_dir=cache_dir,
            port=ours.kafka,
            controller_port=ours.kafka_controller,
        )
        broker.prepare()
        return _started(
            root, "kafka", broker.command(), lambda: kafka.answers(broker.port), broker.bootstrap
        )

    return _shared(root, "kafka", start)


def clickhouse_in(root: Path) -> Server:
    """The ClickHouse server of this folder, with its admin; started by the first who asks."""

    def start() -> Server:
        ours, _ = _free_ports()
        drawn = credentials.ensure(root)
        server = clickhouse.ClickHouse(
            home=root / "clickhouse",
            logs_dir=root / "logs",
            http_port=ours.clickhouse_http,
            native_port=ours.clickhouse_native,
            admin_password=drawn.clickhouse_admin_password,
            tenant_password=drawn.clickhouse_tenant_password,
        )
        server.prepare()
        return _started(
            root,
            "clickhouse",
            server.command(),
            lambda: clickhouse.answers(server.http_port),
            server.url,
            user=clickhouse.ADMIN,
            password=drawn.clickhouse_admin_password,
        )

    return _shared(root, "clickhouse", start)


def stop_all(root: Path) -> None:
    """Stop every server of this folder."""
    ended: set[int] = set()
    for file in sorted(root.glob("*.server.json")):
        server = Server(**json.loads(file.read_text("utf-8")))
        identity.end_group(server.pid, server.started, STOP_WAIT_S)
        ended.add(server.pid)
        file.unlink()
    # Other folders' servers go on: only ours are waited for.
    for process in [each for each in _STARTED if each.pid in ended]:
        process.wait(STOP_WAIT_S)
        _STARTED.remove(process)


def _free_ports() -> tuple[ports.Ports, dict[str, tuple[int, int]]]:
    # Spread by pid, so that test sessions that start together do not race for one port.
    first = FIRST_PORT + os.getpid() % 400 * 20
    return ports.choose(ports.natural(first), {}, ports.is_free)


def _shared(root: Path, name: str, start: Callable[[], Server]) -> Server:
    file = root / f"{name}.server.json"
    with locked(root / f"{name}.lock"):
        if not file.exists():
            credentials.write_private(file, json.dumps(asdict(start())))
        return Server(**json.loads(file.read_text("utf-8")))


def _started(
    root: Path,
    name: str,
    command: list[str],
    answers: Callable[[], bool],
    address: str,
    user: str = "",
    password: str = "",
) -> Server:
    # Not bound to us: a test worker may end before the others that share the server.
    process = spawn(command, root / "logs" / f"{name}.out", os.environ, is_bound_to_us=False)
    deadline = time.monotonic() + START_WAIT_S
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise CommandError(f"{name} did not start: see {root / 'logs'}.")
        time.sleep(POLL_S)
    _STARTED.append(process)
    started = identity.started(process.pid)
    return Server(pid=process.pid, started=started, address=address, user=user, password=password)
