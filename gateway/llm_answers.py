"""Follows LLM answers on the log and wakes whoever waits; finds recorded answers again.

Every gateway tails all partitions of responses and chunks, and looks at key and type before it
decodes: a call that another gateway began, before a restart or elsewhere, is answered here all the
same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from confluent_kafka import Message as KafkaRecord

from gateway.llm_flight import Flight
from gateway.llm_index import CALLS_MAX, AnswerCache, AnswerIndex, Claims
from gateway.problems import Problem
from producers.kafka import Tail, end_offset, scan
from producers.wire import Wire
from streams.llm.events import LlmCallChunk, LlmCallCompleted, LlmCallFailed, LlmCallRouted
from streams.messages import Message
from streams.topics import LLM_CHUNKS, LLM_RESPONSES, partitions

log = logging.getLogger("omium.gateway.llm")

FLIGHTS_MAX: Final = 10_000
"""Calls that clients may wait for at a time."""
FLIGHT_MS_MAX: Final = 15 * 60 * 1000
"""A flight whose outcome never came is dropped after this; the wait for it ended long before."""
CHUNK_BYTES_MAX: Final = 256 * 1024 * 1024
"""Pieces of unfinished streams held for clients that join or are slow."""
LOG_READS_MAX: Final = 4
RECORDS_PER_CALL: Final = 2
"""Of an ordinary call on the responses topic: intent and outcome."""
CLAIM_PREFIX: Final = b"claim/"
COMPLETED: Final = b"omium.llm.LlmCallCompleted"


class LlmAnswers:
    """The gateway's view of LLM calls."""

    def __init__(self, *, bootstrap: str, wire: Wire, monotonic_ms: Callable[[], int]) -> None:
        self._bootstrap = bootstrap
        self._wire = wire
        self._monotonic_ms = monotonic_ms
        self._flights: OrderedDict[str, Flight] = OrderedDict()
        self._kept_bytes = 0
        self._index = AnswerIndex()
        self._cache = AnswerCache()
        self._claims = {number: Claims() for number in range(partitions(LLM_RESPONSES))}
        self._reads = asyncio.Semaphore(LOG_READS_MAX)
        self._tail: Tail | None = None

    async def start(self) -> None:
        """Begins to follow, far enough back to know the last `CALLS_MAX` answers. Raises
        `Retryable`.
        """
        positions = await asyncio.get_running_loop().run_in_executor(None, self._positions)
        self._tail = Tail(
            self._bootstrap,
            client_id="gateway-llm",
            positions=positions,
            on_batch=self._take,
        )
        await self._tail.start()

    async def stop(self) -> None:
        """Ends following."""
        if self._tail is not None:
            await self._tail.stop()

    def flight(self, call: str) -> Flight | None:
        """The call's flight, if it is under way."""
        return self._flights.get(call)

    def open(self, flight: Flight) -> None:
        """Follows a call from now on; raises the 429 problem when too many are under way."""
        self._drop_expired()
        if len(self._flights) >= FLIGHTS_MAX:
            raise Problem(
                429,
                "too-many-calls",
                "Too many calls are under way.",
                limit=FLIGHTS_MAX,
                retry_after_s=1,
            )
        self._flights[flight.request.call_id] = flight

    def abandon(self, flight: Flight) -> None:
        """Forgets a flight whose request never reached the log."""
        if self._flights.get(flight.request.call_id) is flight:
            self._close(flight.request.call_id)

    def is_recorded(self, call: str) -> bool:
        """Whether an answer may stand on the log."""
        return self._cache.get(call) is not None or self._index.places(call.encode()) is not None

    async def recorded(self, call: str) -> LlmCallCompleted | None:
        """The answer that stands on the log, read again if need be."""
        cached = self._cache.get(call)
        places = self._index.places(call.encode())
        if cached is not None or places is None:
            return cached
        partition, offsets = places
        for offset in offsets:
            async with self._reads:
                event = await asyncio.get_running_loop().run_in_executor(
                    None, self._read, partition, offset
                )
            if isinstance(event, LlmCallCompleted) and not self._claims[partition].is_void(
                offset, event.epoch
            ):
                self._cache.put(event)
                return event
        return None

    def _positions(self) -> dict[tuple[str, int], int]:
        count = partitions(LLM_RESPONSES)
        back = CALLS_MAX * RECORDS_PER_CALL // count
        positions: dict[tuple[str, int], int] = {}
        for number in range(count):
            end = end_offset(self._bootstrap, LLM_RESPONSES.name, number)
            positions[LLM_RESPONSES.name, number] = max(0, end - back)
            chunks_end = end_offset(self._bootstrap, LLM_CHUNKS.name, number)
            positions[LLM_CHUNKS.name, number] = chunks_end
        return positions

    def _take(self, records: Iterable[KafkaRecord]) -> None:
        for record in records:
            try:
                self._one(record)
            except ValueError as error:
                # Put there by hand: the processors dead-letter it, readers pass over it.
                log.warning("unreadable record on %s: %s", record.topic(), error)
            except Exception:
                log.exception("a record on %s could not be followed", record.topic())

    def _one(self, record: KafkaRecord) -> None:
        key, partition, offset = _key(record), record.partition() or 0, record.offset() or 0
        if record.topic() == LLM_RESPONSES.name and key.startswith(CLAIM_PREFIX):
            self._claims[partition].claimed(offset)
            return
        if record.topic() == LLM_RESPONSES.name and _type(record) == COMPLETED:
            self._index.add(key, partition, offset)
        flight = self._flights.get(key.decode(errors="replace"))
        if flight is None:
            return
        event = self._wire.decode(_bytes(record.value()))
        claims = self._claims[partition]
        claims.claimed(event.epoch)
        if event.epoch >= claims.highest:
            self._tell(flight, event)

    def _tell(self, flight: Flight, event: Message) -> None:
        match event:
            case LlmCallRouted():
                flight.route(event, self._monotonic_ms())
            case LlmCallChunk() if self._kept_bytes + len(event.data) <= CHUNK_BYTES_MAX:
                self._kept_bytes += flight.chunk(event)
            case LlmCallChunk():
                # Too much is under way: the missing piece makes this client wait for the whole
                # answer.
                log.warning(
                    "chunks of %s bytes are under way: one is not followed", self._kept_bytes
                )
            case LlmCallCompleted() | LlmCallFailed():
                if isinstance(event, LlmCallCompleted):
                    self._cache.put(event)
                if flight.end(event):
                    self._close(event.call_id)
            case _:
                log.warning("a %s has no place among LLM answers", type(event).__name__)

    def _read(self, partition: int, offset: int) -> Message | None:
        for batch in scan(self._bootstrap, LLM_RESPONSES.name, partition, offset, offset + 1):
            for record in batch:
                if record.offset() == offset:
                    return self._wire.decode(_bytes(record.value()))
        return None

    def _drop_expired(self) -> None:
        oldest_ms = self._monotonic_ms() - FLIGHT_MS_MAX
        while self._flights:
            call, flight = next(iter(self._flights.items()))
            if flight.opened_ms > oldest_ms:
                return
            self._close(call)

    def _close(self, call: str) -> None:
        flight = self._flights.pop(call, None)
        if flight is not None:
            self._kept_bytes -= flight.kept_bytes


def _key(record: KafkaRecord) -> bytes:
    return _bytes(record.key()) or b""


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _type(record: KafkaRecord) -> bytes:
    headers = record.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    found = next((value for name, value in pairs if name == "ce_type"), b"")
    return found if isinstance(found, bytes) else str(found).encode()
