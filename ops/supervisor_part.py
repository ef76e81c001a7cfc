"""What the supervisor has to know about one part of the stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

READY_WAIT_S = 120.0
"""Servers that start in 3 s on a quiet machine take 20 s and more on a busy one."""
STOP_WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process to keep running. Callables may block; they are called off the event loop."""

    name: str
    command: Callable[[], list[str]]
    is_ready: Callable[[int], bool]
    """Whether the process of that pid serves; asked until it says yes, then no more."""
    standby_command: Callable[[], list[str]] | None = None
    """Starts a warm process that waits for `ops.commands.worker.GO` on stdin; None: no standby."""
    prepare: Callable[[], None] | None = None
    """What must be there before the first start."""
    environment: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    """What to show beside its name."""
    stop_wave: int = 0
    """Parts of a lower wave are stopped, and have ended, before those of a higher one."""
    stop_wait_s: float = STOP_WAIT_S
    is_one_shot: bool = False
    """Done once it has exited with 0; ready then, too."""
