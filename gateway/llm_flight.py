"""One LLM call that is under way, as every client that waits for it sees it."""

from __future__ import annotations

import asyncio

from streams.llm.events import (
    LlmCallChunk,
    LlmCallCompleted,
    LlmCallFailed,
    LlmCallRequested,
    LlmCallRouted,
)
from streams.routing.call import failure_id

Outcome = LlmCallCompleted | LlmCallFailed


class Flight:
    """Gathers what the log tells of a call until its outcome. Many clients may follow it, from its
    beginning.
    """

    def __init__(self, request: LlmCallRequested, body_sha256: str, opened_ms: int) -> None:
        self.request = request
        self.body_sha256 = body_sha256
        self.opened_ms = opened_ms
        self.routed: LlmCallRouted | None = None
        self.routed_after_ms = 0
        self.outcome: Outcome | None = None
        self.chunks: list[bytes] = []
        self._chunk_epoch: int | None = None
        self._is_following = True
        self._changed = asyncio.Event()

    def route(self, event: LlmCallRouted, now_ms: int) -> None:
        """A provider is about to be asked."""
        self.routed = event
        self.routed_after_ms = now_ms - self.opened_ms
        self._tell()

    def chunk(self, event: LlmCallChunk) -> int:
        """A piece of the answer, if it continues what is here; returns the bytes that are kept of
        it.

        A second try (after a crash of its router), or a stream met in its middle, is not mixed in:
        clients get the rest when the whole answer stands.
        """
        epoch = event.epoch if self._chunk_epoch is None else self._chunk_epoch
        if event.epoch != epoch or event.sequence != len(self.chunks):
            self._is_following = False
        if self._is_following:
            self._chunk_epoch = event.epoch
            self.chunks.append(event.data)
            self._tell()
        return len(event.data) if self._is_following else 0

    @property
    def kept_bytes(self) -> int:
        """What the flight holds of its answer."""
        return sum(len(chunk) for chunk in self.chunks)

    def end(self, event: Outcome) -> bool:
        """Whether the event is this flight's outcome; the failure of another request for the call
        is not.
        """
        if isinstance(event, LlmCallFailed) and event.event_id != failure_id(self.request):
            return False
        self.outcome = event
        self._tell()
        return True

    async def change(self) -> None:
        """Returns at the next change."""
        await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
