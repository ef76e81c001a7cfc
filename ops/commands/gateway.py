"""`omiumctl gateway`: serve the HTTP face in this process until SIGTERM."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of


def add(subparsers: Subparsers) -> None:
    """Add `gateway`."""
    command(
        subparsers,
        "gateway",
        "Serve the HTTP gateway in this process until SIGTERM.",
        handle,
        ("gateway",),
    )


def handle(arguments: argparse.Namespace) -> int:
    """Serve the role `gateway`."""
    from ops.commands.worker import serve

    return serve("gateway", settings_of(arguments))
