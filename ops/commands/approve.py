"""`omiumctl approve`: say yes to what an execution asked."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say


def add(subparsers: Subparsers) -> None:
    """Add `approve`."""
    parser = command(
        subparsers,
        "approve",
        "Say yes to what an execution asked.",
        handle,
        (
            "approve APPROVAL",
            "approve APPROVAL --value '{\"amount\": 5000}' --reason 'checked by phone'",
        ),
    )
    parser.add_argument("approval", metavar="APPROVAL")
    parser.add_argument(
        "--value", default="null", metavar="JSON|@FILE", help="the answer to an interrupt"
    )
    parser.add_argument("--reason", default="")


def handle(arguments: argparse.Namespace) -> int:
    """Resolve it."""
    from ops.client import client_of, segment
    from ops.commands.run import json_argument

    body = {"value": json_argument(arguments.value, "--value"), "reason": arguments.reason}
    with client_of(settings_of(arguments), say=say) as client:
        # Harmless to repeat: the first answer to an approval counts.
        accepted = client.post(
            f"/v1/approvals/{segment(arguments.approval)}/approve", body, is_repeatable=True
        )
    if arguments.json:
        emit(accepted)
    else:
        print(f"approve accepted: execution {accepted['id']}")
    return OK
