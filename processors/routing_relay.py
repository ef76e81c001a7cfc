"""Pieces of a streamed answer on their way to the client, coalesced so that a fast model costs few
records.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.llm.events import LlmCallChunk, LlmCallRequested
from streams.messages import event_id
from streams.topics import LLM_CHUNKS

log = logging.getLogger("omium.routing")

COALESCE_MS: Final = 10
"""How long a piece may wait for company. The first one never waits: it is the client's time to
first token.
"""


class ChunkRelay:
    """Writes the chunks of one try. A lost one is harmless: the outcome has the whole answer."""

    def __init__(
        self, request: LlmCallRequested, epoch: int, *, producer: AsyncProducer, wire: Wire
    ) -> None:
        self._request = request
        self._epoch = epoch
        self._producer = producer
        self._wire = wire
        self._pending: list[bytes] = []
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> None:
        """Takes whole server-sent events."""
        self._pending.append(data)
        if self._sequence == 0:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(COALESCE_MS / 1000, self.flush)

    def flush(self) -> None:
        """Sends what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        sent = self._producer.send(self._wire.encode(self._chunk(data), LLM_CHUNKS))
        sent.add_done_callback(_report)
        self._sequence += 1

    def _chunk(self, data: bytes) -> LlmCallChunk:
        request = self._request
        ordinal = f"{request.call_id}/{self._epoch}/{self._sequence}"
        return LlmCallChunk(
            event_id=event_id(
                request.tenant, request.execution_id, request.step, 0, "LlmCallChunk", ordinal
            ),
            tenant=request.tenant,
            execution_id=request.execution_id,
            epoch=self._epoch,
            call_id=request.call_id,
            sequence=self._sequence,
            data=data,
        )


def _report(sent: asyncio.Future[int]) -> None:
    error = None if sent.cancelled() else sent.exception()
    if error is not None:
        log.warning("a chunk was not sent: %s", error)
