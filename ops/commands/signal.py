"""`omiumctl signal`: send a named value into an execution."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say


def add(subparsers: Subparsers) -> None:
    """Add `signal`."""
    parser = command(
        subparsers,
        "signal",
        "Send a named value into an execution; it answers an interrupt that waits.",
        handle,
        ("signal ID go", "signal ID answer --payload '{\"ok\": true}'"),
    )
    parser.add_argument("id", metavar="ID")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--payload", default="null", metavar="JSON|@FILE")


def handle(arguments: argparse.Namespace) -> int:
    """Send it."""
    from ops.client import client_of, segment
    from ops.clock import new_id
    from ops.commands.run import json_argument

    body = {"name": arguments.name, "payload": json_argument(arguments.payload, "--payload")}
    with client_of(settings_of(arguments), say=say) as client:
        accepted = client.post(
            f"/v1/executions/{segment(arguments.id)}/signal", body, idempotency_key=new_id()
        )
    if arguments.json:
        emit(accepted)
    else:
        print(f"signal accepted: {accepted['id']}")
    return OK
