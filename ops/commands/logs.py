"""`omiumctl logs`: an execution's events as a timeline, or as JSON lines."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say


def add(subparsers: Subparsers) -> None:
    """Add `logs`."""
    parser = command(
        subparsers,
        "logs",
        "Print the events of an execution.",
        handle,
        ("logs ID", "logs -f ID", "logs -f ID --json"),
    )
    parser.add_argument("id", metavar="ID")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the execution ends"
    )


def handle(arguments: argparse.Namespace) -> int:
    """Print what has happened, and with `-f` what happens; JSON is one object a line."""
    from ops.client import client_of, segment
    from ops.timeline import Timeline

    with client_of(settings_of(arguments), say=say) as client:
        path, timeline = f"/v1/executions/{segment(arguments.id)}/events", Timeline()
        frames = client.follow(path if arguments.follow else f"{path}?follow=false")
        for frame in frames:
            if frame.event == "end":
                break
            if arguments.json:
                emit(frame.data)
            elif line := timeline.line(frame):
                print(line, flush=True)
    return OK
