"""The runner's end of the socket: one round trip per awaited frame, on the calling thread where
possible.
"""

from __future__ import annotations

import asyncio
import itertools
import select
import socket
import threading
from collections import deque
from typing import Final

from producers.runner.protocol import Frame, FrameDecoder, Header, encode

RECEIVE_BYTES: Final = 256 * 1024
BLOCK_LOOP_S: Final = 0.005
"""How long an asyncio caller may hold its loop for a reply before a thread waits instead."""


class ChannelClosed(ConnectionError):
    """The worker is gone; nothing that this runner still does can count."""


class Ticket:
    """The place of one awaited reply."""

    __slots__ = ("event", "reply", "seq")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.reply: Frame | None = None
        self.event = threading.Event()


class RunnerChannel:
    """Sends frames and waits for replies, from any thread.

    Leader and follower: of the waiting threads one reads the socket, the others sleep; whoever
    leaves wakes the others.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._decoder = FrameDecoder()
        self._seqs = itertools.count(1)
        self._send_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._tickets_lock = threading.Lock()
        self._tickets: dict[int, Ticket] = {}
        self._inbox: deque[Frame] = deque()
        self.cancel_reason: str | None = None
        """Set once the worker asked to cancel; boundaries raise on it."""

    def fileno(self) -> int:
        """The socket's descriptor, for whoever watches for its end."""
        return self._sock.fileno()

    def send(self, kind: str, header: Header, blob: bytes = b"") -> None:
        """Sends a frame that nobody answers."""
        data = encode(kind, header, blob)
        try:
            with self._send_lock:
                self._sock.sendall(data)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def begin(self, kind: str, header: Header, blob: bytes = b"") -> Ticket:
        """Sends an awaited frame; the ticket is for `wait` or `wait_async`. Frames leave in the
        order of `begin`.
        """
        ticket = Ticket(next(self._seqs))
        with self._tickets_lock:
            self._tickets[ticket.seq] = ticket
        self.send(kind, {**header, "seq": ticket.seq}, blob)
        return ticket

    def ask(self, kind: str, header: Header, blob: bytes = b"") -> Frame:
        """Sends an awaited frame and returns its reply."""
        return self.wait(self.begin(kind, header, blob))

    async def ask_async(self, kind: str, header: Header, blob: bytes = b"") -> Frame:
        """`ask` for a coroutine."""
        return await self.wait_async(self.begin(kind, header, blob))

    def wait(self, ticket: Ticket) -> Frame:
        """The reply, however long it takes: the worker and the deadline end a wait, not a timer
        here.
        """
        reply = self._wait(ticket, None)
        assert reply is not None
        return reply

    async def wait_async(self, ticket: Ticket) -> Frame:
        """The reply; holds the event loop for 5 ms at most, since a usual reply comes in less than
        a hand-over costs.
        """
        reply = self._wait(ticket, BLOCK_LOOP_S)
        return reply if reply is not None else await asyncio.to_thread(self.wait, ticket)

    def receive(self) -> Frame:
        """The next frame that is no reply. Only for a thread that is alone, before or after an
        execution.
        """
        with self._read_lock:
            while not self._inbox:
                self._read()
            return self._inbox.popleft()

    def _wait(self, ticket: Ticket, timeout_s: float | None) -> Frame | None:
        while ticket.reply is None:
            if self._read_lock.acquire(blocking=False):
                try:
                    if not self._lead(ticket, timeout_s):
                        return None
                finally:
                    self._read_lock.release()
                    self._wake_others(ticket)
            elif not ticket.event.wait(timeout_s) and timeout_s is not None:
                return ticket.reply
            else:
                ticket.event.clear()
        return ticket.reply

    def _lead(self, ticket: Ticket, timeout_s: float | None) -> bool:
        """Reads until the ticket has its reply; false when that takes longer than the timeout."""
        while ticket.reply is None:
            if timeout_s is not None and not _is_readable(self._sock, timeout_s):
                return False
            self._read()
        return True

    def _read(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        if not data:
            raise ChannelClosed("the worker closed the connection")
        for frame in self._decoder.feed(data):
            self._dispatch(frame)

    def _dispatch(self, frame: Frame) -> None:
        if frame.kind == "reply":
            with self._tickets_lock:
                ticket = self._tickets.pop(frame.number("seq"), None)
            if ticket is not None:
                ticket.reply = frame
                ticket.event.set()
        elif frame.kind == "cancel":
            self.cancel_reason = frame.text("reason", "cancelled")
        else:
            if frame.kind == "start":
                # What was said to cancel came before it and meant its predecessor.
                self.cancel_reason = None
            self._inbox.append(frame)

    def _wake_others(self, leaving: Ticket) -> None:
        """Wakes every sleeping waiter: one becomes the next reader. Waking one could wake a
        coroutine that is no more.
        """
        if not self._tickets:
            return
        with self._tickets_lock:
            for ticket in self._tickets.values():
                if ticket is not leaving:
                    ticket.event.set()


def _is_readable(sock: socket.socket, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))
