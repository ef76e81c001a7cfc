"""`omiumctl replay`: rebuild the tables from the log, prove them equal, and swap them in."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from ops.commands import Subparsers, command, settings_of
from ops.exits import FAILED, OK, UNAVAILABLE, CommandError
from ops.output import emit, say

if TYPE_CHECKING:
    from ops.settings import Settings
    from projections.rebuild import Compared


def add(subparsers: Subparsers) -> None:
    """Add `replay`."""
    command(
        subparsers,
        "replay",
        "Rebuild the ClickHouse tables from the log, compare them, and swap them in.",
        handle,
        ("replay", "replay --json"),
    )


def handle(arguments: argparse.Namespace) -> int:
    """Rebuild; exit code 1 when the rebuilt tables differ, and then the standing ones stay."""
    from ops.aligned import table

    compared = rebuild(connected(settings_of(arguments)))
    is_equal = all(one.is_equal for one in compared)
    if arguments.json:
        tables = [
            {
                "table": one.table,
                "old_rows": one.old_rows,
                "new_rows": one.new_rows,
                "equal": one.is_equal,
            }
            for one in compared
        ]
        emit({"swapped": is_equal, "tables": tables})
    else:
        rows = [
            (one.table, one.old_rows, one.new_rows, "yes" if one.is_equal else "NO")
            for one in compared
        ]
        for line in table(("table", "rows before", "rows rebuilt", "equal"), rows):
            print(line)
        print("swapped in" if is_equal else "not swapped: the standing tables are as they were")
    return OK if is_equal else FAILED


def connected(settings: Settings) -> Settings:
    """The settings with the addresses of the running stack, where they name none themselves."""
    from urllib.parse import urlsplit

    from ops.supervisor_state import read

    if settings.kafka and settings.clickhouse_url:
        return settings
    state = read(settings.run_dir)
    kafka = None if state is None else state.endpoints.get("kafka")
    store = None if state is None else state.endpoints.get("clickhouse")
    if not kafka or not store:
        raise CommandError(f"no stack has been started in {settings.data_dir}.", UNAVAILABLE)
    # The endpoint shown to people carries the tenant's name and password; the owner has others.
    parts = urlsplit(store)
    url = f"{parts.scheme}://{parts.hostname}:{parts.port}"
    return settings.model_copy(update={"kafka": kafka, "clickhouse_url": url})


def rebuild(settings: Settings) -> list[Compared]:
    """Rebuild the tables of this stack."""
    from ops import clock
    from ops.store import owner_endpoint
    from producers.wire import Wire
    from projections.http import ClickHouse
    from projections.rebuild import REBUILD_DATABASE, Rebuild
    from projections.source import LogSource, first_offsets, partitions

    standing = ClickHouse(owner_endpoint(settings))
    fresh = ClickHouse(owner_endpoint(settings, REBUILD_DATABASE))
    try:
        return Rebuild(
            standing=standing,
            fresh=fresh,
            source=LogSource(settings.kafka, clock.monotonic_ms),
            decode=Wire.load(settings.kafka).decode,
            partitions=partitions(),
            lows=first_offsets(settings.kafka, partitions()),
            sleep_ms=lambda milliseconds: time.sleep(milliseconds / 1000),
            monotonic_ms=clock.monotonic_ms,
            say=say,
        ).run()
    finally:
        standing.close()
        fresh.close()
