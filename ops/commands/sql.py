"""`omiumctl sql`: ask the tables."""

from __future__ import annotations

import argparse

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK, CommandError
from ops.output import emit, say


def add(subparsers: Subparsers) -> None:
    """Add `sql`."""
    parser = command(
        subparsers,
        "sql",
        "Run one read-only ClickHouse statement over your own rows (database omium).",
        handle,
        (
            'sql "SELECT type, count() FROM events GROUP BY type"',
            'sql --json "SELECT sum(cost_microusd) FROM usage"',
        ),
    )
    parser.add_argument("query", help="the statement")


def handle(arguments: argparse.Namespace) -> int:
    """Ask the gateway and print the rows."""
    from ops.aligned import table
    from ops.client import client_of

    client = client_of(settings_of(arguments), say=say)
    # Reading twice harms nobody, so a lost connection may be ridden out.
    answer = client.post("/v1/sql", {"query": arguments.query}, idempotency_key="read-only")
    columns, rows = answer.get("columns"), answer.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise CommandError("the gateway's answer has no columns and rows; is OMIUM_URL right?")
    if arguments.json:
        emit({"columns": columns, "rows": rows})
        return OK
    for line in table([str(name) for name in columns], rows):
        print(line)
    say(f"{len(rows)} row{'' if len(rows) == 1 else 's'}")
    return OK
