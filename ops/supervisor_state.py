"""`<data_dir>/run/stack.json`: what runs, for every other command and the next supervisor."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from ops.credentials import write_private
from ops.embedded import identity
from ops.exits import CommandError
from ops.settings import PREFIX

FILE_NAME = "stack.json"
LOCK_NAME = "supervisor.lock"
MARK = PREFIX + "STACK_ID"
"""The environment variable that every process of a stack carries."""

StackPhase = Literal["starting", "ready", "stopping", "failed"]
PartPhase = Literal["preparing", "starting", "ready", "waiting", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """One part as it is now."""

    phase: PartPhase = "preparing"
    pid: int = 0
    started: str = identity.GONE
    ready_ms: int = 0
    """How long its last start took."""
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """The whole stack as it is now."""

    phase: StackPhase
    supervisor_pid: int
    supervisor_started: str
    endpoints: Mapping[str, str | None]
    parts: Mapping[str, PartState] = field(default_factory=dict)
    problem: str = ""
    """One sentence about what is wrong; empty when nothing is."""

    def with_part(self, name: str, part: PartState) -> StackState:
        """The same with that part changed."""
        return replace(self, parts={**self.parts, name: part})

    @property
    def is_supervised(self) -> bool:
        """Whether the supervisor that wrote it still runs."""
        return identity.is_alive(self.supervisor_pid, self.supervisor_started)


def write(run_dir: Path, state: StackState) -> None:
    """Replace the file at once: readers see the old or the new one, never half."""
    write_private(run_dir / FILE_NAME, json.dumps(asdict(state), indent=1))


def read(run_dir: Path) -> StackState | None:
    """The last written state; None where no stack has been."""
    path = run_dir / FILE_NAME
    try:
        stored = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    parts = {name: PartState(**part) for name, part in stored.pop("parts").items()}
    return StackState(**stored, parts=parts)


def recorded(state: StackState | None) -> list[tuple[int, str]]:
    """The processes of a state as pid and start time."""
    if state is None:
        return []
    return [(part.pid, part.started) for part in state.parts.values() if part.pid]


def orphans(state: StackState | None, stack_id: str) -> list[tuple[int, str]]:
    """Processes of this stack that still run: those on record, and those that carry its mark.

    A pid on record whose start time differs is somebody else's process by now: it is not listed.
    """
    on_record = {(pid, start) for pid, start in recorded(state) if identity.is_alive(pid, start)}
    marked = set(identity.marked(MARK, stack_id)) if stack_id else set()
    return sorted(on_record | marked)


def hold_lock(run_dir: Path) -> IO[str] | None:
    """The supervisor's lock of a data directory, held while the file is open; None if taken."""
    run_dir.mkdir(parents=True, exist_ok=True)
    file = (run_dir / LOCK_NAME).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def must_hold_lock(run_dir: Path) -> IO[str]:
    """The supervisor's lock, or a sentence that another supervisor has it."""
    file = hold_lock(run_dir)
    if file is None:
        raise CommandError(f"another `omiumctl up` already runs this stack ({run_dir.parent}).")
    return file
