"""How much disk is left, in words, and the last words of a log."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ops.exits import CommandError

MEGABYTE = 1024 * 1024
START_FREE_MB = 64
"""Below this not even the servers' own files can be written."""
TAIL_BYTES = 4096
LINE_LENGTH_MAX = 300
LOG_BYTES_MAX = 32 * MEGABYTE
"""A log beyond it keeps its last `LOG_KEPT_BYTES` beside it, as `.1`, and starts anew."""
LOG_KEPT_BYTES = 4 * MEGABYTE


def free_mb(folder: Path) -> int:
    """Free megabytes on the file system that holds the folder (or will hold it)."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free // MEGABYTE


def problem(folder: Path, min_free_mb: int) -> str:
    """What is wrong with the disk in one sentence; empty when nothing is."""
    free = free_mb(folder)
    if free >= min_free_mb:
        return ""
    state = "the disk is full" if free < 1 else f"only {free} MB of disk are free"
    return f"{state} in {folder}: new executions are refused until {min_free_mb} MB are free."


def must_have_room(folder: Path) -> None:
    """Raise a sentence when the stack could not even start there."""
    free = free_mb(folder)
    if free < START_FREE_MB:
        raise CommandError(
            f"the disk is full: {free} MB are free in {folder}, a start needs {START_FREE_MB} MB."
        )


def last_line(log: Path) -> str:
    """The last line of a log that says something; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:LINE_LENGTH_MAX]


def bound_logs(
    folder: Path, bytes_max: int = LOG_BYTES_MAX, bytes_kept: int = LOG_KEPT_BYTES
) -> None:
    """Cut the logs that have grown too large. Their writers append, so they need not be told."""
    for log in folder.glob("*.log"):
        size = log.stat().st_size
        if size <= bytes_max:
            continue
        with log.open("rb") as file:
            file.seek(size - bytes_kept)
            log.with_suffix(".log.1").write_bytes(file.read(bytes_kept))
        os.truncate(log, 0)
