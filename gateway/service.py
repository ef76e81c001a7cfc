"""One gateway from start to stop: reads the log to where it stood, then keeps its views fed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.auth import KeyRing, Principal
from gateway.context import Context, GatewayConfig
from gateway.envelope import is_told
from gateway.history import History
from gateway.limits import DiskGuard, Slots
from gateway.live import Live, Workflows
from gateway.metrics import Metrics
from gateway.tails import Reader, ends, places
from producers.kafka import AsyncProducer
from producers.wire import Wire
from streams.errors import Retryable
from streams.execution.position import Mark, Place
from streams.topics import EXECUTIONS, LLM_RESPONSES

log = logging.getLogger("omium.gateway")

CATCH_UP_S: Final = 600.0
STORE_WAIT_S: Final = 10.0
STORE_RETRY_S: Final = 0.25
UNCONFIRMED_MAX: Final = 2000
"""Old commands looked up in the store after a start; more than so many can hardly wait unhandled.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Time and ids, from outside."""

    now_ms: Callable[[], int]
    monotonic_ms: Callable[[], int]
    new_id: Callable[[], str]


class Service:
    """Builds the context and keeps it fed."""

    def __init__(
        self,
        config: GatewayConfig,
        *,
        wire: Wire,
        history: History,
        clocks: Clocks,
        bootstrap_keys: Mapping[str, Principal],
    ) -> None:
        keys = KeyRing()
        for key, principal in bootstrap_keys.items():
            keys.add(key, principal)
        self._config = config
        self._reader: Reader | None = None
        self._is_ready = False
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.context = Context(
            config=config,
            producer=AsyncProducer(config.kafka, client_id="omium-gateway"),
            wire=wire,
            keys=keys,
            workflows=Workflows(),
            live=Live(bytes_max=config.live_bytes_max, executions_max=config.live_executions_max),
            history=history,
            disk=DiskGuard(config.data_dir, config.min_free_mb, clocks.monotonic_ms),
            streams=Slots(config.streams_max, "streams"),
            metrics=Metrics(),
            now_ms=clocks.now_ms,
            monotonic_ms=clocks.monotonic_ms,
            new_id=clocks.new_id,
            is_ready=lambda: self._is_ready,
        )

    async def start(self) -> None:
        """Connects and begins to read; `ready` tells when the views can be trusted."""
        await self.context.producer.start()
        self._tasks.append(asyncio.create_task(self._begin()))

    async def stop(self) -> None:
        """Stops reading and delivers what was accepted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._reader is not None:
            await self._reader.stop()
        await self.context.producer.stop()

    async def ready(self) -> None:
        """Returns once everything that stood on the log at the start was read; raises what made
        that impossible.
        """
        waiting = asyncio.create_task(self._ready.wait())
        await asyncio.wait({waiting, *self._tasks}, return_when=asyncio.FIRST_EXCEPTION)
        waiting.cancel()
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def _begin(self) -> None:
        context, loop = self.context, asyncio.get_running_loop()
        # Where the store ends is asked before the log's ends: what lies between is read from the
        # log.
        starts = await self._restore()
        targets: dict[Place, int] = await loop.run_in_executor(
            None, ends, self._config.kafka, places()
        )
        self._reader = Reader(
            bootstrap=self._config.kafka,
            client_id="omium-gateway",
            wire=context.wire,
            keys=context.keys,
            workflows=context.workflows,
            live=context.live,
            metrics=context.metrics,
            starts=starts,
            targets=targets,
        )
        await self._reader.start()
        if not await self._reader.caught_up(CATCH_UP_S):
            raise Retryable(f"the log could not be read within {CATCH_UP_S:.0f} s", 1000)
        self._is_ready = True
        self._ready.set()
        await self._confirm_old_commands()

    async def _restore(self) -> dict[Place, Mark]:
        """Takes executions that have not ended from the store and returns how far it has come;
        nothing without it.
        """
        deadline = asyncio.get_running_loop().time() + STORE_WAIT_S
        while True:
            try:
                starts = await self.context.history.positions()
                past = await self.context.history.open_events()
                break
            except Retryable as error:
                if asyncio.get_running_loop().time() > deadline:
                    log.warning("reading the log from its beginning: %s", error)
                    return {}
                await asyncio.sleep(STORE_RETRY_S)
        claimed = {topic.name for topic in (EXECUTIONS, LLM_RESPONSES)}
        starts = {place: mark for place, mark in starts.items() if place[0] in claimed}
        for event in past:
            mark = starts.get((event.topic, event.partition))
            # What the store got after its position was asked comes again from the log.
            is_before = mark is not None and event.offset <= mark.offset
            if is_before and is_told(event.topic, event.message):
                place = (event.topic, event.partition)
                self.context.live.fold(event.message, *place, event.offset, event.message.epoch)
        return starts

    async def _confirm_old_commands(self) -> None:
        """Decides about executions that only a command from before the start speaks of: waiting
        still, or long ended.
        """
        live = self.context.live
        for tenant, execution_id in live.unconfirmed()[:UNCONFIRMED_MAX]:
            try:
                is_known = bool(await self.context.history.events(tenant, execution_id))
            except Retryable:
                return
            entry = live.get(tenant, execution_id)
            if entry is None or entry.is_shown:
                continue
            if is_known:
                live.drop(execution_id)
            else:
                live.confirm(execution_id)
