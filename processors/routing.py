"""The routing processor: every LLM request gets one outcome, by the local model first.

Faust owns membership and assignment of `omium.llm.requests.v1`; each partition is served by a
`RoutingPartition`, the claimed writer of the same partition of `omium.llm.responses.v1`. Requests
run concurrently; an offset is done when its outcome stands, so a crash asks again for exactly the
calls in flight, under the same idempotency keys.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from processors.dead_letters import DeadLetters
from processors.faust_batch import Batch
from processors.lane import Lane
from processors.routing_asking import Asker, Clock
from processors.routing_partition import RoutingPartition
from processors.routing_relay import ChunkRelay
from producers.kafka import AsyncProducer, end_offset
from producers.wire import Wire
from streams.errors import Retryable
from streams.llm.events import LlmCallRequested
from streams.topics import LLM_REQUESTS, LLM_RESPONSES, partition_of

log = logging.getLogger("omium.routing")

NAME: Final = "omium-routing"
REBUILD_RECORDS_MAX: Final = 100_000
"""How far back a new owner reads: two records a call, so the last 50,000 calls of a partition."""
DEAD_LETTER_RETRY_MS: Final = 1000
ROOM_POLL_MS: Final = 50
DRAIN_MS: Final = 3000
"""How long a stopping worker lets calls finish; the supervisor kills it after 5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingShell:
    """What the processor works with."""

    bootstrap: str
    worker_id: str
    generation: int
    """Greater than in any earlier life of this worker."""
    producer: AsyncProducer
    wire: Wire
    clock: Clock
    asker: Asker


class Router:
    """A `PartitionHandler`. Kept partitions keep their lanes and calls over a rebalance."""

    def __init__(self, shell: RoutingShell) -> None:
        self._shell = shell
        self._dead_letters = DeadLetters(processor=NAME, producer=shell.producer, wire=shell.wire)
        self._ours: set[int] = set()
        self._partitions: dict[int, RoutingPartition] = {}
        self._holders: dict[int, asyncio.Task[None]] = {}
        self._was_assigned = asyncio.Event()
        self._is_stopping = False

    async def assigned(self, partitions: set[int]) -> None:
        """Claims what is new; work on what went elsewhere stops."""
        self._ours = set(partitions)
        for number in self._partitions.keys() - partitions:
            self._stop(number)
        for number in partitions - self._partitions.keys():
            self._start(number)
        self._was_assigned.set()

    async def revoked(self, partitions: set[int]) -> None:
        """Nothing stops yet: most rebalances give it back, and calls in flight are money."""
        self._ours -= partitions

    async def handle(self, batch: Batch) -> None:
        """Hands each request to its partition; what is no request goes to the DLQ."""
        partition = self._partitions.get(batch.partition)
        if partition is None or self._is_stopping:
            return
        for record in batch.records:
            request = self._request_in(record.value, batch.partition)
            if isinstance(request, LlmCallRequested):
                partition.take(record.offset, request, batch)
            else:
                await self._dead_letter(batch, record.offset, record.key, record.value, request)
        while self._partitions.get(batch.partition) is partition and not partition.has_room:
            # A partition that cannot be claimed holds Faust back, and so the broker's copy grows,
            # not ours.
            await asyncio.sleep(ROOM_POLL_MS / 1000)

    async def wait_until_ready(self) -> None:
        """Returns when the group has assigned partitions and all of them are claimed."""
        await self._was_assigned.wait()
        for partition in list(self._partitions.values()):
            await partition.ready.wait()

    async def stop(self) -> None:
        """Finishes what ends soon, for it is paid for; the rest is done by the next owner."""
        self._is_stopping = True
        await asyncio.gather(*(p.drain(DRAIN_MS) for p in self._partitions.values()))
        holders = list(self._holders.values())
        for number in list(self._partitions):
            self._stop(number)
        await asyncio.gather(*holders, return_exceptions=True)
        await self._shell.asker.close()

    def _request_in(self, value: bytes | None, partition: int) -> LlmCallRequested | str:
        try:
            message = self._shell.wire.decode(value)
        except ValueError as error:
            return str(error)
        if isinstance(message, LlmCallRequested):
            is_ours = partition_of(LLM_REQUESTS, message.call_id) == partition
            return message if is_ours else "the call's key belongs to another partition"
        return f"{type(message).__name__} is no LLM request"

    async def _dead_letter(
        self, batch: Batch, offset: int, key: bytes | None, value: bytes | None, reason: str
    ) -> None:
        while True:
            try:
                await self._dead_letters.put(
                    topic=batch.topic,
                    partition=batch.partition,
                    offset=offset,
                    key=key,
                    value=value,
                    reason=reason,
                    at_ms=self._shell.clock.now_ms(),
                )
            except Retryable as error:
                log.warning("the DLQ is away: %s", error)
                await asyncio.sleep(DEAD_LETTER_RETRY_MS / 1000)
                continue
            batch.done(offset)
            return

    def _start(self, number: int) -> None:
        partition = RoutingPartition(
            number=number,
            asker=self._shell.asker,
            new_lane=self._lane,
            new_relay=self._relay,
            start_of=self._rebuild_start,
            is_ours=lambda partition: partition in self._ours,
            now_ms=self._shell.clock.now_ms,
        )
        self._partitions[number] = partition
        holder = asyncio.get_running_loop().create_task(partition.hold(self._shell.generation))
        self._holders[number] = holder

    def _stop(self, number: int) -> None:
        del self._partitions[number]
        self._holders.pop(number).cancel()

    def _lane(self, number: int, generation: int) -> Lane:
        shell = self._shell
        return Lane(
            bootstrap=shell.bootstrap,
            topic=LLM_RESPONSES,
            partition=number,
            worker_id=shell.worker_id,
            generation=generation,
            wire=shell.wire,
            producer=shell.producer,
            clock=shell.clock,
        )

    def _relay(self, request: LlmCallRequested, epoch: int) -> ChunkRelay:
        return ChunkRelay(request, epoch, producer=self._shell.producer, wire=self._shell.wire)

    def _rebuild_start(self, number: int) -> int:
        end = end_offset(self._shell.bootstrap, LLM_RESPONSES.name, number)
        return max(0, end - REBUILD_RECORDS_MAX)
