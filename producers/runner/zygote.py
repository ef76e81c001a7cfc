"""The warm parent: has a framework imported and patched, and forks a runner on request in
milliseconds.

Single-threaded, so that forking is safe. One request per connection: a JSON object in one message,
with two descriptors (the runner's end of the channel, the write end of its output pipe). Answers
are JSON lines: `{"pid": n}` at once, and `{"pid": n, "status": s}` when the runner has ended, if
the connection is still open: proof of its death, and of its process group's. Negative `s` is the
signal that ended it.
"""

from __future__ import annotations

import array
import ctypes
import gc
import io
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

REQUEST_BYTES_MAX: Final = 64 * 1024
CONNECTIONS_MAX: Final = 256
"""Requests and death watches at a time; further clients are refused at once."""
REQUEST_S_MAX: Final = 5.0
"""How long a client may take to say what it wants."""
TICK_S: Final = 1.0
FDS_PER_REQUEST: Final = 2
SOCKET_PATH_BYTES_MAX: Final = 100
CHANNEL_FD: Final = 3
_PR_SET_PDEATHSIG: Final = 1


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    since_s: float
    request: bytes = b""
    fds: list[int] = field(default_factory=list)
    pid: int = 0


class Zygote:
    """Serves fork requests until SIGTERM."""

    def __init__(
        self,
        listener: socket.socket,
        runner: Callable[[int, MutableMapping[str, str]], int],
        environment: MutableMapping[str, str],
    ) -> None:
        self._listener = listener
        self._runner = runner
        self._environment = environment
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, _Client] = {}
        self._children: dict[int, _Client] = {}
        self._is_stopping = False
        self._wake_read, self._wake_write = os.pipe()

    def serve(self, on_ready: Callable[[], None]) -> int:
        """Blocks; children are killed with their parent by the kernel."""
        self._listener.setblocking(False)
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        gc.collect()
        # The parent's objects are never looked at again: children would copy the pages of all of
        # them.
        gc.freeze()
        on_ready()
        while not self._is_stopping:
            self._turn()
        for pid in list(self._children):
            _kill_group(pid)
        self._reap()
        return 0

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _turn(self) -> None:
        for key, _ in self._selector.select(TICK_S):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fd == self._wake_read:
                _drain(self._wake_read)
            elif (client := self._clients.get(key.fd)) is not None:
                self._hear(client)
        self._reap()
        self._drop_slow()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        if len(self._clients) >= CONNECTIONS_MAX:
            _answer(connection, {"error": f"more than {CONNECTIONS_MAX} connections"})
            connection.close()
            return
        self._clients[connection.fileno()] = _Client(connection, time.monotonic())
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, client: _Client) -> None:
        space = socket.CMSG_LEN(FDS_PER_REQUEST * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = client.connection.recvmsg(REQUEST_BYTES_MAX, space)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                client.fds += _descriptors(payload)
        if not data or client.pid or len(client.fds) > FDS_PER_REQUEST:
            self._drop(client)
            return
        client.request += data
        request = _parse(client.request)
        if request is not None and len(client.fds) == FDS_PER_REQUEST:
            self._fork(client)
        elif request is not None or len(client.request) >= REQUEST_BYTES_MAX:
            _answer(
                client.connection,
                {"error": f"expected {FDS_PER_REQUEST} descriptors and one JSON object"},
            )
            self._drop(client)

    def _fork(self, client: _Client) -> None:
        channel, output = client.fds
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            _answer(client.connection, {"error": f"fork: {error}"})
            self._drop(client)
            return
        if pid == 0:
            _become_runner(channel, output, parent, self._runner, self._environment)
        client.pid = pid
        self._children[pid] = client
        for fd in client.fds:
            os.close(fd)
        client.fds = []
        _answer(client.connection, {"pid": pid})

    def _reap(self) -> None:
        while self._children:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            # Not yet reaped, so its group id cannot belong to anybody else: what it started goes
            # with it.
            _kill_group(ended.si_pid)
            _, status = os.waitpid(ended.si_pid, 0)
            client = self._children.pop(ended.si_pid, None)
            if client is not None:
                code = os.waitstatus_to_exitcode(status)
                _answer(client.connection, {"pid": ended.si_pid, "status": code})
                client.pid = 0
                self._drop(client)

    def _drop_slow(self) -> None:
        oldest_s = time.monotonic() - REQUEST_S_MAX
        for client in list(self._clients.values()):
            if not client.pid and client.since_s < oldest_s:
                self._drop(client)

    def _drop(self, client: _Client) -> None:
        """Closes the connection; a child of the client's goes on, unwatched."""
        fd = client.connection.fileno()
        if fd >= 0 and self._clients.pop(fd, None) is not None:
            self._selector.unregister(client.connection)
            client.connection.close()
        for descriptor in client.fds:
            os.close(descriptor)
        client.fds = []


def listen(path: Path) -> socket.socket:
    """A listening socket at the path, in place of whatever a predecessor left there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(CONNECTIONS_MAX)
    return listener


def _become_runner(
    channel: int,
    output: int,
    parent: int,
    runner: Callable[[int, MutableMapping[str, str]], int],
    environment: MutableMapping[str, str],
) -> None:
    """Never returns: the child's life from fork to exit."""
    status = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _only_these(channel, output)
        status = runner(CHANNEL_FD, environment)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _only_these(channel: int, output: int) -> None:
    """Descriptors 0 to 3: nothing, output, output, channel."""
    channel, output = os.dup(channel), os.dup(output)
    while min(channel, output) <= CHANNEL_FD:
        channel, output = os.dup(channel), os.dup(output)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2), (channel, CHANNEL_FD)):
        os.dup2(source, target, inheritable=target != CHANNEL_FD)
    os.closerange(CHANNEL_FD + 1, os.sysconf("SC_OPEN_MAX"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A line is out before a crash or `os._exit` can swallow it.
            stream.reconfigure(line_buffering=True)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        return


def _descriptors(payload: bytes) -> list[int]:
    fds = array.array("i")
    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return list(fds)


def _parse(data: bytes) -> dict[str, object] | None:
    """The request once it is complete; nothing before."""
    try:
        request = json.loads(data)
    except ValueError:
        return None
    return request if isinstance(request, dict) else {}


def _answer(connection: socket.socket, message: dict[str, object]) -> None:
    """Says it if the client still listens: an answer is smaller than any socket buffer."""
    try:
        connection.send(json.dumps(message).encode() + b"\n")
    except OSError:
        return


def warm(framework: str) -> None:
    """Imports and patches everything that a runner of this framework needs. Starts no thread."""
    from producers.adapters.detect import adapter

    warmed = adapter(framework)
    warmed.preload()
    warmed.rehearse()
    if (threads := threading.active_count()) > 1:
        raise RuntimeError(f"{threads} threads after warming up: forking would not be safe")


def run(
    socket_path: Path,
    framework: str,
    environment: MutableMapping[str, str],
    on_ready: Callable[[], None],
) -> int:
    """A zygote's whole life; runners inherit the environment and change their own copy."""
    from producers.runner.main import run_forked

    warm(framework)
    return Zygote(listen(socket_path), run_forked, environment).serve(on_ready)
