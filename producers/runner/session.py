"""One execution inside a runner: who asks before every effect, and under which name.

The worker holds the journal; this side only counts repetitions, keeps the lease rule and unwinds
when told to.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from producers.runner.channel import RunnerChannel, Ticket
from producers.runner.protocol import Frame, Header, StartHeader
from producers.runner.render import to_json
from producers.runner.signals import Cancelled, EffectDenied, Suspended, Unwind
from streams.messages import event_id

LEASE_S: Final = 5.0
"""An effect starts only within this time of sending its intent (SPINE rule 1); later the intent is
sent again.
"""
INTENTS_MAX: Final = 100
"""How often one intent is sent again before the runner gives up: a worker that slow is no owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """Where in the execution something happens."""

    step: str
    step_key: str
    agent: str
    attempt: int = 1
    ordinal: int = 0

    def header(self) -> dict[str, object]:
        """As frames carry it."""
        return {
            "step": self.step,
            "step_key": self.step_key,
            "agent": self.agent,
            "attempt": self.attempt,
            "ordinal": self.ordinal,
        }


@dataclass(slots=True, kw_only=True)
class Session:
    """One execution in this process."""

    channel: RunnerChannel
    start: StartHeader
    records: tuple[tuple[str, str, bytes], ...] = ()
    """`(kind, step key, bytes)` of the adapter's own records, in log order."""
    options: Header = field(default_factory=dict)
    locate: Callable[[], StepInfo] = lambda: StepInfo(step="main", step_key="main", agent="main")
    """The adapter's answer to: in which step is the calling thread or task?"""
    is_suspended: bool = False
    failed_step: str = ""
    """The innermost step that failed last."""
    _counts: dict[tuple[str, int, str, str], int] = field(default_factory=dict)
    _effects: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_ordinal(self, info: StepInfo, kind: str, request_hash: str) -> int:
        """Which repetition of this very request within the step this is, counted from 0."""
        key = (info.step_key, info.attempt, kind, request_hash)
        with self._lock:
            ordinal = self._counts.get(key, 0)
            self._counts[key] = ordinal + 1
        return ordinal

    def call_id(self, info: StepInfo, kind: str, request_hash: str, ordinal: int) -> str:
        """The idempotency key of a call: the same in every incarnation."""
        return event_id(
            self.start["tenant"],
            self.start["execution_id"],
            info.step_key,
            info.attempt,
            kind,
            f"{request_hash}:{ordinal}",
        )

    def used(self, info: StepInfo, call_id: str) -> None:
        """Notes that the step used this effect."""
        with self._lock:
            effects = self._effects.setdefault(info.step_key, [])
            if call_id not in effects:
                effects.append(call_id)

    def take_effects(self, step_key: str) -> list[str]:
        """The effects that the step used, in order of first use; forgets them."""
        with self._lock:
            return self._effects.pop(step_key, [])

    def check(self) -> None:
        """Raises when the execution must not go on; called at every boundary."""
        if self.channel.cancel_reason is not None:
            raise Cancelled(self.channel.cancel_reason)
        if self.is_suspended:
            raise Suspended("the execution waits for a decision")

    def tell(self, kind: str, header: Header, blob: bytes = b"") -> None:
        """Sends a frame that nobody answers."""
        self.check()
        self.channel.send(kind, header, blob)

    def begin(self, kind: str, header: Header, blob: bytes = b"") -> Ticket:
        """Sends an awaited report of what happened: it did happen, even if the execution must stop
        now.
        """
        return self.channel.begin(kind, header, blob)

    def settle(self, ticket: Ticket) -> Frame:
        """The reply to `begin`, once what was sent stands on the log."""
        return self._settled(self.channel.wait(ticket))

    async def settle_async(self, ticket: Ticket) -> Frame:
        """`settle` for a coroutine."""
        return self._settled(await self.channel.wait_async(ticket))

    def report(self, kind: str, header: Header, blob: bytes = b"") -> Frame:
        """`begin` and `settle` in one."""
        return self.settle(self.begin(kind, header, blob))

    async def report_async(self, kind: str, header: Header, blob: bytes = b"") -> Frame:
        """`report` for a coroutine."""
        return await self.settle_async(self.begin(kind, header, blob))

    def intend(self, kind: str, header: Header) -> Frame:
        """The decision about an effect, fresh enough to act on."""
        for _ in range(INTENTS_MAX):
            self.check()
            sent_s = time.monotonic()
            reply = self.report(kind, header)
            if self._is_fresh(reply, sent_s):
                return reply
        raise TimeoutError("the worker answers too slowly to act on what it says")

    async def intend_async(self, kind: str, header: Header) -> Frame:
        """`intend` for a coroutine."""
        for _ in range(INTENTS_MAX):
            self.check()
            sent_s = time.monotonic()
            reply = await self.report_async(kind, header)
            if self._is_fresh(reply, sent_s):
                return reply
        raise TimeoutError("the worker answers too slowly to act on what it says")

    def _is_fresh(self, reply: Frame, sent_s: float) -> bool:
        return reply.text("decision") != "go" or time.monotonic() - sent_s <= LEASE_S

    def _settled(self, reply: Frame) -> Frame:
        if reply.text("decision") == "suspend":
            self.is_suspended = True
        self.check()
        return reply


_current: Session | None = None


def current() -> Session | None:
    """The execution of this process, if one runs."""
    return _current


def set_current(session: Session | None) -> None:
    """Makes a session the process's own; patches pass everything through without one."""
    global _current
    _current = session


def request_hash(*parts: bytes) -> str:
    """A short name for a request: equal requests, equal hashes, in every process."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:32]


def denied(reply: Frame, what: str) -> EffectDenied:
    """The error for a call that must not be made."""
    return EffectDenied(f"{what} was denied: {reply.text('reason', 'no reason given')}")


def failure_header(error: BaseException) -> dict[str, object]:
    """An error as frames carry it, cut to sizes that an event can hold."""
    import traceback

    from producers.runner.signals import type_name

    trace = "".join(traceback.format_exception(error, limit=60))
    return {
        "error_type": type_name(error),
        "error_message": str(error)[:8192],
        "error_trace": trace[-16384:],
    }


def is_unwind(error: BaseException) -> bool:
    """Whether the error is a signal of ours rather than a failure."""
    return isinstance(error, Unwind)


def human(value: object) -> str:
    """The value as an event shows it."""
    return to_json(value)
