"""`omiumctl topics`: the topic catalogue, and what stands on it when a broker answers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK
from ops.output import emit, say

if TYPE_CHECKING:
    from ops.settings import Settings
    from ops.topic_offsets import PartitionOffsets


def add(subparsers: Subparsers) -> None:
    """Add `topics`."""
    command(
        subparsers,
        "topics",
        "Show every topic: key, partitions, how long it is kept; with a broker, offsets and lag.",
        handle,
        ("topics", "topics --json"),
    )


def handle(arguments: argparse.Namespace) -> int:
    """Show the catalogue. Without a broker the figures are left out, and that is said."""
    from ops.event_reference import kept
    from streams.topics import CATALOGUE, partitions

    bootstrap = _bootstrap(settings_of(arguments))
    live = _live(bootstrap)
    rows: list[dict[str, object]] = []
    for topic in CATALOGUE:
        row: dict[str, object] = {
            "topic": topic.name,
            "key": topic.key,
            "partitions": partitions(topic),
            "kept": kept(topic),
            "claimed": topic.is_claimed,
        }
        if live is not None:
            row["offsets"] = [each.document() for each in live.get(topic.name, [])]
        rows.append(row)
    if arguments.json:
        emit({"kafka": bootstrap if live is not None else None, "topics": rows})
    else:
        _print(rows, live)
    return OK


def _bootstrap(settings: Settings) -> str:
    """The broker of the settings, else the one of the running stack; empty if there is none."""
    from ops.supervisor_state import read

    if settings.kafka:
        return settings.kafka
    state = read(settings.run_dir)
    return (state.endpoints.get("kafka") or "") if state is not None else ""


def _live(bootstrap: str) -> dict[str, list[PartitionOffsets]] | None:
    from ops.topic_offsets import offsets
    from streams.errors import Retryable

    if not bootstrap:
        say("no broker is running: the catalogue alone")
        return None
    try:
        return offsets(bootstrap)
    except Retryable as error:
        say(f"{error}: the catalogue alone")
        return None


def _print(rows: list[dict[str, object]], live: dict[str, list[PartitionOffsets]] | None) -> None:
    print(f"{'topic':<26} {'key':<10} {'partitions':>10}  {'kept':<19} {'records':>10}  lag")
    for row in rows:
        found = [] if live is None else live.get(str(row["topic"]), [])
        records = str(sum(each.end - each.start for each in found)) if found else ""
        lags: dict[str, int] = {}
        for each in found:
            for group, behind in each.lag.items():
                lags[group] = lags.get(group, 0) + behind
        lag = ", ".join(f"{group} {lags[group]}" for group in sorted(lags))
        print(
            f"{row['topic']:<26} {row['key']:<10} {row['partitions']:>10}  {row['kept']:<19} "
            f"{records:>10}  {lag}"
        )
