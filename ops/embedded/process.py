"""Start a process of the stack: its own session, its log file, and an end when its parent ends."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


def spawn(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    is_bound_to_us: bool = True,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """A started process. Bound to us, it gets SIGTERM when the calling thread ends (Linux)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=_death_signal() if is_bound_to_us else None,
        )


def _death_signal() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    # Loaded before the fork: the child may only call what is ready.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    return ask
