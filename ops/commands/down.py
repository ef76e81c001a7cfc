"""`omiumctl down`: stop the embedded stack of one data directory."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say


def add(subparsers: Subparsers) -> None:
    """Add `down`."""
    command(
        subparsers,
        "down",
        "Stop the embedded stack of this data directory, and nothing else. Data stays.",
        handle,
        ("down", "down --data-dir /tmp/try"),
    )


def handle(arguments: argparse.Namespace) -> int:
    """Take the stack down."""
    from ops.supervisor_control import take_down

    settings = settings_of(arguments)
    was_running = take_down(settings.data_dir, say)
    if arguments.json:
        emit({"data_dir": str(settings.data_dir), "stopped": was_running})
    else:
        say(f"{'stopped' if was_running else 'nothing runs in'} {settings.data_dir}")
    return OK
