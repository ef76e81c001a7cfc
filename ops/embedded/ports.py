"""Which loopback ports a stack uses: the remembered or natural one, else the next free one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ops.exits import CommandError

LOOPBACK = "127.0.0.1"
FILE_NAME = "ports.json"
TRIES_MAX = 300
"""How far above the natural port a free one is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One port per listener of the embedded stack."""

    gateway: int
    kafka: int
    kafka_controller: int
    clickhouse_http: int
    clickhouse_native: int
    triton_http: int
    triton_grpc: int


def natural(gateway: int) -> Ports:
    """The ports a stack has when nothing is in its way: seven in a row from the gateway's."""
    return Ports(**{field.name: gateway + n for n, field in enumerate(fields(Ports))})


def choose(
    wanted: Ports, remembered: Mapping[str, int], is_free: Callable[[int], bool]
) -> tuple[Ports, dict[str, tuple[int, int]]]:
    """Ports to use now, and those that moved as `name -> (wanted, chosen)`.

    The gateway's port is the user's choice, so what is remembered never overrides it.
    """
    chosen: dict[str, int] = {}
    moved: dict[str, tuple[int, int]] = {}
    for name, natural_port in asdict(wanted).items():
        first = natural_port if name == "gateway" else remembered.get(name, natural_port)
        port = _next_free(first, set(chosen.values()), is_free)
        chosen[name] = port
        if port != first:
            moved[name] = (first, port)
    return Ports(**chosen), moved


def _next_free(first: int, taken: set[int], is_free: Callable[[int], bool]) -> int:
    for port in range(first, min(first + TRIES_MAX, 65536)):
        if port not in taken and is_free(port):
            return port
    raise CommandError(f"no free port from {first} to {first + TRIES_MAX}.")


def is_free(port: int) -> bool:
    """Whether this process could listen on the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def load(data_dir: Path) -> dict[str, int]:
    """The ports this data directory had at its first start; empty before that."""
    path = data_dir / FILE_NAME
    if not path.exists():
        return {}
    return {str(name): int(port) for name, port in json.loads(path.read_text("utf-8")).items()}


def remember(data_dir: Path, ports: Ports) -> None:
    """Keep the first start's ports. Later detours are not kept: clients know the first ones."""
    if not (data_dir / FILE_NAME).exists():
        (data_dir / FILE_NAME).write_text(json.dumps(asdict(ports), indent=1), "utf-8")
