"""`omiumctl ps`: executions, newest first."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say

STATUSES = [
    "queued",
    "running",
    "recovering",
    "waiting_approval",
    "paused",
    "completed",
    "failed",
    "cancelled",
]


def add(subparsers: Subparsers) -> None:
    """Add `ps`."""
    parser = command(
        subparsers,
        "ps",
        "List executions, newest first.",
        handle,
        ("ps", "ps --status running --limit 5"),
    )
    parser.add_argument("--status", choices=STATUSES, default="")
    parser.add_argument("--workflow", default="")
    parser.add_argument("--label", default="", metavar="NAME:VALUE")
    parser.add_argument("--limit", type=int, default=20)


def handle(arguments: argparse.Namespace) -> int:
    """Print the newest page."""
    from ops.client import client_of
    from ops.clock import now_ms
    from ops.timeline import usd

    with client_of(settings_of(arguments), say=say) as client:
        names = ("status", "workflow", "label", "limit")
        wanted = {name: str(getattr(arguments, name)) for name in names if getattr(arguments, name)}
        page = client.get("/v1/executions", wanted)
    if arguments.json:
        emit(page)
        return OK
    executions = page["executions"]
    assert isinstance(executions, list), "a page holds a list"
    if not executions:
        print("No executions.")
        return OK
    print(f"{'id':<36}  {'workflow':<28}  {'status':<16}  {'age':>7}  {'steps':>5}  {'cost':>10}")
    for e in executions:
        age = _age(now_ms() - e["created_at_ms"])
        cost, name = usd(e["cost_microusd"]), e["workflow"][:28]
        print(
            f"{e['id']:<36}  {name:<28}  {e['status']:<16}  {age:>7}  "
            f"{e['step_count']:>5}  {cost:>10}"
        )
    return OK


def _age(age_ms: int) -> str:
    seconds = max(0, age_ms // 1000)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
