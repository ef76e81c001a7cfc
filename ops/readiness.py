"""How a role tells the supervisor that it is ready: its pid in `<data_dir>/run/<role>.ready`."""

from __future__ import annotations

import os
from pathlib import Path

from ops.settings import Settings


def mark_ready(settings: Settings, role: str) -> None:
    """Say that this process serves `role` from now on."""
    path = ready_file(settings.run_dir, role)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    fresh.write_text(str(os.getpid()), "ascii")
    fresh.replace(path)


def is_ready(run_dir: Path, role: str, pid: int) -> bool:
    """Whether process `pid` has said so; what an earlier process said does not count."""
    try:
        return ready_file(run_dir, role).read_text("ascii") == str(pid)
    except FileNotFoundError:
        return False


def ready_file(run_dir: Path, role: str) -> Path:
    """Where the word of a role stands."""
    return run_dir / f"{role}.ready"
