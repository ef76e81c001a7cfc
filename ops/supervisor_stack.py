"""The embedded stack: its parts, what their processes are told, and where clients find it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops.commands.worker import TOPOLOGY_GATE
from ops.credentials import Secrets
from ops.embedded.ports import Ports
from ops.exits import USAGE, CommandError
from ops.readiness import is_ready
from ops.settings import Settings, child_environment
from ops.supervisor_part import Part
from ops.supervisor_servers import Say, Servers, servers

SERVERS = ("kafka", "clickhouse", "triton")
TOPOLOGY = "topology"
"""Makes topics and schemas, and ends."""
ROLES = ("zygote-langgraph", "gateway", "execution", "routing", "projector")
WITH_STANDBY = frozenset({"gateway", "execution", "routing"})
"""What stands between a request and its answer: 50 MB each buy a restart in about a second."""
ALL = (*SERVERS, TOPOLOGY, *ROLES)
GATE = f"{TOPOLOGY_GATE}.ready"
GATED_BY = frozenset({"kafka", "clickhouse", TOPOLOGY})
"""Roles begin to import at once, and to work when these are ready."""
ROLE_WAVE = 0
ZYGOTE_WAVE = 1
"""After the workers whose runners it holds, before the servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What the supervisor runs, and what it tells clients and processes."""

    parts: tuple[Part, ...]
    endpoints: Mapping[str, str | None]
    environment: Mapping[str, str]


def selected(only: Sequence[str]) -> frozenset[str]:
    """The parts to run: those named, or all."""
    unknown = sorted(set(only) - set(ALL))
    if unknown:
        names = ", ".join(ALL)
        raise CommandError(f"there is no part {', '.join(unknown)}; the parts are {names}.", USAGE)
    return frozenset(only or ALL)


def stack(
    settings: Settings, secrets: Secrets, ports: Ports, only: Sequence[str], say: Say
) -> Stack:
    """The stack of these settings, with the named parts or all."""
    names = selected(only)
    below = servers(settings, secrets, ports, names, say)
    gateway = f"http://{settings.host}:{ports.gateway}"
    parts = dict(below.parts)
    if TOPOLOGY in names:
        parts[TOPOLOGY] = Part(
            name=TOPOLOGY,
            command=lambda: _omiumctl("topology"),
            is_ready=lambda _: False,
            is_one_shot=True,
        )
    for role in ROLES:
        if role in names:
            parts[role] = _role(role, settings, gateway if role == "gateway" else "")
    return Stack(
        parts=tuple(parts.values()),
        endpoints={
            "gateway": gateway,
            "kafka": below.kafka,
            "clickhouse": below.clickhouse_reader_url,
            "schema_registry": settings.schema_registry_url or gateway,
            "triton": below.triton_http,
        },
        environment=_environment(settings, secrets, ports, below, gateway),
    )


def _role(role: str, settings: Settings, address: str) -> Part:
    return Part(
        name=role,
        command=lambda: _omiumctl(role),
        standby_command=(lambda: _omiumctl(role, "--standby")) if role in WITH_STANDBY else None,
        is_ready=lambda pid: is_ready(settings.run_dir, role, pid),
        address=address,
        stop_wave=ZYGOTE_WAVE if role.startswith("zygote") else ROLE_WAVE,
    )


def _omiumctl(role: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "ops.main", "worker", *options, role]


def _environment(
    settings: Settings, secrets: Secrets, ports: Ports, below: Servers, gateway: str
) -> dict[str, str]:
    """What every process of the stack gets: settings only, secrets stay in their file."""
    return child_environment(
        data_dir=str(settings.data_dir),
        host=settings.host,
        port=str(ports.gateway),
        kafka=below.kafka,
        clickhouse_url=below.clickhouse_url,
        schema_registry_url=settings.schema_registry_url or gateway,
        triton_url=below.triton_grpc,
        url=gateway,
        stack_id=secrets.stack_id,
    )
