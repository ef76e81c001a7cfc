"""`omiumctl up`: the embedded stack, in the foreground or as a daemon."""

from __future__ import annotations

import argparse

from ops.clock import monotonic_ms
from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say


def add(subparsers: Subparsers) -> None:
    """Add `up`."""
    parser = command(
        subparsers,
        "up",
        "Start the embedded stack: Kafka, ClickHouse, Triton and Omium's own processes.",
        handle,
        (
            "up",
            "up --detach --json",
            "up --detach --data-dir /tmp/try --port 9700",
            "up --only kafka,clickhouse",
        ),
    )
    parser.add_argument("--detach", action="store_true", help="return when everything is ready")
    parser.add_argument(
        "--port", type=int, help="the gateway's port; the servers take the next ones (default 8700)"
    )
    parser.add_argument(
        "--only", default="", metavar="PARTS", help="start only these parts, separated by commas"
    )
    parser.add_argument("--is-daemon", action="store_true", help=argparse.SUPPRESS)


def handle(arguments: argparse.Namespace) -> int:
    """Bring the stack up."""
    from ops.supervisor_control import Document, bring_up, serve

    begun_ms = monotonic_ms()
    settings = settings_of(arguments)
    if arguments.port is not None:
        settings = settings.model_copy(update={"port": arguments.port})
    only = [name.strip() for name in arguments.only.split(",") if name.strip()]

    def show(document: Document) -> None:
        if arguments.json:
            emit(document)
        elif not arguments.is_daemon:
            say(f"everything        ready in {(monotonic_ms() - begun_ms) / 1000:4.1f} s")
            say(f"\nOmium is ready: {document['gateway']}\nAPI key: {document['api_key']}")
            say("omiumctl down stops it." if arguments.detach else "Ctrl-C stops it.")

    if arguments.detach:
        show(bring_up(settings, only, say))
    else:
        serve(settings, only, say, show)
    return OK
