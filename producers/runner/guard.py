"""What ends a runner whose worker is gone or that was stopped for too long (SPINE rule 1)."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import Final

WINDOW_S: Final = 20.0
"""W: a runner that was stopped longer is killed by the kernel before it executes another
instruction.
"""
HEARTBEAT_S: Final = 5.0
ORPHANED_EXIT: Final = 70


def start(channel_fd: int) -> None:
    """Watches from a thread of its own; ends the process at the socket's end, or through the
    kernel's timer.

    The default action of SIGALRM terminates. A runner whose C code holds the interpreter longer
    than W dies as well.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    arm()
    threading.Thread(target=_watch, args=(channel_fd,), name="omium-guard", daemon=True).start()


def arm() -> None:
    """Sets the kernel's timer anew."""
    signal.setitimer(signal.ITIMER_REAL, WINDOW_S)


def _watch(channel_fd: int) -> None:
    poller = select.poll()
    # Readable data is for others; POLLHUP and POLLERR are always reported.
    poller.register(channel_fd, 0)
    while True:
        if poller.poll(HEARTBEAT_S * 1000):
            os._exit(ORPHANED_EXIT)
        arm()
