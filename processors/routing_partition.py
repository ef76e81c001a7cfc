"""One partition of LLM calls: claimed, rebuilt, served. Every request ends in one standing outcome
(law 3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from processors.faust_batch import Batch
from processors.lane import Lane
from processors.routing_asking import Asker, Outcome
from processors.routing_calls import RecentCalls
from processors.routing_outcomes import (
    expired_failure,
    failure_of_joined,
    internal_failure,
    overloaded_failure,
)
from processors.routing_relay import ChunkRelay
from streams.errors import Deposed, Rejected, Retryable
from streams.llm.events import LlmCallCompleted, LlmCallFailed, LlmCallRequested, LlmCallRouted
from streams.messages import Message
from streams.routing.call import Answered, Ask, decide

log = logging.getLogger("omium.routing")

OPEN_REQUESTS_MAX: Final = 1000
"""Requests of one partition that are served or wait; further ones are answered `overloaded`."""
OVERLOAD_RETRY_AFTER_MS: Final = 2000
REQUEST_AGE_MS_MAX: Final = 15 * 60 * 1000
"""A request that waited longer (no router ran) is not paid for: its client has long been told 504.
"""
RECLAIM_WAIT_MS: Final = 2000
"""After meeting a foreign claim: longer than a heartbeat, so that the group can say whose partition
it is.
"""
APPEND_RETRY_MS: Final = 1000

LaneFactory = Callable[[int, int], Lane]
"""A lane for (partition, generation)."""
RelayFactory = Callable[[LlmCallRequested, int], ChunkRelay]
"""A relay for the chunks of a request, written under an epoch."""
StartOf = Callable[[int], int]
"""The offset of the responses partition at which a rebuild starts; blocks."""


@dataclass(slots=True)
class _Open:
    """A request that has no standing outcome, and the batch that waits for it."""

    request: LlmCallRequested
    batch: Batch


@dataclass(slots=True)
class _Flight:
    """A call that is being asked, and the offsets of all requests that wait for it."""

    offsets: list[int]
    try_number: int
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, kw_only=True)
class RoutingPartition:
    """The single writer of one partition of `omium.llm.responses.v1`."""

    number: int
    asker: Asker
    new_lane: LaneFactory
    new_relay: RelayFactory
    start_of: StartOf
    is_ours: Callable[[int], bool]
    now_ms: Callable[[], int]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    _lane: Lane | None = None
    _calls: RecentCalls = field(default_factory=RecentCalls)
    _open: dict[int, _Open] = field(default_factory=dict)
    _flights: dict[str, _Flight] = field(default_factory=dict)

    async def hold(self, first_generation: int) -> None:
        """Claims the partition, and claims it again whenever it was taken and is still ours. Ends
        when cancelled.
        """
        generation = first_generation
        try:
            while True:
                lane = self.new_lane(self.number, generation)
                generation += 1
                if await self._claimed(lane):
                    await lane.deposed.wait()
                    log.warning("routing partition %s was claimed by another owner", self.number)
                await self._drop()
                await asyncio.sleep(RECLAIM_WAIT_MS / 1000)
                while not self.is_ours(self.number):
                    await asyncio.sleep(RECLAIM_WAIT_MS / 1000)
        finally:
            await self._drop()

    @property
    def has_room(self) -> bool:
        """Whether more may be handed over; requests that cannot be answered yet are held, up to a
        limit.
        """
        return self._lane is not None or len(self._open) < OPEN_REQUESTS_MAX

    async def drain(self, limit_ms: int) -> None:
        """Returns when no call is under way, or after the limit."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=limit_ms / 1000)

    def take(self, offset: int, request: LlmCallRequested, batch: Batch) -> None:
        """Accepts a request; `batch` hears of it when its outcome stands. A repeated delivery
        replaces the batch.
        """
        is_known = offset in self._open
        self._open[offset] = _Open(request, batch)
        if self._lane is not None and not is_known:
            self._consider(offset)

    async def _claimed(self, lane: Lane) -> bool:
        calls = RecentCalls()
        try:
            start = await asyncio.get_running_loop().run_in_executor(
                None, self.start_of, self.number
            )
            await lane.claim(calls.fold, start=start)
        except (Retryable, Deposed) as error:
            log.warning("cannot claim routing partition %s: %s", self.number, error)
            return False
        self._lane, self._calls = lane, calls
        log.info("routing partition %s: epoch %s, %s calls", self.number, lane.epoch, len(calls))
        self.ready.set()
        for offset in sorted(self._open):
            self._consider(offset)
        return True

    async def _drop(self) -> None:
        """Stops all work; open requests stay, for the next tenure."""
        self.ready.clear()
        self._lane = None
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _consider(self, offset: int) -> None:
        request = self._open[offset].request
        flight = self._flights.get(request.call_id)
        if flight is not None:
            flight.offsets.append(offset)
            return
        verdict = decide(self._calls.state(request.call_id), request)
        if isinstance(verdict, Answered):
            self._done([offset])
            return
        flight = _Flight([offset], verdict.try_number)
        self._flights[request.call_id] = flight
        refusal = self._refusal(request)
        serving = self._settle(request, refusal) if refusal else self._serve(request, verdict)
        flight.task = asyncio.get_running_loop().create_task(serving)

    def _refusal(self, request: LlmCallRequested) -> LlmCallFailed | None:
        """Why a request is not asked at all: nobody waits for it any more, or too many wait."""
        if self.now_ms() - request.at_ms > REQUEST_AGE_MS_MAX:
            return expired_failure(request)
        if len(self._open) > OPEN_REQUESTS_MAX:
            return overloaded_failure(request, OVERLOAD_RETRY_AFTER_MS)
        return None

    async def _serve(self, request: LlmCallRequested, ask: Ask) -> None:
        lane = self._lane
        assert lane is not None, "served without a lane"
        relay = self.new_relay(request, lane.epoch)

        async def announce(intent: LlmCallRouted) -> None:
            await self._append(lane, intent)

        try:
            outcome: Outcome = await self.asker.ask(request, ask, announce, relay.feed)
        except Deposed:
            return  # The open request is considered again under the next claim, ours or another's.
        except Exception as error:
            log.exception("call %s could not be served", request.call_id)
            outcome = internal_failure(request, error, ask.try_number)
        relay.flush()
        await self._settle(request, outcome)

    async def _settle(self, request: LlmCallRequested, outcome: Outcome) -> None:
        """Makes the outcome stand, then lets every request that waits for it go."""
        lane = self._lane
        if lane is None:
            return
        try:
            await self._append_outcome(lane, request, outcome)
            offsets = self._flights.pop(request.call_id).offsets
            if not isinstance(outcome, LlmCallCompleted):
                joined = [self._open[o].request for o in offsets if o in self._open][1:]
                for other in joined:
                    await self._append(lane, failure_of_joined(outcome, other))
        except Deposed:
            return
        self._done(offsets)

    async def _append_outcome(
        self, lane: Lane, request: LlmCallRequested, outcome: Outcome
    ) -> None:
        try:
            await self._append(lane, outcome)
        except (Rejected, ValueError) as error:
            # An outcome that no record can hold: the client must still hear of its call.
            log.exception("the outcome of call %s cannot be recorded", request.call_id)
            await self._append(lane, internal_failure(request, error, outcome.try_number))

    async def _append(self, lane: Lane, event: Message) -> None:
        """Appends until it stands: what was paid for is not dropped because a broker is away."""
        while True:
            try:
                offsets = await lane.append(event)
            except Retryable as error:
                log.warning("routing partition %s: %s", self.number, error)
                await asyncio.sleep(APPEND_RETRY_MS / 1000)
                continue
            self._calls.fold(offsets[0], event)
            return

    def _done(self, offsets: list[int]) -> None:
        for offset in offsets:
            entry = self._open.pop(offset, None)
            if entry is not None:
                entry.batch.done(offset)
