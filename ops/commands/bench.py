"""`omiumctl bench NAME`: measure, beside the peers, on a stack of its own unless OMIUM_URL names
one.
"""

from __future__ import annotations

import argparse
import os
import platform
from typing import TYPE_CHECKING, Final

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say

if TYPE_CHECKING:
    from ops.settings import Settings

SHARES: Final = 5
"""Of the budget: two loads, two peers, and slack for the start."""


def add(subparsers: Subparsers) -> None:
    """Add `bench`."""
    parser = command(
        subparsers,
        "bench",
        "Measure the stack beside its peers, in one run.",
        handle,
        (
            "bench steps --json",
            "bench steps --budget-s 60",
            "bench steps --fork",
            "bench projection",
            "bench memory --executions 2000",
        ),
    )
    parser.add_argument("name", choices=("steps", "projection", "memory"))
    parser.add_argument("--budget-s", type=float, default=75.0, help="time to spend (default 75)")
    parser.add_argument(
        "--fork", action="store_true", help="a fork per execution instead of reused runners"
    )
    parser.add_argument(
        "--executions", type=int, default=2000, help="how many bench memory runs (default 2000)"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out")


def handle(arguments: argparse.Namespace) -> int:
    """Run the bench and print its figures."""
    measure = {"projection": _projection, "memory": _memory, "steps": _steps}[arguments.name]
    report = measure(settings_of(arguments), arguments)
    if arguments.json:
        emit(report)
        return OK
    for group in ("figures", "peers"):
        values = report[group]
        assert isinstance(values, dict)
        for key, value in values.items():
            print(f"{key:<36} {value:.2f}" if isinstance(value, float) else f"{key:<36} {value}")
    return OK


def _steps(settings: Settings, arguments: argparse.Namespace) -> dict[str, object]:
    from ops.bench.steps import StepsBench, figures, peer
    from ops.chaos.stand import stand
    from ops.client import client_of

    seconds = max(2.0, arguments.budget_s / SHARES)
    is_own = not settings.url
    if is_own:
        with stand(settings, runner_reuse="0" if arguments.fork else "1") as stack:
            bench = StepsBench(stack.client, lambda: dict(stack.document()["pids"]), say)  # type: ignore[call-overload]  # A JSON object.
            bench.register()
            measured = figures(bench, stack.client, seconds, say)
    else:
        client = client_of(settings, say=say)
        bench = StepsBench(client, dict, say)
        bench.register()
        measured = figures(bench, client, seconds, say)
    peers: dict[str, object] = {}
    for name in () if arguments.no_peers else ("memory", "sqlite"):
        say(f"LangGraph by itself, {name} …")
        peers |= {
            f"langgraph_{name}_{key}": value for key, value in peer(name, seconds / 2).items()
        }
    return {
        "bench": "steps",
        "conditions": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load_1min": os.getloadavg()[0],
            "runners": "forked" if arguments.fork else "reused",
            "stack": "own" if is_own else "given",
            "seconds_per_load": seconds,
        },
        "figures": measured,
        "peers": peers,
    }


def _memory(settings: Settings, arguments: argparse.Namespace) -> dict[str, object]:
    from ops.bench.memory import figures
    from ops.bench.steps import StepsBench
    from ops.chaos.stand import stand

    with stand(settings) as stack:
        pids = stack.document()["pids"]
        assert isinstance(pids, dict)
        bench = StepsBench(stack.client, lambda: pids, say)
        bench.register()
        measured = figures(bench, pids, arguments.executions, say)
    return {
        "bench": "memory",
        "conditions": {"executions": arguments.executions, "steps": 10, "runners": "forked"},
        "figures": measured,
        "peers": {},
    }


def _projection(settings: Settings, arguments: argparse.Namespace) -> dict[str, object]:
    from ops.bench import projection

    figures = projection.measure(settings, arguments.budget_s, say)
    return {
        "bench": "projection",
        "conditions": projection.conditions(),
        "figures": figures,
        "peers": {},
    }
