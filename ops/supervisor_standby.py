"""Warm standbys: processes that have imported a role and wait for a word on stdin to serve it.

Importing is most of a worker's start (1-2 s of 3): a standby makes a crash a pause of one second.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ops.commands.worker import GO
from ops.embedded.process import spawn
from ops.supervisor_part import Part


class Standbys:
    """At most one standby per part."""

    def __init__(self, logs_dir: Path, environment: Mapping[str, str]) -> None:
        self._logs_dir = logs_dir
        self._environment = environment
        self._waiting: dict[str, subprocess.Popen[bytes]] = {}

    def refill(self, part: Part) -> None:
        """Have a standby of the part, if it wants one."""
        if part.standby_command is None or part.name in self._waiting:
            return
        self._waiting[part.name] = spawn(
            part.standby_command(),
            self._logs_dir / f"{part.name}.log",
            {**self._environment, **part.environment},
            stdin=subprocess.PIPE,
        )

    def take(self, part: Part) -> subprocess.Popen[bytes] | None:
        """The standby, serving from now on; None when there is none alive."""
        process = self._waiting.pop(part.name, None)
        if process is None:
            return None
        assert process.stdin is not None
        try:
            process.stdin.write(GO)
            process.stdin.flush()
        except BrokenPipeError:
            # It ended meanwhile. Unwritten words are dropped with the pipe.
            return None
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
        return process if process.poll() is None else None

    def reap(self) -> None:
        """Forget those that have ended."""
        for name, process in list(self._waiting.items()):
            if process.poll() is not None:
                _close(self._waiting.pop(name))

    def end(self) -> None:
        """End them all: they hold nothing."""
        for process in self._waiting.values():
            with suppress(ProcessLookupError):
                process.kill()
        for process in self._waiting.values():
            process.wait()
            _close(process)
        self._waiting.clear()


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
