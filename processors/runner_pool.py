"""Runners, seen from the worker: forked by a zygote, spoken to over a socket, killed for certain.

A runner's file under `run/runners/` lets the next owner on this host prove that it is dead (SPINE
rule 1).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from producers.runner.protocol import Frame, FrameDecoder, FrameError, Header, encode

log = logging.getLogger("omium.runner")

SPAWN_TIMEOUT_S = 30.0
READ_BYTES_MAX = 256 * 1024
OUTPUT_KEPT_BYTES = 1024 * 1024
"""What a runner may print to its log file; the rest is read and dropped, so that it never blocks.
"""
KILL_TIMEOUT_S = 10.0
WRITE_BYTES_MAX = 128 * 1024 * 1024


class Runner(asyncio.Protocol):
    """One runner process. `on_frame` and `on_lost` are called on the loop, in order; `on_lost`
    exactly once.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.start_time = ""
        self.on_frame: Callable[[Frame], None] = _ignore
        self.on_lost: Callable[[str], None] = _ignore
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._reason = "its connection closed"
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self.kill(f"it broke the protocol: {error}")
            return
        for frame in frames:
            self.on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.on_lost(self._reason)

    def send(self, kind: str, header: Header, blob: bytes = b"") -> None:
        """Sends one frame; to a lost runner it goes nowhere."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(kind, header, blob))

    def kill(self, reason: str) -> None:
        """Kills the process group at once; `on_lost` follows with the reason."""
        self._reason = reason
        kill_group(self.pid, self.start_time)
        if self._transport is not None:
            self._transport.abort()


def _ignore(_: object) -> None:
    return None


class _Output(asyncio.Protocol):
    """Keeps the first bytes of what a runner prints, and reads the rest away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = OUTPUT_KEPT_BYTES
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._left <= 0:
            return
        kept = data[: self._left]
        self._left -= len(kept)
        try:
            with self._path.open("ab") as file:
                file.write(kept)
                if self._left <= 0:
                    file.write(b"\n[omium: further output dropped]\n")
        except OSError as error:  # A full disk must not end the execution.
            log.warning("cannot keep a runner's output: %s", error)
            self._left = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Where zygotes listen and runners leave their marks."""

    run_dir: Path
    logs_dir: Path
    host: str
    general_framework: str


class RunnerPool:
    """Forks runners through zygotes and proves their death."""

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._marks_dir = config.run_dir / "runners"
        self._marks_dir.mkdir(parents=True, exist_ok=True)
        (config.logs_dir / "executions").mkdir(parents=True, exist_ok=True)

    async def spawn(self, framework: str, execution_id: str) -> Runner:
        """A fresh runner, marked on disk before it may do anything. Raises OSError while no zygote
        answers.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        out_read, out_write = os.pipe()
        try:
            pid = await loop.run_in_executor(
                None, self._fork, framework, execution_id, theirs.fileno(), out_write
            )
        except OSError:
            ours.close()
            os.close(out_read)
            raise
        finally:
            theirs.close()
            os.close(out_write)
        runner = Runner()
        runner.pid, runner.start_time = pid, start_time_of(pid)
        self._mark(execution_id, runner)
        ours.setblocking(False)
        output = _Output(self._config.logs_dir / "executions" / f"{execution_id}.log")
        await loop.connect_read_pipe(lambda: output, os.fdopen(out_read, "rb", 0))
        await loop.create_connection(lambda: runner, sock=ours)
        return runner

    def _fork(self, framework: str, execution_id: str, channel: int, output: int) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as zygote:
            zygote.settimeout(SPAWN_TIMEOUT_S)
            zygote.connect(str(self._socket_path(framework)))
            request = json.dumps({"execution_id": execution_id}).encode()
            socket.send_fds(zygote, [request], [channel, output])
            reply = zygote.recv(4096)
        try:
            return int(json.loads(reply)["pid"])
        except (ValueError, KeyError) as error:
            raise OSError(f"the {framework} zygote answered {reply[:200]!r}") from error

    def _socket_path(self, framework: str) -> Path:
        """The zygote of this framework, or the general one: a runner imports what its parent has
        not.
        """
        for name in (framework, self._config.general_framework):
            path = self._config.run_dir / f"zygote-{name}.sock"
            pointer = path.with_suffix(".path")
            if pointer.exists():
                return Path(pointer.read_text().strip())
            if path.exists():
                return path
        return path

    def _mark(self, execution_id: str, runner: Runner) -> None:
        path = self._marks_dir / f"{execution_id}.{runner.pid}"
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{runner.pid} {runner.start_time}", "ascii")
        fresh.replace(path)

    def assign(self, execution_id: str, runner: Runner) -> None:
        """Marks a runner that is used again for another execution."""
        self._mark(execution_id, runner)

    def forget(self, execution_id: str) -> None:
        """Removes the marks of an execution whose runners are known to be gone or idle."""
        for mark in self._marks(execution_id):
            mark.unlink(missing_ok=True)

    def _marks(self, execution_id: str) -> list[Path]:
        """One file per runner that was ever started for it and not forgotten."""
        return [p for p in self._marks_dir.glob(f"{execution_id}.*") if p.suffix != ".new"]

    async def prove_dead(self, execution_id: str, hosts: set[str]) -> bool:
        """Whether no earlier runner of the execution can act any more; kills those on this host."""
        is_proven = True
        for mark in self._marks(execution_id):  # Written before a runner may act.
            is_proven = await self._end(mark) and is_proven
        return is_proven and hosts <= {self._config.host}

    async def _end(self, mark: Path) -> bool:
        try:
            pid_text, start_time = mark.read_text("ascii").split(" ", 1)
        except (FileNotFoundError, ValueError):
            return False
        pid = int(pid_text)
        kill_group(pid, start_time)
        deadline = asyncio.get_running_loop().time() + KILL_TIMEOUT_S
        while start_time_of(pid) == start_time and _is_alive(pid):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.005)
        mark.unlink(missing_ok=True)
        return True


def kill_group(pid: int, start_time: str) -> None:
    """Kills a runner's process group, unless its pid belongs to somebody else by now."""
    if pid <= 1 or start_time_of(pid) != start_time:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def start_time_of(pid: int) -> str:
    """The kernel's start time of a process, empty if there is none: tells a pid from its later
    namesake.
    """
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _is_alive(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in ("Z", "X")


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
