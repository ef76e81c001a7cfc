"""`omiumctl resume`: let a paused execution go on."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say


def add(subparsers: Subparsers) -> None:
    """Add `resume`."""
    parser = command(
        subparsers,
        "resume",
        "Let a paused execution go on.",
        handle,
        ("resume ID", "resume ID --reason 'wrong input'"),
    )
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--reason", default="")


def handle(arguments: argparse.Namespace) -> int:
    """Ask for it; it is done a moment later."""
    from ops.client import client_of, segment
    from ops.clock import new_id

    with client_of(settings_of(arguments), say=say) as client:
        path = f"/v1/executions/{segment(arguments.id)}/resume"
        accepted = client.post(path, {"reason": arguments.reason}, idempotency_key=new_id())
    if arguments.json:
        emit(accepted)
    else:
        print(f"resume accepted: {accepted['id']}")
    return OK
