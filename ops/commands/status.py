"""`omiumctl status`: what of the embedded stack runs now."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ops.commands import Subparsers, command, settings_of
from ops.exits import OK, UNAVAILABLE
from ops.output import emit

if TYPE_CHECKING:
    from ops.supervisor_state import PartState

MEGABYTE = 1024 * 1024


def add(subparsers: Subparsers) -> None:
    """Add `status`."""
    command(
        subparsers,
        "status",
        "Show what of the embedded stack runs now: endpoints, processes, restarts, memory.",
        handle,
        ("status", "status --json --data-dir /tmp/try"),
    )


def handle(arguments: argparse.Namespace) -> int:
    """Show the stack; exit code 3 when a part of it is not ready."""
    from ops.embedded import disk
    from ops.supervisor_control import document, running

    settings = settings_of(arguments)
    shown = document(settings.data_dir)
    # Asked afresh: on a full disk the supervisor cannot write what it knows.
    problem = disk.problem(settings.data_dir, settings.min_free_mb) or shown.get("problem", "")
    if problem:
        shown["problem"] = problem
    state = running(settings.data_dir)
    parts = {} if state is None else {name: _now(part) for name, part in state.parts.items()}
    if arguments.json:
        emit(shown)
    else:
        _print(shown, parts, settings.data_dir)
    return OK if all(part.phase in {"ready", "done"} for part in parts.values()) else UNAVAILABLE


def _now(part: PartState) -> PartState:
    """The part with what happened since the supervisor last could write."""
    from dataclasses import replace

    from ops.embedded import identity

    if part.phase != "ready" or identity.is_alive(part.pid, part.started):
        return part
    return replace(part, phase="waiting", pid=0)


def _print(shown: dict[str, object], parts: dict[str, PartState], data_dir: Path) -> None:
    for name in ("gateway", "kafka", "clickhouse", "schema_registry", "triton"):
        # People need the address; the reader's password, which `--json` gives, is for programs.
        print(f"{name:<17} {re.sub('//.*@', '//', str(shown[name] or 'off'))}")
    print(f"{'data':<17} {data_dir}\n")
    print(f"{'part':<17} {'state':<10} {'pid':>8} {'restarts':>9} {'start':>8} {'memory':>9}")
    for name, part in parts.items():
        memory = f"{memory_mb(part.pid)} MB" if part.pid and part.phase != "done" else ""
        pid = part.pid if part.phase != "done" else ""
        start = f"{part.ready_ms / 1000:.1f} s"
        print(f"{name:<17} {part.phase:<10} {pid!s:>8} {part.restarts:>9} {start:>8} {memory:>9}")
    if shown.get("problem"):
        print(f"\n{shown['problem']}")


def memory_mb(pid: int) -> int:
    """Memory of a process and its descendants; what they share counts once over all (PSS)."""
    import psutil

    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(_pss(process) for process in family) // MEGABYTE


def _pss(process: object) -> int:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.Error:
        return 0
