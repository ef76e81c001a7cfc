"""A worker's side of the zygote: ask for a runner, and learn of its death."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producers.runner.zygote import SOCKET_PATH_BYTES_MAX

FORK_S_MAX: Final = 10.0
LINE_BYTES_MAX: Final = 4096


class ForkFailed(RuntimeError):
    """The zygote cannot be reached or cannot fork; worth trying again."""


def socket_path(run_dir: Path, framework: str) -> Path:
    """Where the framework's zygote listens.

    Unix sockets have short names: where the run directory's is too long,
    a `.path` file names the place.
    """
    direct = run_dir / f"zygote-{framework}.sock"
    if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES_MAX:
        return direct
    pointer = direct.with_suffix(".path")
    return Path(pointer.read_text("utf-8")) if pointer.exists() else direct


@dataclass(slots=True)
class Runner:
    """A forked runner: its process, our end of its channel, the read end of its output."""

    pid: int
    channel: socket.socket
    output_fd: int
    watch: socket.socket

    async def ended(self) -> int | None:
        """Its exit status once it and its process group are gone; negative: the signal. None: the
        zygote died.
        """
        loop = asyncio.get_running_loop()
        line = await _line(loop, self.watch)
        if not line:
            return None
        status = json.loads(line).get("status")
        return status if isinstance(status, int) else None


async def fork_runner(path: Path) -> Runner:
    """A fresh runner, before its `ready` frame. All descriptors are the caller's to close."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    output_read, output_write = os.pipe()
    watch = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    watch.setblocking(False)
    ours.setblocking(False)
    try:
        async with asyncio.timeout(FORK_S_MAX):
            await loop.sock_connect(watch, str(path))
            fds = array.array("i", [theirs.fileno(), output_write])
            watch.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            answer = json.loads(await _line(loop, watch) or b"{}")
        if not isinstance(pid := answer.get("pid"), int):
            raise ForkFailed(str(answer.get("error", "the zygote closed the connection")))
        return Runner(pid=pid, channel=ours, output_fd=output_read, watch=watch)
    except BaseException as error:
        ours.close()
        watch.close()
        os.close(output_read)
        if isinstance(error, OSError | ValueError):
            raise ForkFailed(f"zygote {path}: {error}") from error
        raise
    finally:
        theirs.close()
        os.close(output_write)


async def _line(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """One line, read byte by byte: the next one belongs to another reader. Lines are some 30
    bytes.
    """
    line = bytearray()
    while len(line) < LINE_BYTES_MAX:
        byte = await loop.sock_recv(sock, 1)
        if not byte or byte == b"\n":
            break
        line += byte
    return bytes(line)
