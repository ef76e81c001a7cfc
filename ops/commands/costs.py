"""`omiumctl costs`: what LLM calls cost."""

from __future__ import annotations

import argparse
from typing import Final

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK, CommandError
from ops.output import emit, say

GROUPS: Final = (
    "tenant",
    "workflow",
    "agent",
    "step",
    "model",
    "day",
    "provider",
    "route",
    "execution",
)
MICROUSD: Final = 1_000_000


def add(subparsers: Subparsers) -> None:
    """Add `costs`."""
    parser = command(
        subparsers,
        "costs",
        "Show calls, tokens and cost by a property of the calls.",
        handle,
        ("costs", "costs --by agent", "costs --by day --json"),
    )
    parser.add_argument(
        "--by", choices=GROUPS, default="model", help="what to tell costs by (default: model)"
    )


def handle(arguments: argparse.Namespace) -> int:
    """Ask the gateway and print the sums."""
    from ops.aligned import table
    from ops.client import client_of

    client = client_of(settings_of(arguments), say=say)
    answer = client.get("/v1/costs", {"group_by": arguments.by})
    costs = answer.get("costs")
    if not isinstance(costs, list):
        raise CommandError("the gateway's answer has no costs; is OMIUM_URL right?")
    if arguments.json:
        emit(answer)
        return OK
    columns = (arguments.by, "calls", "input", "cached", "output", "cost USD")
    rows = [
        (
            cost["key"] or "(none)",
            cost["calls"],
            cost["input_tokens"],
            cost["cached_tokens"],
            cost["output_tokens"],
            dollars(int(cost["cost_microusd"])),
        )
        for cost in costs
    ]
    for line in table(columns, rows):
        print(line)
    return OK


def dollars(microusd: int) -> str:
    """The amount, exactly."""
    sign = "-" if microusd < 0 else ""
    whole, part = divmod(abs(microusd), MICROUSD)
    return f"{sign}{whole}.{part:06d}"
