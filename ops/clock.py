"""The one place where Omium reads a clock or draws an id; rules take both as arguments."""

from __future__ import annotations

import time
from uuid import uuid4


def now_ms() -> int:
    """The wall clock, milliseconds UTC: for people and events, never for measuring waits."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """A clock that never jumps, in milliseconds. For deadlines and durations."""
    return time.monotonic_ns() // 1_000_000


def new_id() -> str:
    """A fresh random id, for what has no deterministic identity of its own."""
    return str(uuid4())
