"""Which process a pid means: pids are reused, so a process is a pid and its start time."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

GONE = ""
POLL_S = 0.02
KILL_WAIT_S = 5.0


def started(pid: int) -> str:
    """When the process started, as a text to compare; empty when it is gone, or only a zombie."""
    if not sys.platform.startswith("linux"):
        try:
            return repr(psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return GONE
    try:
        # After the command's name, which may hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return GONE
    return GONE if fields[0] == "Z" else fields[19]


def is_alive(pid: int, start: str) -> bool:
    """Whether that very process still runs."""
    return start != GONE and started(pid) == start


def marked(variable: str, value: str) -> list[tuple[int, str]]:
    """Every process that carries the mark, but us and our ancestors; with start times."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            if process.environ().get(variable) == value:
                found.append((process.pid, started(process.pid)))
        except psutil.Error:
            # Not ours to read, or gone meanwhile: either way not one of this stack.
            continue
    return [(pid, start) for pid, start in found if start != GONE]


def end_group(pid: int, start: str, wait_s: float) -> None:
    """End a process and the group it leads; a later process of that pid is safe."""
    end_all([(pid, start)], wait_s)


def end_all(processes: Iterable[tuple[int, str]], wait_s: float) -> list[int]:
    """End processes (and the groups they lead) together; returns the pids that were still there."""
    alive = [(pid, start) for pid, start in processes if is_alive(pid, start)]
    for wave, patience_s in ((signal.SIGTERM, wait_s), (signal.SIGKILL, KILL_WAIT_S)):
        for pid, start in alive:
            if is_alive(pid, start):
                _signal(pid, wave)
        if wait_gone(alive, patience_s):
            break
    return [pid for pid, _ in alive]


def wait_gone(processes: Iterable[tuple[int, str]], wait_s: float) -> bool:
    """Whether all have ended within the wait."""
    waiting = list(processes)
    deadline = time.monotonic() + wait_s
    while any(is_alive(pid, start) for pid, start in waiting):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        send = os.killpg if os.getpgid(pid) == pid else os.kill
        send(pid, number)
        # A stopped process obeys once it goes on.
        send(pid, signal.SIGCONT)
    except ProcessLookupError:
        # It ended between our look and our signal.
        return
