"""Faust, one event per fetched partition batch, acknowledged by us.

Faust owns membership, assignment, rebalance and timers. Its per-record path costs 230-270 us of CPU
and acknowledges an event even when its agent raised; here one fetched batch of one partition is one
Faust event (17-34 us a record) and the offset moves only over records that the handler has marked
done (ADR 0003). Overrides private methods of faust-streaming 0.15.3, which is pinned;
`tests/integration` kills it for real.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol, cast

import faust
from faust.sensors.monitor import Monitor
from faust.tables.manager import TableManager
from faust.transport import drivers
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP

log = logging.getLogger("omium.faust")

BATCH_RECORDS_MAX = 500
COMMIT_INTERVAL_S = 0.5
SESSION_TIMEOUT_S = 6.0
HEARTBEAT_INTERVAL_S = 1.5


class InboxRecord(Protocol):
    """One record as aiokafka hands it over."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Batch:
    """The records of one partition that one fetch brought, in order. Looks like one record to
    Faust.
    """

    checksum = None
    key = None
    headers = ()
    serialized_key_size = 0
    serialized_value_size = 0

    def __init__(self, records: list[InboxRecord]) -> None:
        last = cast(Any, records[-1])
        self.topic: str = last.topic
        self.partition: int = last.partition
        self.offset: int = last.offset
        self.timestamp = last.timestamp
        self.timestamp_type = last.timestamp_type
        self.records = records
        self.value = self
        self._open = {record.offset for record in records}

    def done(self, offset: int) -> None:
        """Marks one record as handled: its outcome stands on the log, or it needs none."""
        self._open.discard(offset)

    def done_below(self) -> int:
        """The lowest offset of this batch that is not done yet, or one past its end."""
        return min(self._open, default=self.offset + 1)


class PartitionHandler(Protocol):
    """What a processor does with the partitions it is given. Nothing here may raise."""

    async def assigned(self, partitions: set[int]) -> None:
        """The group gave us these partitions, kept ones included. Must return quickly."""

    async def revoked(self, partitions: set[int]) -> None:
        """These partitions are no longer ours. Must return quickly."""

    async def handle(self, batch: Batch) -> None:
        """Takes the batch over; returns when there is room for the next one, marks records done
        when they are.
        """


class _Scheduler(DefaultSchedulingStrategy):
    def iterate(self, records: Any) -> Iterator[tuple[TP, Any]]:
        for tp, fetched in records.items():
            for start in range(0, len(fetched), BATCH_RECORDS_MAX):
                yield tp, Batch(fetched[start : start + BATCH_RECORDS_MAX])


class _BatchSchema(faust.Schema):  # type: ignore[type-arg]  # Generic for checkers only.
    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, message.headers, message)

        return decode


class _Consumer(driver.Consumer):
    """Commits the finished prefix of what was handed over, whatever Faust believes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed_over: dict[TP, deque[Batch]] = defaultdict(deque)

    def _to_message(self, tp: TP, record: Any) -> Any:
        message = super()._to_message(tp, record)
        if record.offset >= (self._read_offset[tp] or 0):
            self._handed_over[tp].append(record)
        return message

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        return None

    def _new_offset(self, tp: TP) -> int | None:
        batches, position = self._handed_over[tp], None
        while batches:
            below = batches[0].done_below()
            if below > batches[0].records[0].offset:
                position = below
            if below <= batches[0].offset:
                break
            batches.popleft()
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return position

    def on_buffer_full(self, tp: TP) -> None:
        return None  # `put` simply waits; stock Faust drops the partition for a second.

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.commit()
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._handed_over.pop(tp, None)


class _Transport(driver.Transport):
    Consumer = _Consumer


class _SilentMonitor(Monitor):
    """Counts nothing: Faust's own figures cost 10 % of its time and ours come from the log."""

    def on_message_in(self, *_: Any, **__: Any) -> None: ...
    def on_stream_event_in(self, *_: Any, **__: Any) -> None: ...
    def on_stream_event_out(self, *_: Any, **__: Any) -> None: ...
    def on_message_out(self, *_: Any, **__: Any) -> None: ...


class _NoTables(TableManager):
    """Starts at once: stock Faust sleeps a second first, in case tables are still being defined. We
    have none.
    """

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


drivers.TRANSPORTS.aliases["omium-batch"] = "processors.faust_batch:_Transport"


def batch_app(
    name: str,
    *,
    bootstrap: str,
    topic: str,
    partitions: int,
    instance_id: str,
    handler: PartitionHandler,
    data_dir: str,
) -> faust.App:
    """A Faust app that feeds `handler` with the batches of one topic.

    `instance_id` makes membership static: a worker that comes back under the same name within the
    session timeout gets its partitions back at once, without a rebalance.
    """
    app = faust.App(
        name,
        broker=f"omium-batch://{bootstrap}",
        broker_client_id=f"{name}-{instance_id}",
        consumer_group_instance_id=instance_id,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_INTERVAL_S,
        broker_max_poll_records=BATCH_RECORDS_MAX,
        broker_request_timeout=30.0,
        consumer_auto_offset_reset="earliest",
        ConsumerScheduler=_Scheduler,
        Monitor=_SilentMonitor,
        TableManager=_NoTables,
        cython_optimizations=True,
        stream_buffer_maxsize=4,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=partitions,
        store="memory://",
        datadir=f"{data_dir}/faust-{name}",
        web_enabled=False,
        loghandlers=[],
        logging_config=None,
    )
    source = app.topic(topic, schema=_BatchSchema(), partitions=partitions)

    @app.agent(source, name=f"{name}-batches")
    async def take(stream: Any) -> None:
        async for batch in stream:
            try:
                await handler.handle(batch)
            except asyncio.CancelledError:
                raise
            except Exception:
                # The batch stays unacknowledged; Faust would acknowledge an agent that raises.
                log.exception("a batch of %s[%s] was not taken over", batch.topic, batch.partition)

    @app.on_partitions_assigned.connect(weak=False)
    async def on_assigned(_: Any, assigned: Iterable[TP], **__: Any) -> None:
        await handler.assigned({tp.partition for tp in assigned if tp.topic == topic})

    @app.on_partitions_revoked.connect(weak=False)
    async def on_revoked(_: Any, revoked: Iterable[TP], **__: Any) -> None:
        await handler.revoked({tp.partition for tp in revoked if tp.topic == topic})

    return app
