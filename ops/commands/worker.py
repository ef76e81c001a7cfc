"""`omiumctl worker ROLE`: serve one role in this process until SIGTERM."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK, UNAVAILABLE, USAGE, CommandError

if TYPE_CHECKING:
    from ops.settings import Settings

TOPOLOGY_GATE = "topology"
"""The role that makes the topics; every other waits for the gate of that name."""
GO = b"go\n"
"""What a standby waits for on stdin."""
UNGATED = frozenset({TOPOLOGY_GATE, "zygote"})
"""A zygote talks to workers only."""
GATE_WAIT_S = 120.0
GATE_POLL_S = 0.02


def add(subparsers: Subparsers) -> None:
    """Add `worker`."""
    parser = command(
        subparsers,
        "worker",
        "Serve one role in this process until SIGTERM.",
        handle,
        ("worker execution", "worker zygote-langgraph"),
    )
    parser.add_argument("--standby", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("role", help="a module of ops/roles, with `-FRAMEWORK` for a zygote")


def handle(arguments: argparse.Namespace) -> int:
    """Serve `arguments.role`."""
    return serve(arguments.role, settings_of(arguments), is_standby=arguments.standby)


def serve(role: str, settings: Settings, is_standby: bool = False) -> int:
    """Import the role, wait until the topics exist (the broker starts meanwhile), and serve."""
    module_name, _, framework = role.partition("-")
    if find_spec(f"ops.roles.{module_name}") is None:
        raise CommandError(f"there is no role {role!r}.", USAGE)
    module = importlib.import_module(f"ops.roles.{module_name}")
    if is_standby and sys.stdin.buffer.readline() != GO:
        # The supervisor has gone, or needs no standby any more.
        return OK
    if settings.stack_id and module_name not in UNGATED:
        _wait_for_topology(settings)
    if framework:
        settings = settings.model_copy(update={"framework": framework})
    return int(module.run(settings))


def _wait_for_topology(settings: Settings) -> None:
    """In the embedded stack the supervisor opens a gate once Kafka has all topics and schemas."""
    gate = settings.run_dir / f"{TOPOLOGY_GATE}.ready"
    deadline = time.monotonic() + GATE_WAIT_S
    while not gate.exists():
        if time.monotonic() > deadline:
            raise CommandError(
                f"Kafka's topics were not there after {GATE_WAIT_S:.0f} s.", UNAVAILABLE
            )
        time.sleep(GATE_POLL_S)
