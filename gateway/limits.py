"""Limits that need the world: free disk, and how many clients stream."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.problems import Problem

CHECK_EVERY_MS: Final = 1000
RETRY_AFTER_DISK_S: Final = 30
RETRY_AFTER_QUEUE_S: Final = 5
MIB: Final = 1024 * 1024
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 500
HISTORY_PAGE_DEFAULT: Final = 200
HISTORY_PAGE_MAX: Final = 1000
EXECUTIONS_PER_STREAM_MAX: Final = 50


def free_bytes(path: Path) -> int:
    """Free bytes of the file system that holds the path."""
    return shutil.disk_usage(path).free


class DiskGuard:
    """Refuses new work while the data directory's disk is nearly full; asks once a second."""

    def __init__(
        self,
        path: Path,
        min_free_mb: int,
        monotonic_ms: Callable[[], int],
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._path = path
        self._min_free_mb = min_free_mb
        self._monotonic_ms = monotonic_ms
        self._free = free
        self._checked_at_ms: int | None = None
        self._free_mb = 0

    def free_mb(self) -> int:
        """Free MiB, as of a second ago at most."""
        now = self._monotonic_ms()
        if self._checked_at_ms is None or now - self._checked_at_ms >= CHECK_EVERY_MS:
            self._free_mb = self._free(self._path) // MIB
            self._checked_at_ms = now
        return self._free_mb

    def require_space(self) -> None:
        """Raises the 503 problem below the limit; running executions are not touched by it."""
        free_mb = self.free_mb()
        if free_mb < self._min_free_mb:
            raise Problem(
                503,
                "disk-full",
                f"Only {free_mb} MiB are free on the data directory's disk; new executions need "
                f"{self._min_free_mb} MiB. Running ones go on.",
                limit=self._min_free_mb,
                retry_after_s=RETRY_AFTER_DISK_S,
            )


class Slots:
    """A number of places that are taken and given back."""

    def __init__(self, places_max: int, name: str) -> None:
        self._places_max = places_max
        self._name = name
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one place; raises the 429 problem when none is left."""
        self.require()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def require(self) -> None:
        """Raises the 429 problem when no place is left."""
        if self.taken >= self._places_max:
            raise Problem(
                429,
                "too-many-streams",
                f"There are {self.taken} {self._name} open already.",
                limit=self._places_max,
                retry_after_s=RETRY_AFTER_QUEUE_S,
            )


def page_size(text: str | None, *, default: int, page_max: int) -> int:
    """How many rows a client may have at once; raises the 422 problem for anything but 1 to
    `page_max`.
    """
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= page_max:
        raise Problem(
            422,
            "invalid-limit",
            f"limit must be a number from 1 to {page_max}.",
            field="limit",
            limit=page_max,
        )
    return int(text)
